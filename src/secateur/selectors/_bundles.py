"""Bundles: groups that lose labels together, and the levels that a bundle can stand at.

Most groups are a bundle of their own, with a level for every width. Where the model wants sizes
equal (the halves of a ``chunk``, a width that is heads times features), taking labels off one side
alone gains nothing: such groups are cut in step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import gcd

import torch

from ..axes import Concat, Dim, Group, Label, Leaf, Product, Structure
from ..cost import settled_widths


@dataclass(eq=False)
class Bundle:
    """Groups that are cut in step.

    Attributes:
        groups: the groups.
        scores: a float64 tensor of shape ``(size,)`` for each.
        levels: for each level, ascending, the widths of the groups there. The last one is what the
            groups may be at most, which is their full size unless a constraint forbids it.
    """

    groups: tuple[Group, ...]
    scores: tuple[torch.Tensor, ...]
    levels: list[tuple[int, ...]]
    orders: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        # Lowest scores first; equal scores in the order of their positions.
        self.orders = [torch.argsort(score, stable=True).tolist() for score in self.scores]

    @property
    def top(self) -> int:
        """The number of the highest level."""
        return len(self.levels) - 1

    @cached_property
    def values(self) -> list[float]:
        """For each level: the sum of the scores of the labels that stay."""
        kept = [
            torch.cat([score.new_zeros(1), score[order].flip(0).cumsum(0)]).tolist()
            for score, order in zip(self.scores, self.orders, strict=True)
        ]
        return [sum(k[w] for k, w in zip(kept, widths, strict=True)) for widths in self.levels]

    def widths(self, level: int) -> dict[str, int]:
        """Widths by group name at a level."""
        return {g.name: w for g, w in zip(self.groups, self.levels[level], strict=True)}

    def labels(self, level: int) -> list[Label]:
        """The labels that are off at a level."""
        return [
            Label(group.name, index, group.source)
            for group, order, width in zip(self.groups, self.orders, self.levels[level], strict=True)
            for index in sorted(order[: group.size - width])
        ]

    def removed(self, level: int) -> int:
        """How many labels are off at a level."""
        return sum(g.size - w for g, w in zip(self.groups, self.levels[level], strict=True))


def make_bundles(
    structure: Structure,
    groups: Sequence[Group],
    scores: Mapping[str, torch.Tensor],
    allowed: Mapping[str, Sequence[int]],
) -> list[Bundle]:
    """Bundles of ``groups``, in their order.

    Args:
        structure: the analysed model, for its balances.
        groups: the groups that may be cut.
        scores: of each group.
        allowed: the widths that each group may have, ascending.
    """
    by_axis = {group.axis: group for group in groups}
    bundles: list[Bundle] = []
    bound: set[Leaf] = set()
    for axes in _components(structure, by_axis):
        members = [by_axis[axis] for axis in axes]
        levels = _common_levels(structure, members, allowed)
        if len(levels) > 1:
            bound.update(axes)
            bundles.append(_bundle(members, scores, levels))
    for group in groups:
        if group.axis not in bound:
            bundles.append(_bundle([group], scores, [(width,) for width in allowed[group.name]]))
    position = {group.name: index for index, group in enumerate(groups)}
    return sorted(bundles, key=lambda bundle: position[bundle.groups[0].name])


def _bundle(groups: list[Group], scores: Mapping[str, torch.Tensor], levels: list[tuple[int, ...]]) -> Bundle:
    return Bundle(tuple(groups), tuple(scores[g.name].double().cpu() for g in groups), levels)


def _components(structure: Structure, groups: Mapping[Leaf, Group]) -> list[list[Leaf]]:
    """Axes that balances link, one of each factorised side: of heads times features, the larger."""
    linked: dict[Leaf, set[Leaf]] = {}
    for dims in structure.balances():
        axes = {axis for dim in dims for axis in _drivers(dim, groups)}
        for axis in axes:
            linked.setdefault(axis, set()).update(axes)
    found: list[list[Leaf]] = []
    seen: set[Leaf] = set()
    for start in groups:
        component: list[Leaf] = []
        waiting = [start] if start in linked else []
        while waiting:
            axis = waiting.pop()
            if axis not in seen:
                seen.add(axis)
                component.append(axis)
                waiting += linked[axis]
        if len(component) > 1:
            found.append(sorted(component, key=list(groups).index))
    return found


def _drivers(dim: Dim, groups: Mapping[Leaf, Group]) -> list[Leaf]:
    if isinstance(dim, Leaf):
        return [dim] if dim in groups else []
    if isinstance(dim, Concat):
        return [axis for part in dim.parts for axis in _drivers(part, groups)]
    assert isinstance(dim, Product)
    return max((_drivers(factor, groups) for factor in dim.factors), key=_largest, default=[])


def _largest(axes: list[Leaf]) -> int:
    return max((axis.size for axis in axes), default=0)


def _common_levels(
    structure: Structure, groups: Sequence[Group], allowed: Mapping[str, Sequence[int]]
) -> list[tuple[int, ...]]:
    """Widths at which all groups have lost the same share, and the balances hold."""
    parts = gcd(*(group.size for group in groups))
    levels: list[tuple[int, ...]] = []
    for part in range(1, parts + 1):
        widths = {group.name: group.size // parts * part for group in groups}
        if all(width in allowed[name] for name, width in widths.items()):
            settled = settled_widths(structure, widths)
            if all(settled[name] == width for name, width in widths.items()):
                levels.append(tuple(widths.values()))
    assert all(low < high for low, high in pairwise(levels)), "levels ascend"
    return levels
