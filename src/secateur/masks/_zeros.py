"""Zeros through operators that have no transfer: what their rules say of masked positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..axes import Analysis, Dim, Leaf
from ..axes._flow import ZERO
from ..axes.flow import Flow, Signal
from ..capture import Node
from ._addresses import Addresses
from ._known import EXACTLY, UNKNOWN, Known, compress, constant, spread, unknown


class ZerosByFlow:
    """Asks the ``flow`` of an operator's rule which labels of its results are zero."""

    def __init__(self, analysis: Analysis, addresses: Addresses, known_of: Callable[[int], Known]) -> None:
        self._analysis = analysis
        self._addresses = addresses
        self._known_of = known_of

    def results(self, node: Node) -> list[Known]:
        """Zeros of every result of a node; nothing else is known of them."""
        shapes = [self._analysis.graph.values[id_].shape for id_ in node.outputs]
        zero = {axis: vector for axis, vector in self._zero_labels(node) if bool(vector.any())}
        if not zero:
            return [unknown(shape) for shape in shapes]
        dims = [self._analysis.dims_of(id_) for id_ in node.outputs]
        return [self._known(*pair, zero) for pair in zip(dims, shapes, strict=True)]

    def labels(self, id_: int, axis: Leaf, known: Known | None = None) -> Tensor | None:
        """Labels of ``axis`` at which a tensor is zero; None where it does not carry the axis."""
        return zero_labels(self._analysis.dims_of(id_), known or self._known_of(id_), axis, self._addresses)

    def _zero_labels(self, node: Node) -> Iterator[tuple[Leaf, Tensor]]:
        rule, operator = self._analysis.rule_of(node), self._analysis.operators[node.index]
        if rule is None or operator is None:
            return
        dims = [dim for id_ in node.outputs for dim in self._analysis.dims_of(id_)]
        axes = dict.fromkeys(axis for dim in dims for axis, _, _ in self._addresses.of(dim))
        # A square weight has one axis on both sides: zeros that are summed over say nothing of the result.
        resolve = self._analysis.algebra.resolve
        summed = {axis for total in operator.sums for axis, _, _ in self._addresses.of(resolve(total.dim))}
        operands = list(dict.fromkeys(node.inputs))
        for axis in (axis for axis in axes if axis not in summed):
            given = {id_: self.labels(id_, axis) for id_ in operands}
            carried = {id_: vector for id_, vector in given.items() if vector is not None}
            if not any(bool(vector.any()) for vector in carried.values()):
                continue
            zero = torch.zeros(axis.size, dtype=torch.bool)
            patterns, which = torch.stack(list(carried.values())).unique(dim=1, return_inverse=True)
            for number, pattern in enumerate(patterns.t()):
                signals = dict(zip(carried, pattern.tolist(), strict=True))
                result = rule.flow(
                    Flow(operator.arguments, lambda id_, s=signals, a=axis: _signal(s.get(id_), a))
                )
                if result is ZERO or axis in result.clean:
                    zero[which == number] = True
            yield axis, zero

    def _known(self, dims: Sequence[Dim], shape: Sequence[int], zero: dict[Leaf, Tensor]) -> Known:
        marked = torch.zeros((1,) * len(shape), dtype=torch.bool)
        for position, dim in enumerate(dims):
            vector = self._addresses.positions(dim, zero)
            if bool(vector.any()):
                marked = marked | vector.reshape([-1 if d == position else 1 for d in range(len(shape))])
        state = torch.where(marked, EXACTLY, UNKNOWN).to(torch.uint8)
        return Known(constant(0.0, shape).value, spread(state, shape))


def _signal(zero: bool | None, axis: Leaf) -> Signal:
    if zero is None:
        return Signal()
    return Signal(frozenset([axis]), frozenset() if zero else frozenset([axis]))


def zero_labels(dims: Sequence[Dim], known: Known, axis: Leaf, addresses: Addresses) -> Tensor | None:
    """Labels of ``axis`` at which everything in a tensor of these dimensions is zero."""
    return labels_where(dims, known.zeros, axis, addresses)


def labels_where(
    dims: Sequence[Dim], marks: Callable[[], Tensor], axis: Leaf, addresses: Addresses
) -> Tensor | None:
    """Labels of ``axis`` all of whose positions are marked; None where no dimension has the axis."""
    result: Tensor | None = None
    marked: Tensor | None = None
    for position, dim in enumerate(dims):
        for own, at, labels in addresses.of(dim):
            if own is not axis:
                continue
            marked = compress(marks())[0] if marked is None else marked
            others = [d for d in range(len(dims)) if d != position]
            vector = (marked.all(dim=others) if others else marked).reshape(-1).cpu().expand(dim.size)
            whole = torch.ones(axis.size, dtype=torch.bool)
            whole[labels[~vector[at]]] = False
            result = whole if result is None else result & whole
    return result
