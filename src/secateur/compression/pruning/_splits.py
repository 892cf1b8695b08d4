"""How a total is split over layers: units that share a ratio, and splits that respect their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..._errors import PruningError
from ..config import Resolved, Target
from ..sites import Key, key_of
from ._allocate import with_settings
from ._pruner import Pruner


@dataclass(frozen=True)
class Part:
    """Targets that lose the same share: one, or those of a dependency group.

    Attributes:
        targets: what shares the ratio.
        size: elements of all of them.
        goal: the ratio that the configuration asks for.
        least: no ratio is lower.
        most: none is higher; by default one block of everything stays.
    """

    targets: tuple[Target, ...]
    size: int
    goal: float
    least: float
    most: float


def find_parts(pruner: Pruner) -> list[Part]:
    """The parts of a configuration that have a ratio, in the order of the model."""
    groups: dict[object, list[Target]] = {}
    for target in pruner.resolved.targets:
        if target.settings.sparse_ratio is not None:
            id_ = target.settings.dependency_group_id
            groups.setdefault(key_of(target) if id_ is None else ("group", id_), []).append(target)
    if not groups:
        raise PruningError(f"{type(pruner).__name__}: no target has a sparse_ratio to be split")
    return [_part(pruner, targets) for targets in groups.values()]


def _part(pruner: Pruner, targets: Sequence[Target]) -> Part:
    size = blocks = 0
    for target in targets:
        counts = pruner.counts(target)
        size += prod(pruner.sites.shape(target) or ())
        blocks = max(blocks, prod(counts))
    settings = [target.settings for target in targets]
    most = min(s.max_sparse_ratio for s in settings)
    return Part(
        tuple(targets),
        size,
        max(s.sparse_ratio or 0.0 for s in settings),
        max(s.min_sparse_ratio for s in settings),
        most if most < 1 else 1 - 1 / blocks,
    )


def fit(ratios: Sequence[float], parts: Sequence[Part]) -> list[float]:
    """Ratios moved by one common shift, within their bounds, until they are the goal in total.

    Args:
        ratios: one a part, of any size.
        parts: the parts; their sizes weigh.

    Raises:
        PruningError: if the bounds rule the goal out.
    """
    sizes = [part.size for part in parts]
    goal = sum(part.goal * part.size for part in parts)
    reachable = sum(part.most * part.size for part in parts)
    if reachable < goal * (1 - 1e-6) or sum(part.least * part.size for part in parts) > goal * (1 + 1e-6):
        raise PruningError(
            f"the bounds of the layers allow {reachable / sum(sizes):.3f} of all elements to be pruned, and "
            f"{goal / sum(sizes):.3f} is asked for"
        )

    def moved(shift: float) -> list[float]:
        return [min(max(r + shift, p.least), p.most) for r, p in zip(ratios, parts, strict=True)]

    low, high = -1.0 - max(ratios), 1.0 - min(ratios)
    for _ in range(60):  # halves an interval of at most 4: exact to the last bit
        middle = (low + high) / 2
        total = sum(r * size for r, size in zip(moved(middle), sizes, strict=True))
        low, high = (middle, high) if total < goal else (low, middle)
    return moved(high)


def with_ratios(resolved: Resolved, parts: Sequence[Part], ratios: Sequence[float]) -> Resolved:
    """The configuration with another ratio for every part, and no global groups."""
    values: dict[Key, dict[str, Any]] = {}
    for part, ratio in zip(parts, ratios, strict=True):
        for target in part.targets:
            values[key_of(target)] = {"sparse_ratio": float(ratio), "global_group_id": None}
    return with_settings(resolved, values)


def with_share(resolved: Resolved, done: float) -> Resolved:
    """The configuration after a part of the rounds: of what is left, every round takes the same share."""
    ratios = {key_of(target): target.settings.sparse_ratio for target in resolved.targets}
    return with_settings(
        resolved,
        {
            key: {"sparse_ratio": 1 - (1 - ratio) ** done}
            for key, ratio in ratios.items()
            if ratio is not None
        },
    )
