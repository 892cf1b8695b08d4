"""Alignment: masks that hide other channels in every group of a grouped convolution.

A grouped convolution has the same number of channels in every group, but which of them are removed
need not be the same ones: within a group channels may change places, if everything that is made of
them changes along. So channels are put in such an order that in every group the last ones go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from ..axes import STATE, Analysis, Concat, Dim, Leaf, Product, Structure, leaves_of, side_by_side
from ..capture import Source, Value, owned_tensors
from ..masks import Block, Constants, Reading, Removal, Why, compress
from ..surgery import Undo


@dataclass
class Pair:
    """Channels of groups: (outer inner), with the joint axis of their positions."""

    outer: Leaf
    inner: Leaf
    joint: Leaf

    def grid(self, removal: Removal) -> Tensor:
        """(groups, channels): what is removed."""
        return removal.removed[self.joint].reshape(self.outer.size, self.inner.size)

    def groups_left(self, removal: Removal) -> Tensor:
        """Groups that are not removed as a whole."""
        gone = removal.removed.get(self.outer)
        return torch.ones(self.outer.size, dtype=torch.bool) if gone is None else ~gone

    def spare(self, removal: Removal) -> int:
        """How many channels every group can spare."""
        counts = self.grid(removal)[self.groups_left(removal)].sum(1)
        return min(int(counts.min()), self.inner.size - 1) if len(counts) else 0

    def surplus(self, removal: Removal, fewer: int = 0) -> Block | None:
        """Removed channels that have to stay, since other groups can spare fewer."""
        grid, spare = self.grid(removal), self.spare(removal) - fewer
        rank = grid.long().cumsum(1)  # the first of every group stay
        counts = grid.sum(1, keepdim=True)
        over = grid & (rank <= counts - spare) & self.groups_left(removal)[:, None]
        return Block(self.joint, over.flatten(), Why.GROUPS) if bool(over.any()) else None

    def order(self, removal: Removal) -> Tensor:
        """(groups, channels): the channels of every group, those that go last."""
        order = torch.argsort(self.grid(removal).int(), dim=1, stable=True)
        same = torch.arange(self.inner.size).expand_as(order)
        return torch.where(self.groups_left(removal)[:, None], order, same)


@dataclass
class Alignment:
    """All pairs of a graph whose channels may change places within their groups."""

    pairs: list[Pair] = field(default_factory=list)

    def axes(self, structure: Structure) -> list[Leaf]:
        """What labels are removed from: joint axes in place of inner ones."""
        inner = {pair.inner for pair in self.pairs}
        own = [group.axis for group in structure.groups if group.axis not in inner]
        return own + [pair.joint for pair in self.pairs]

    def removed_by(self, axis: Leaf) -> Leaf:
        """The axis whose labels take positions off ``axis``."""
        return next((pair.joint for pair in self.pairs if pair.inner is axis), axis)

    def names(self, structure: Structure) -> dict[Leaf, str]:
        """What to call the axes that labels are removed from."""
        names = {group.axis: group.name for group in structure.groups}
        return names | {pair.joint: names[pair.inner] for pair in self.pairs}

    def surplus(self, removal: Removal) -> list[Block]:
        """Channels that have to stay for groups to stay equal."""
        return [block for pair in self.pairs if (block := pair.surplus(removal)) is not None]

    def positions(self, removal: Removal) -> dict[Leaf, set[int]]:
        """Removed labels by axis, after channels have changed places."""
        joints = {pair.joint for pair in self.pairs}
        found = {axis: gone for axis, gone in removal.positions().items() if axis not in joints}
        for pair in self.pairs:
            spare = pair.spare(removal)
            if spare:
                found[pair.inner] = set(range(pair.inner.size - spare, pair.inner.size))
        return found

    def one_less(self, axis: Leaf, removal: Removal) -> Block | None:
        """What has to stay if one label of an inner axis has to; None for other axes."""
        pair = next((pair for pair in self.pairs if pair.inner is axis), None)
        return None if pair is None else pair.surplus(removal, fewer=1)

    def orders(self, removal: Removal) -> list[tuple[Pair, Tensor]]:
        """Pairs whose channels have to change places."""
        found = [(pair, pair.order(removal)) for pair in self.pairs if pair.spare(removal)]
        return [(p, order) for p, order in found if not bool((order == torch.arange(p.inner.size)).all())]


def find_alignment(structure: Structure, constants: Constants) -> Alignment:
    """Pairs of every grouped convolution, where nothing else tells their channels apart."""
    offered = {group.axis for group in structure.groups}
    readings = [reading for layer in constants.layers.values() for reading in layer.readings]
    candidates: dict[tuple[Leaf, Leaf], None] = {}
    for reading in readings:
        for dim in (reading.columns, reading.rows[0]) if reading.weights.shape[0] > 1 else ():
            if isinstance(dim, Product) and len(dim.factors) == 2 and dim.factors[1] in offered:
                outer, inner = dim.factors
                if isinstance(outer, Leaf) and isinstance(inner, Leaf):
                    candidates[outer, inner] = None
    grouped = {reading.weight: reading for reading in readings if reading.weights.shape[0] > 1}
    places = _places(constants.analysis, {inner for _, inner in candidates}, grouped)
    return Alignment([
        Pair(outer, inner, constants.addresses.join(outer, inner))
        for outer, inner in candidates
        if all(_movable(place, outer, inner, grouped) for place in places[inner])
    ])  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """A dimension that an inner axis is part of: of a tensor, or what an operator says something about."""

    dim: Dim
    value: Value | None = None


def _places(analysis: Analysis, axes: set[Leaf], grouped: Mapping[str, Reading]) -> dict[Leaf, list[_Place]]:
    found: dict[Leaf, list[_Place]] = defaultdict(list)
    every = [_Place(dim, v) for v in analysis.graph.values for dim in analysis.dims_of(v.id)]
    layers = {id(reading.node) for reading in grouped.values()}
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        if operator is not None:
            dims = [dim for dim, _ in operator.statistics] + [dim for _, dim, _ in operator.inexact_if]
            dims += [] if id(node) in layers else [total.dim for total in operator.sums]
            every += [_Place(analysis.algebra.resolve(dim)) for dim in dims]
    for place in every:
        for axis in axes.intersection(leaves_of(place.dim)):
            found[axis].append(place)
    return found


def _movable(place: _Place, outer: Leaf, inner: Leaf, grouped: Mapping[str, Reading]) -> bool:
    """Whether ``outer`` comes right before ``inner``, or it is the weight of a grouped layer."""
    if side_by_side(place.dim, outer, inner):
        return True
    value = place.value
    if value is None or value.source is not Source.PARAMETER or place.dim is not inner:
        return False
    reading = grouped.get(value.name)
    return reading is not None and reading.weights.shape[0] == outer.size


def reorder(model: nn.Module, analysis: Analysis, orders: Sequence[tuple[Pair, Tensor]], undo: Undo) -> None:
    """Let channels change places in all parameters and buffers, in place."""
    owned = {name: tensor for _, name, tensor in owned_tensors(model)}
    for value, position, pair, order in moved_values(analysis, orders, STATE):
        held, dims = owned[value.name], analysis.dims_of(value.id)
        for tensor in [held] if held.grad is None else [held, held.grad]:
            _reorder(tensor.detach(), position, dims, pair, order, undo)


def reorder_masks(
    masks: Mapping[str, Tensor], analysis: Analysis, orders: Sequence[tuple[Pair, Tensor]]
) -> dict[str, Tensor]:
    """Masks of parameters in the order that :func:`reorder` brings these into."""
    result = dict(masks)
    for value, position, pair, order in moved_values(analysis, orders, (Source.PARAMETER,)):
        if value.name in masks:
            dims, keep = analysis.dims_of(value.id), result[value.name]
            (small,) = compress(keep)
            if small.shape[position] > 1:  # along other dimensions it is alike in any order
                moved = keep.clone() if dims[position] is pair.inner else small.clone()
                _reorder(moved, position, dims, pair, order, Undo(enabled=False))
                result[value.name] = moved.expand(keep.shape)
    return result


def moved_values(
    analysis: Analysis, orders: Sequence[tuple[Pair, Tensor]], sources: Sequence[Source]
) -> Iterator[tuple[Value, int, Pair, Tensor]]:
    """Every tensor of the model with a dimension in which channels change places, and how."""
    by_axis = {pair.inner: (pair, order) for pair, order in orders}
    for value in analysis.graph.state(*sources) if orders else ():
        for position, dim in enumerate(analysis.dims_of(value.id)):
            for axis in by_axis.keys() & set(leaves_of(dim)):
                yield (value, position, *by_axis[axis])


def _reorder(
    tensor: Tensor, position: int, dims: Sequence[Dim], pair: Pair, order: Tensor, undo: Undo
) -> None:
    def put(order: Tensor) -> None:
        if dims[position] is pair.inner:  # a grouped weight: another order in the rows of every group
            rows = tensor.shape[1 - position]
            each = torch.arange(pair.outer.size).repeat_interleave(rows // pair.outer.size)
            index = order[each] if position == 1 else order[each].t()
            index = index.reshape(*index.shape, *[1] * (tensor.dim() - 2)).expand(tensor.shape)
            tensor.copy_(tensor.gather(position, index.to(tensor.device)))
        else:
            index = positions_of(dims[position], pair, order)
            tensor.copy_(tensor.index_select(position, index.to(tensor.device)))

    undo.note(lambda: put(order.argsort(1)))
    put(order)


def positions_of(dim: Dim, pair: Pair, order: Tensor) -> Tensor:
    """For every position of ``dim`` the one that comes there."""
    if isinstance(dim, Concat):
        parts, offset = [], 0
        for part in dim.parts:
            parts.append(positions_of(part, pair, order) + offset)
            offset += part.size
        return torch.cat(parts)
    if isinstance(dim, Leaf) or pair.inner not in dim.factors:
        return torch.arange(dim.size)
    at = dim.factors.index(pair.inner)
    rest = prod(factor.size for factor in dim.factors[at + 1 :])
    grid = torch.arange(dim.size).reshape(-1, pair.outer.size, pair.inner.size, rest)
    return grid.gather(2, order[None, :, :, None].expand(grid.shape)).reshape(-1)
