"""The uniform selector: the same share of every group, or a share by pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from .._errors import LabelError
from ..axes import Group, Label
from ._base import Candidates, LabelSelector, lowest_labels
from ._constraint import ChannelsConstraint, Constraints, matching

if TYPE_CHECKING:
    from .._snapshot import Snapshot


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


def check_ratio(ratio: float) -> float:
    """A ratio in [0, 1).

    Raises:
        LabelError: if it is not.
    """
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise LabelError(f"a pruning ratio is a number from 0 up to but not including 1, got {ratio!r}")
    return float(ratio)


class UniformLabelSelector(LabelSelector):
    """Removes the lowest-scored share of the prunable labels of every group.

    Args:
        pruning_ratio: share to remove, from 0 up to but not including 1: of the ``n`` labels of a
            group ``floor(n * ratio)`` go, never all of them. Or a dict from patterns of group names
            to shares; the first that matches counts, and groups that none matches stay whole.
        round_to: keep widths that are multiples of this number, rounded up: short for
            ``channels_constraint=ChannelsConstraint(step=round_to)``.
        channels_constraint: widths that groups may have; the share is rounded to keep more.
        ignore: groups to leave alone: names, name prefixes that end at a dot, or modules.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 2),))
        >>> len(UniformLabelSelector(0.5).select(ir))
        3
    """

    def __init__(
        self,
        pruning_ratio: float | Mapping[str, float],
        *,
        round_to: int = 1,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
    ) -> None:
        if not isinstance(round_to, int) or round_to < 1:
            raise LabelError(f"round_to is a positive number of labels, got {round_to}")
        if round_to > 1 and channels_constraint is not None:
            raise LabelError("round_to and channels_constraint say the same: give one of them")
        super().__init__(
            channels_constraint=channels_constraint or ChannelsConstraint(step=round_to), ignore=ignore
        )
        if isinstance(pruning_ratio, Mapping):
            self.pruning_ratio: float | dict[str, float] = {
                pattern: check_ratio(ratio) for pattern, ratio in pruning_ratio.items()
            }
        else:
            self.pruning_ratio = check_ratio(pruning_ratio)

    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        ratios = self._ratios(candidates.groups)
        widths: dict[str, int] = {}
        for group in candidates.groups:
            wanted = group.size - removed_count(group.size, ratios.get(group.name, 0.0))
            allowed = candidates.allowed[group.name]
            widths[group.name] = next((width for width in allowed if width >= wanted), allowed[-1])
        return lowest_labels(candidates, widths)

    def _ratios(self, groups: list[Group]) -> dict[str, float]:
        ratio = self.pruning_ratio
        if not isinstance(ratio, dict):
            return {group.name: ratio for group in groups}
        return {name: ratio[pattern] for name, pattern in matching(ratio, groups, "pruning_ratio").items()}
