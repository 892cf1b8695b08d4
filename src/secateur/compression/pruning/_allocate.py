"""From scores to masks: how many blocks each target loses, and which.

One rule a case: a threshold, the ratio of a target, the ratio of a dependency group (one mask for all
members), the ratio of a global group (one ranking over all members). A dependency group inside of a
global group is ranked as one. Shares are of blocks, in a global group of elements, and round down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, lcm, prod
from typing import Any

import torch
from torch import Tensor

from ..._errors import PruningError
from ..config import PruningSettings, Resolved, Target
from ..sites import Key, block_rows, key_of

_ROUNDING = 1e-9
"""0.29 of 100 blocks are 29, though the product is a little less in floating point."""


def with_settings(resolved: Resolved, values: Mapping[Key, Mapping[str, Any]]) -> Resolved:
    """The configuration with other settings of some targets."""
    new: dict[Key, Target] = {}
    for target in resolved.targets:
        changed = values.get(key_of(target))
        if changed:
            new[key_of(target)] = replace(target, settings=replace(target.settings, **changed))
    return resolved.replace_targets(new) if new else resolved


@dataclass(frozen=True)
class Scored:
    """A target with a score for every block.

    Attributes:
        target: what is to be masked.
        scores: of shape ``(number of blocks,)``; None for members of a group that follow.
        counts: blocks along every dimension.
        elements: elements of a block.
    """

    target: Target
    scores: Tensor | None
    counts: tuple[int, ...]
    elements: int


@dataclass(frozen=True)
class Unit:
    """What gets one decision: a target, or all of a dependency group.

    Attributes:
        members: one, or those of the group.
        scores: means over the members, of shape ``(number of blocks,)``.
        parts: equal parts in each of which the ratio has to hold.
    """

    members: tuple[Scored, ...]
    scores: Tensor
    ratio: float | None
    threshold: float | None
    least: float
    most: float
    parts: int
    global_id: int | str | None

    @property
    def name(self) -> str:
        """For messages."""
        return ", ".join(member.target.path for member in self.members)

    def spare(self, share: float) -> int:
        """How many blocks of every part a share is, rounded down."""
        return floor(len(self.scores) // self.parts * share + _ROUNDING)

    def order(self) -> Tensor:
        """Blocks of every part, lowest score first, of shape ``(parts, blocks of a part)``."""
        grid = self.scores.reshape(self.parts, -1)
        offsets = torch.arange(self.parts, device=grid.device)[:, None] * grid.shape[1]
        return torch.argsort(grid, dim=1, stable=True) + offsets

    def without(self, count: int) -> Tensor:
        """The blocks to keep, when ``count`` go in every part; of equal scores the first go."""
        grid = self.scores.reshape(self.parts, -1)
        if count == 0:
            return torch.ones_like(self.scores, dtype=torch.bool)
        last = grid.kthvalue(count, 1, keepdim=True).values  # much faster than sorting
        gone = grid <= last
        if bool((gone.sum(1) > count).any()):
            level = grid == last
            gone ^= level
            gone |= level & (level.cumsum(1) <= count - gone.sum(1, keepdim=True))
        return ~gone.flatten()


def allocate(scored: Sequence[Scored]) -> dict[Key, Tensor]:
    """Which blocks of every target to keep, boolean of the shape of its ``counts``.

    Raises:
        PruningError: for members of a dependency group with different numbers of blocks, scores that
            are not numbers, or parts that do not divide the blocks.
    """
    units = _units(scored)
    keeps: dict[int, Tensor] = {}
    ranked: dict[int | str, list[int]] = {}
    for number, unit in enumerate(units):
        if unit.global_id is not None and unit.ratio is not None:
            ranked.setdefault(unit.global_id, []).append(number)
        else:
            keeps[number] = _threshold(unit) if unit.threshold is not None else _ratio(unit)
    for numbers in ranked.values():
        keeps.update(zip(numbers, _global([units[number] for number in numbers]), strict=True))
    return {
        key_of(member.target): keeps[number].reshape(member.counts)
        for number, unit in enumerate(units)
        for member in unit.members
    }


# -- rules -----------------------------------------------------------------------------------------


def _ratio(unit: Unit) -> Tensor:
    assert unit.ratio is not None
    return unit.without(unit.spare(min(max(unit.ratio, unit.least), unit.most)))


def _threshold(unit: Unit) -> Tensor:
    """Blocks that score at least the threshold, as long as least and most shares are respected."""
    assert unit.threshold is not None
    low = unit.scores.reshape(unit.parts, -1) < unit.threshold
    if unit.parts > 1:  # as many in every part
        return unit.without(_bounded(unit, int(low.sum(1).min())))
    return unit.without(_bounded(unit, int(low.sum())))


def _bounded(unit: Unit, count: int) -> int:
    return min(max(count, unit.spare(unit.least)), unit.spare(unit.most))


def _global(units: Sequence[Unit]) -> list[Tensor]:
    """One ranking: the lowest go until the ratio of all elements is reached.

    Every unit loses its least share first, and never more than its most; unless the ratio is 1 the
    last block of a unit stays, so no layer is emptied because its scores are on a smaller scale.
    """
    ratios = {unit.ratio for unit in units}
    if len(ratios) > 1:
        raise PruningError(
            f"a global group has one ratio, got {sorted(map(str, ratios))}: {units[0].name}, ..."
        )
    (ratio,) = ratios
    assert ratio is not None
    steps = [_steps(unit, ratio) for unit in units]
    scores = torch.cat([score for score, _ in steps])
    costs = torch.cat([torch.full((len(s),), cost, dtype=torch.float64) for s, cost in steps])
    total = sum(len(u.scores) * s.elements for u in units for s in u.members)
    order = torch.argsort(scores, stable=True)
    order = order[scores[order] < torch.inf]
    within = torch.cumsum(costs[order], 0) <= total * ratio * (1 + _ROUNDING)
    gone = torch.zeros(len(scores), dtype=torch.bool)
    gone[order] = within | (scores[order] == -torch.inf)
    counts = [int(part.sum()) for part in gone.split([len(score) for score, _ in steps])]
    return [unit.without(count) for unit, count in zip(units, counts, strict=True)]


def _steps(unit: Unit, ratio: float) -> tuple[Tensor, float]:
    """Scores of what goes together (a block of every part), lowest first, and the elements of one.

    What has to go scores minus infinity, what has to stay infinity.
    """
    scores = unit.scores[unit.order()].double().mean(0).cpu()
    most = unit.spare(unit.most)
    if most == len(scores) and ratio < 1:
        most -= 1
    scores[: unit.spare(unit.least)] = -torch.inf
    scores[most:] = torch.inf
    return scores, float(unit.parts * sum(member.elements for member in unit.members))


# -- units -----------------------------------------------------------------------------------------


def _units(scored: Sequence[Scored]) -> list[Unit]:
    groups: dict[object, list[Scored]] = {}
    for item in scored:
        id_ = item.target.settings.dependency_group_id
        groups.setdefault(key_of(item.target) if id_ is None else ("group", id_), []).append(item)
    return [_unit(members) for members in groups.values() if any(m.scores is not None for m in members)]


def _unit(members: Sequence[Scored]) -> Unit:
    first = members[0]
    for other in members[1:]:
        if prod(other.counts) != prod(first.counts):
            raise PruningError(
                "members of a dependency group have one mask and need as many blocks: "
                f"{_shown(first)}, but {_shown(other)}"
            )
    found = [m.scores for m in members if m.scores is not None]
    scores = found[0] if len(found) == 1 else torch.stack([s.to(found[0]) for s in found]).mean(0)
    settings = [m.target.settings for m in members if m.target.settings.active]
    parts = lcm(*(m.target.settings.internal_metric_block for m in members))
    _check(first, scores, parts)
    return Unit(
        members=tuple(members),
        scores=scores,
        ratio=_single(first, settings, "sparse_ratio"),
        threshold=_single(first, settings, "sparse_threshold"),
        least=max(s.min_sparse_ratio for s in settings),
        most=min(s.max_sparse_ratio for s in settings),
        parts=parts,
        global_id=_single(first, settings, "global_group_id"),
    )


def _single(first: Scored, settings: Iterable[PruningSettings], name: str) -> Any:
    """The one value that members of a group have; those without one follow."""
    values = list(dict.fromkeys(v for s in settings if (v := getattr(s, name)) is not None))
    if len(values) > 1:
        raise PruningError(f"members of a dependency group ({_shown(first)}, ...) differ in {name}: {values}")
    return values[0] if values else None


def _check(first: Scored, scores: Tensor, parts: int) -> None:
    if bool(torch.isnan(scores.sum())) and bool(torch.isnan(scores).any()):
        raise PruningError(f"{_shown(first)}: its scores are not numbers (NaN)")
    if len(scores) % parts:
        raise PruningError(
            f"{_shown(first)}, which cannot be cut into {parts} equal parts (internal_metric_block)"
        )


def _shown(item: Scored) -> str:
    return f"{item.target.path} has {prod(item.counts)} {item.counts}"


# -- alignment -------------------------------------------------------------------------------------


def aligned(target: Target, counts: tuple[int, ...], source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of a target that follows another one: kept where anything of the source is.

    Args:
        target: with ``align`` among its settings.
        counts: blocks along every dimension of the target.
        source: mask of the other target, which may be compact.
        shape: of the other target.

    Raises:
        PruningError: if the dimensions that are followed have another number of positions.
    """
    align = target.settings.align
    assert align is not None
    vector = block_rows(source.expand(shape), align.blocks(shape)).any(1)
    if vector.numel() != prod(counts):
        raise PruningError(
            f"{target.path} has {prod(counts)} blocks {counts} and is to be aligned with dims {align.dims} "
            f"of {align.module_name}.{align.target_name}, which have {vector.numel()} positions"
        )
    return vector.reshape(counts)
