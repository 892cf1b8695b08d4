"""Exits: operators at which an axis ends, and what they ask of labels that are to be removed.

A label can be removed if, wherever its axis ends, its positions add nothing, or a constant that can
be folded into a bias, or something that is only added to positions that are removed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..axes import Dim, Leaf, Operator
from ..capture import Node
from ._addresses import Addresses, Vectors
from ._constants import Constants
from ._known import EXACTLY, NEARLY, UNKNOWN, compress
from ._layers import Product
from ._reading import Reading
from ._zeros import zero_labels


class Why(Enum):
    """What keeps a label."""

    ALIVE = "it is not constant there, and is read"
    BORDER = "it is a constant that is not zero, and the zeros that are padded beside it are none"
    STAND_IN = "a zero-padded layer reads it in place of other constants"
    NO_BIAS = "it is a constant, and there is no bias to add it to"
    COMPETES = "it takes part in a softmax"
    SUMMED = "it is not zero there, and is summed"
    STATISTICS = "statistics are taken over it"
    DISAGREES = "it is another constant in every call of a shared layer"
    LAST = "a layer cannot be empty"
    BALANCE = "the model's code wants parts of equal size"
    GROUPS = "every group of a grouped convolution has to lose as many"
    CODE = "the model's code does not follow"
    IDLE = "no mask has anything to do with it"


@dataclass(frozen=True)
class Block:
    """Labels that one exit keeps."""

    axis: Leaf
    labels: Tensor
    why: Why
    node: Node | None = None
    text: str = ""


@dataclass(frozen=True)
class Terms:
    """What may be removed: only what is exact, or also what changes the outputs a little.

    With ``border`` constants before a zero-padded layer count as exact, since stand-ins will be found;
    with ``statistics`` constants may be taken from under a norm or a mean, which changes it.
    ``unmasked`` is as if there were no masks, and no constants.
    """

    exact: bool
    border: bool = False
    statistics: bool = False
    unmasked: bool = False

    def foldable(self, reading: Reading) -> Tensor:
        """Columns (groups, columns) of a reading that can be taken off."""
        state, nothing = reading.source.state, ~reading.nonzero
        if self.unmasked:
            return torch.zeros_like(nothing)
        if isinstance(reading.bias, str) or not reading.weights.trusted:
            return nothing
        if not self.exact:
            return state != UNKNOWN
        constant = state == EXACTLY
        return nothing if reading.bordered and not self.border else constant | nothing


class ReadingExit:
    """A weighted sum. Its demands rest on which of its rows stay (``rests_on``: their axes)."""

    def __init__(self, reading: Reading, addresses: Addresses) -> None:
        self.node = reading.node
        self.reading = reading
        self.addresses = addresses
        self.rests_on = {axis for axis, _, _ in addresses.of(reading.rows[0])}
        self._foldable: dict[Terms, Tensor] = {}

    def alive(self, removed: Vectors) -> Tensor:
        """Rows (groups, rows) that are not removed."""
        dim, part = self.reading.rows
        gone = self.addresses.positions(dim, removed)[part]
        return ~gone.reshape(self.reading.weights.shape[:2])

    def removed_columns(self, removed: Vectors) -> Tensor:
        """Columns (groups, columns) that are removed."""
        gone = self.addresses.positions(self.reading.columns, removed)
        return gone.reshape(self.reading.source.shape)

    def used(self, removed: Vectors, *, unmasked: bool = False) -> Tensor:
        """Columns (groups, columns) that rows which are not removed read."""
        if unmasked:
            return self.alive(removed).any(1, keepdim=True).expand(self.reading.source.shape)
        return self.reading.weights.columns_with(self.alive(removed))

    def blocks(self, removed: Vectors, terms: Terms) -> Iterator[Block]:
        """Labels that have to stay, by the reason."""
        reading = self.reading
        if terms not in self._foldable:
            self._foldable[terms] = terms.foldable(reading)
        stuck = self.used(removed, unmasked=terms.unmasked) & ~self._foldable[terms]
        if not bool(stuck.any()):
            return
        constant = reading.source.state == EXACTLY if terms.exact else reading.source.state != UNKNOWN
        without = isinstance(reading.bias, str) or not reading.weights.trusted
        cause = Why.NO_BIAS if without else Why.BORDER
        for why, columns in ((Why.ALIVE, stuck & ~constant), (cause, stuck & constant)):
            if bool(columns.any()):
                for axis, labels in self.addresses.labels(reading.columns, columns.flatten()).items():
                    yield Block(axis, labels, why, reading.node)


class FixedExit:
    """An exit whose demands do not depend on what else is removed."""

    rests_on: frozenset[Leaf] = frozenset()

    def __init__(
        self, axes: Iterable[Leaf], exact: list[Block], near: list[Block], node: Node | None = None
    ) -> None:
        self.node = node
        self._axes = list(axes)
        self._blocks = {False: exact, True: near}

    def blocks(self, removed: Vectors, terms: Terms) -> Iterator[Block]:
        """Labels that have to stay, by the reason."""
        if terms.unmasked:
            yield from (
                Block(a, torch.ones(a.size, dtype=torch.bool), Why.SUMMED, self.node) for a in self._axes
            )
        else:
            yield from self._blocks[terms.statistics]


Exit = ReadingExit | FixedExit


def find_exits(
    constants: Constants, more_inexact: Mapping[int, list[tuple[Dim, str]]] | None = None
) -> list[Exit]:
    """All exits of a graph, in order.

    ``more_inexact`` are dimensions, by the index of a node, whose size changes its result.
    """
    analysis, addresses = constants.analysis, constants.addresses
    exits: list[Exit] = []
    read = {*analysis.graph.outputs.values(), *(i for node in analysis.graph.nodes for i in node.inputs)}
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        if operator is None:
            continue
        layered = constants.layers.get(node.index)
        if layered is not None:
            exits += [ReadingExit(reading, addresses) for reading in layered.readings]
            exits += [_product(product, node, addresses) for product in layered.products]
        else:
            exits += [_sum(constants, node, total.dim, total.operands) for total in operator.sums]
        extra = (more_inexact or {}).get(node.index, [])
        for dim, reason in (*operator.statistics, *_if_used(operator, node, read), *extra):
            exits.append(_statistics(constants, node, dim, reason))
    return exits


def _if_used(operator: Operator, node: Node, read: set[int]) -> Iterator[tuple[Dim, str]]:
    for result, dim, reason in operator.inexact_if:
        if result < len(node.outputs) and node.outputs[result] in read:
            yield dim, reason


def _product(product: Product, node: Node, addresses: Addresses) -> Exit:
    inner = product.vanishes.numel() // product.outer
    stay = torch.zeros(product.dim.size, dtype=torch.bool)
    stay[product.part] = ~product.vanishes
    blocks, axes = [], []
    start = product.part.start or 0
    for axis, labels in addresses.labels(product.dim, stay).items():
        at, own = next((at, own) for a, at, own in addresses.of(product.dim) if a is axis)
        grid = own[(at >= start) & (at < start + product.vanishes.numel())]
        grid = grid.reshape(product.outer, inner) if len(grid) == product.vanishes.numel() else None
        if grid is None or bool((grid != grid[:, :1]).any()):  # it tells the positions that are summed apart
            axes.append(axis)
            blocks.append(Block(axis, labels, Why.SUMMED, node))
    return FixedExit(axes, blocks, blocks, node)


def _sum(constants: Constants, node: Node, dim: Dim, operands: tuple[int, ...]) -> Exit:
    """A sum over products of tensors: labels may go at which one of them is zero."""
    analysis, addresses = constants.analysis, constants.addresses
    blocks = []
    axes = [axis for axis, _, _ in addresses.of(analysis.algebra.resolve(dim))]
    for axis in axes:
        stay = torch.ones(axis.size, dtype=torch.bool)
        for id_ in operands:
            known = constants.seen[node.index].get(id_)
            zero = None if known is None else zero_labels(analysis.dims_of(id_), known, axis, addresses)
            if zero is not None:
                stay &= ~zero
        if bool(stay.any()):
            blocks.append(Block(axis, stay, Why.SUMMED, node))
    return FixedExit(axes, blocks, blocks, node)


def _statistics(constants: Constants, node: Node, dim: Dim, reason: str) -> Exit:
    """Statistics: removing anything changes them; removing what is not even constant, arbitrarily."""
    analysis, addresses = constants.analysis, constants.addresses
    exact, near = [], []
    axes = [axis for axis, _, _ in addresses.of(analysis.algebra.resolve(dim))]
    for axis in axes:
        exact.append(Block(axis, torch.ones(axis.size, dtype=torch.bool), Why.STATISTICS, node, reason))
        changing = torch.zeros(axis.size, dtype=torch.bool)
        for id_, known in constants.seen[node.index].items():
            if analysis.graph.values[id_].source.value != "operator":
                continue
            for position, own in enumerate(analysis.dims_of(id_)):
                unknown = _unknown_along(known.state, position)
                changing |= addresses.labels(own, unknown).get(axis, torch.zeros(axis.size, dtype=torch.bool))
        if bool(changing.any()):
            near.append(Block(axis, changing, Why.STATISTICS, node, reason))
    return FixedExit(axes, exact, near, node)


def _unknown_along(state: Tensor, dim: int) -> Tensor:
    unknown = compress(state)[0] < NEARLY
    for other in range(unknown.dim()):
        if other != dim and unknown.shape[other] > 1:
            unknown = unknown.any(other, keepdim=True)
    return unknown.reshape(-1).expand(state.shape[dim])
