"""What all selectors share: where scores come from, which groups may be cut, and balances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from .._errors import LabelError, ScoreError
from ..axes import Group, Label, Leaf, Structure
from ..capture import without_gc
from ..cost import settled_widths
from ._bundles import Bundle, make_bundles
from ._constraint import Constraints, allowed_widths

if TYPE_CHECKING:
    from .._ir import PruningIR
    from .._snapshot import Snapshot

Scores: TypeAlias = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Candidates:
    """What a selector chooses from.

    Attributes:
        structure: the analysed model.
        groups: the groups that may be cut and have scores.
        scores: a tensor of shape ``(size,)`` for each.
        allowed: the widths that each may have, ascending.
    """

    structure: Structure
    groups: list[Group]
    scores: Scores
    allowed: Mapping[str, Sequence[int]]

    def bundles(self) -> list[Bundle]:
        """The groups as bundles: those that must be cut in step are together."""
        return make_bundles(self.structure, self.groups, self.scores, self.allowed)


class LabelSelector(ABC):
    """Chooses labels to remove.

    A selection is a pure function of groups, scores and constraints: the same input gives the same
    labels. Labels whose removal a balance would not allow (they would stay as zeros) are not chosen.

    Args:
        channels_constraint: widths that groups may have: one constraint for all, or a dict from
            patterns of group names to constraints, of which the first that matches counts.
        ignore: groups to leave alone: names, name prefixes that end at a dot, or modules.
    """

    def __init__(
        self, *, channels_constraint: Constraints = None, ignore: Iterable[str | nn.Module] = ()
    ) -> None:
        self.channels_constraint = channels_constraint
        self.ignore = tuple(ignore)

    def select(self, ir: PruningIR | Snapshot, snapshot_name: str = "main") -> list[Label]:
        """Labels to remove, in the order of the groups.

        Args:
            ir: the model, or one of its snapshots.
            snapshot_name: which snapshot, where ``ir`` is no snapshot itself.

        Returns:
            Labels for :meth:`secateur.PruningIR.prune`. Scores are those that a criterion collected,
            or else group magnitude; a group without scores is left alone.

        Raises:
            LabelError: if ``ignore`` or a pattern names something unknown.
            ScoreError: if a score is NaN.
        """
        snapshot = _snapshot_of(ir, snapshot_name)
        candidates = self._candidates(snapshot)
        return as_balances_allow(candidates, self._select(snapshot, candidates))

    @abstractmethod
    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        """The labels to remove from what may be removed."""

    def _candidates(self, snapshot: Snapshot) -> Candidates:
        scores = snapshot.current_scores()
        groups = left_over(snapshot.model, snapshot.structure.groups, self.ignore)
        groups = [group for group in groups if group.name in scores]
        for group in groups:
            if torch.isnan(scores[group.name]).any():
                raise ScoreError(f"the scores of group {group.name!r} hold NaN, so nothing is the lowest")
        allowed = above_floors(snapshot.structure, allowed_widths(groups, self.channels_constraint))
        return Candidates(snapshot.structure, groups, scores, allowed)


def above_floors(structure: Structure, allowed: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Allowed widths without those that are below what a group has to keep."""
    least = {dim: low for dim, low in structure.floors() if isinstance(dim, Leaf)}
    axes = {group.name: group.axis for group in structure.groups}
    return {
        name: [width for width in widths if width >= least.get(axes[name], 1)] or widths[-1:]
        for name, widths in allowed.items()
    }


def _snapshot_of(ir: PruningIR | Snapshot, name: str) -> Snapshot:
    if hasattr(ir, "structure"):
        return ir  # pyright: ignore[reportReturnType] - told apart by what they have
    return ir.snapshot(name)  # pyright: ignore[reportAttributeAccessIssue]


def left_over(model: nn.Module, groups: Iterable[Group], ignore: Iterable[str | nn.Module]) -> list[Group]:
    """Groups that ``ignore`` does not name.

    Raises:
        LabelError: for an entry that is neither a group nor a module of the model.
    """
    groups = list(groups)
    paths = {module: path for path, module in model.named_modules()}
    for entry in ignore:
        path = entry if isinstance(entry, str) else paths.get(entry)
        hit = [g for g in groups if path is not None and (g.name == path or g.name.startswith(f"{path}."))]
        if not hit and path not in paths.values():
            raise LabelError(f"ignore: there is no group or module {entry!r}")
        groups = [group for group in groups if group not in hit]
    return groups


def lowest(scores: torch.Tensor, count: int) -> list[int]:
    """Positions of the ``count`` lowest scores, in order; equal scores in the order of their positions."""
    return sorted(torch.argsort(scores, stable=True)[:count].tolist())


@without_gc()
def lowest_labels(candidates: Candidates, widths: Mapping[str, int]) -> list[Label]:
    """The lowest labels of each group, down to ``widths``."""
    return [
        Label(group.name, index, group.source)
        for group in candidates.groups
        for index in lowest(candidates.scores[group.name], group.size - widths[group.name])
    ]


@without_gc()
def as_balances_allow(candidates: Candidates, labels: Iterable[Label]) -> list[Label]:
    """The labels that do go, in the order of the groups.

    Where a balance keeps a group wider than the labels would make it, the highest-scored stay.
    """
    chosen: dict[str, set[int]] = {group.name: set() for group in candidates.groups}
    for label in labels:
        chosen[label.group].add(label.index)
    wanted = {group.name: group.size - len(chosen[group.name]) for group in candidates.groups}
    settled = settled_widths(candidates.structure, wanted)
    result: list[Label] = []
    for group in candidates.groups:
        gone = sorted(chosen[group.name])
        if settled[group.name] != wanted[group.name]:
            scores = candidates.scores[group.name].cpu()[torch.tensor(gone, dtype=torch.long)]
            gone = [gone[rank] for rank in lowest(scores, group.size - settled[group.name])]
        result += [Label(group.name, index, group.source) for index in gone]
    return result
