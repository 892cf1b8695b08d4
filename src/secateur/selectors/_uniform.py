"""The uniform selector: the same share of every group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from .._errors import LabelError
from ..axes import Group, Label

if TYPE_CHECKING:
    from .._ir import PruningIR


def removed_count(size: int, ratio: float, round_to: int = 1) -> int:
    """How many of ``size`` labels a ratio removes.

    The share is rounded down; at least one label stays. With ``round_to`` the width that stays is
    rounded up to a multiple of it, and a group whose own size is no multiple keeps what it has
    where it would otherwise grow.

    >>> removed_count(64, 0.5), removed_count(3, 0.5), removed_count(5, 0.99)
    (32, 1, 4)
    >>> removed_count(100, 0.5, round_to=8)
    44
    """
    removed = min(int(size * ratio + 1e-9), size - 1)
    kept = size - removed
    return max(0, size - -(-kept // round_to) * round_to)


def lowest(scores: torch.Tensor, count: int) -> list[int]:
    """Positions of the ``count`` lowest scores, in order; equal scores in the order of their positions."""
    return sorted(torch.argsort(scores, stable=True)[:count].tolist())


def uniform_labels(
    groups: Iterable[Group], scores: Mapping[str, torch.Tensor], ratio: float, round_to: int = 1
) -> list[Label]:
    """Labels of the lowest scores, the same share in each group."""
    labels: list[Label] = []
    for group in groups:
        worst = lowest(scores[group.name], removed_count(group.size, ratio, round_to))
        labels += [Label(group.name, index, group.source) for index in worst]
    return labels


def check_ratio(ratio: float) -> float:
    """A ratio in [0, 1).

    Raises:
        LabelError: if it is not.
    """
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise LabelError(f"a pruning ratio is a number from 0 up to but not including 1, got {ratio!r}")
    return float(ratio)


class UniformLabelSelector:
    """Removes the lowest-scored share of the prunable labels of every group.

    Args:
        pruning_ratio: share to remove, from 0 up to but not including 1. Of ``n`` labels
            ``floor(n * ratio)`` go, never all of them.
        round_to: keep widths that are multiples of this number, rounded up.
        ignore: groups to leave alone: names, name prefixes that end at a dot, or modules.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 2),))
        >>> len(UniformLabelSelector(0.5).select(ir))
        3
    """

    def __init__(
        self, pruning_ratio: float, *, round_to: int = 1, ignore: Iterable[str | nn.Module] = ()
    ) -> None:
        self.pruning_ratio = check_ratio(pruning_ratio)
        if round_to < 1:
            raise LabelError(f"round_to is a positive number of labels, got {round_to}")
        self.round_to = round_to
        self.ignore = tuple(ignore)

    def select(self, ir: PruningIR, snapshot_name: str = "main") -> list[Label]:
        """Labels to remove from ``ir``, in the order of its groups.

        Scores are those that a criterion collected, or else group magnitude.

        Raises:
            LabelError: if there is nothing to prune, or ``ignore`` names something unknown.
        """
        groups = left_over(ir, ir.groups(snapshot_name), self.ignore)
        return uniform_labels(groups, ir.scores(snapshot_name), self.pruning_ratio, self.round_to)


def left_over(ir: PruningIR, groups: Iterable[Group], ignore: Iterable[str | nn.Module]) -> list[Group]:
    """Groups that ``ignore`` does not name."""
    groups = list(groups)
    paths = {module: path for path, module in ir.model.named_modules()}
    for entry in ignore:
        path = entry if isinstance(entry, str) else paths.get(entry)
        hit = [g for g in groups if path is not None and (g.name == path or g.name.startswith(f"{path}."))]
        if not hit and path not in paths.values():
            raise LabelError(f"ignore: there is no group or module {entry!r}")
        groups = [group for group in groups if group not in hit]
    return groups
