"""Selectors that rank labels of different groups against each other."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from .._errors import LabelError
from ..axes import Group, Label, Structure
from ..capture import Source
from ._base import Candidates, LabelSelector
from ._bundles import Bundle
from ._constraint import Constraints
from ._uniform import check_ratio

if TYPE_CHECKING:
    from .._snapshot import Snapshot


def removal_order(bundles: Sequence[Bundle]) -> Iterator[tuple[int, int, float]]:
    """Every step down that can be taken, the lowest first: (bundle number, new level, score of a label).

    A step's score is the mean over the labels that it takes. Within a bundle steps go in order.
    """
    waiting = [(_step_score(b, b.top - 1), i, b.top - 1) for i, b in enumerate(bundles) if b.top > 0]
    heapq.heapify(waiting)
    while waiting:
        score, index, level = heapq.heappop(waiting)
        yield index, level, score
        if level > 0:
            heapq.heappush(waiting, (_step_score(bundles[index], level - 1), index, level - 1))


def _step_score(bundle: Bundle, level: int) -> float:
    count = bundle.removed(level) - bundle.removed(level + 1)
    return (bundle.values[level + 1] - bundle.values[level]) / count


def take_lowest(bundles: Sequence[Bundle], count: int) -> list[int]:
    """Levels at which at most ``count`` labels are off, the lowest first.

    With steps larger than 1 a step that does not fit closes its bundle, and smaller ones go on.
    """
    levels = [bundle.top for bundle in bundles]
    taken = sum(bundle.removed(bundle.top) for bundle in bundles)
    closed: set[int] = set()
    for index, level, _ in removal_order(bundles):
        step = bundles[index].removed(level) - bundles[index].removed(level + 1)
        if index in closed or taken + step > count:
            closed.add(index)
            continue
        levels[index], taken = level, taken + step
        if taken == count:
            break
    return levels


def labels_of(bundles: Sequence[Bundle], levels: Sequence[int]) -> list[Label]:
    """The labels that are off when bundles stand at these levels."""
    return [label for b, level in zip(bundles, levels, strict=True) for label in b.labels(level)]


class GlobalScoreLabelSelector(LabelSelector):
    """Removes the lowest-scored labels of the whole model.

    Args:
        n_or_ratio: below 1 the share to remove of all prunable labels (those of groups that are
            not ignored; a label that many layers share counts once); from 1 on their number. So
            both 1 and 1.0 are one label.
        channels_constraint: widths that groups may have. At least one label of each group stays.
        ignore: groups to leave alone.

    Raises:
        LabelError: for a negative number, or more labels than can go.

    Scores of different groups are compared as they are: a criterion's ``normalize`` says how they
    were made comparable.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 2),))
        >>> len(GlobalScoreLabelSelector(2).select(ir)), len(GlobalScoreLabelSelector(0.5).select(ir))
        (2, 3)
    """

    def __init__(
        self,
        n_or_ratio: float,
        *,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
    ) -> None:
        super().__init__(channels_constraint=channels_constraint, ignore=ignore)
        number = isinstance(n_or_ratio, (int, float)) and not isinstance(n_or_ratio, bool)
        if not number or not n_or_ratio >= 0 or (n_or_ratio >= 1 and n_or_ratio != int(n_or_ratio)):
            raise LabelError(
                "n_or_ratio is a share from 0 up to but not including 1, or a whole number of labels, "
                f"got {n_or_ratio!r}"
            )
        self.n_or_ratio = n_or_ratio

    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        total = sum(group.size for group in candidates.groups)
        count = int(self.n_or_ratio)
        if self.n_or_ratio < 1:
            count = int(total * self.n_or_ratio + 1e-9)
        elif count > total - len(candidates.groups):
            raise LabelError(
                f"{count} labels were asked for, and {total - len(candidates.groups)} of the {total} "
                f"prunable ones can go: each of the {len(candidates.groups)} groups keeps one"
            )
        bundles = candidates.bundles()
        return labels_of(bundles, take_lowest(bundles, count))


class IsomorphicLabelSelector(LabelSelector):
    """Ranks labels among groups of equal shape, and removes the same share of each such class.

    Groups are of equal shape if they have the same size and reach parameters of the same shapes at
    the same dimensions: the hidden widths of equal blocks compete, a stem and a head do not. Scores
    need no normalisation then.

    Source: Fang et al., "Isomorphic Pruning for Vision Models" (ECCV 2024).

    Args:
        pruning_ratio: share of the labels of each class to remove, in [0, 1).
        channels_constraint: widths that groups may have.
        ignore: groups to leave alone.
    """

    def __init__(
        self,
        pruning_ratio: float,
        *,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
    ) -> None:
        super().__init__(channels_constraint=channels_constraint, ignore=ignore)
        self.pruning_ratio = check_ratio(pruning_ratio)

    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        classes: dict[object, list[Bundle]] = defaultdict(list)
        shapes = shapes_of_groups(candidates.structure, candidates.groups)
        for bundle in candidates.bundles():
            classes[tuple(shapes[group.name] for group in bundle.groups)].append(bundle)
        labels: list[Label] = []
        for bundles in classes.values():
            total = sum(group.size for bundle in bundles for group in bundle.groups)
            count = int(total * self.pruning_ratio + 1e-9)
            labels += labels_of(bundles, take_lowest(bundles, count))
        return labels


def shapes_of_groups(structure: Structure, groups: Iterable[Group]) -> dict[str, object]:
    """For each group: its size, role and the shapes of what it reaches, as something to compare."""
    shapes = {v.name: v.shape for v in structure.analysis.graph.state(Source.PARAMETER)}
    return {
        group.name: (
            group.size,
            group.role,
            tuple(sorted((shapes[name], dim) for name, dim in group.parameters)),
        )
        for group in groups
    }


class ThresholdLabelSelector(LabelSelector):
    """Removes every label whose score is below a threshold.

    Args:
        threshold: scores below it go; each group keeps what its constraint asks for, at least one.
        channels_constraint: widths that groups may have; more is kept where they ask for it.
        ignore: groups to leave alone.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)))
        >>> ir.create_snapshot("main", args=(torch.ones(1, 2),)).scores = {"0": torch.tensor([1.0, 5, 2])}
        >>> [label.index for label in ThresholdLabelSelector(3.0).select(ir)]
        [0, 2]
    """

    def __init__(
        self,
        threshold: float,
        *,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
    ) -> None:
        super().__init__(channels_constraint=channels_constraint, ignore=ignore)
        self.threshold = float(threshold)

    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        bundles = candidates.bundles()
        levels = [bundle.top for bundle in bundles]
        for index, level, _ in removal_order(bundles):
            bundle = bundles[index]
            gone = level == levels[index] - 1 and self._all_below(bundle, level)
            levels[index] = level if gone else levels[index]
        return labels_of(bundles, levels)

    def _all_below(self, bundle: Bundle, level: int) -> bool:
        """Whether every label that is off at a level scores below the threshold."""
        return all(
            score[order[group.size - width - 1]] < self.threshold
            for group, score, order, width in zip(
                bundle.groups, bundle.scores, bundle.orders, bundle.levels[level], strict=True
            )
            if width < group.size
        )
