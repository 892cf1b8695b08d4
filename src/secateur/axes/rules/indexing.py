"""Indexing by tensors: what is indexed may not be cut, since the indices are its positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._flow import Flow, Signal, add, keeps, loses
from .._operator import Operand, Operator
from .._table import aten, register_rule

INDEXED = "its positions are addressed by an index tensor"
INDICES = "it counts the entries of an index tensor"


@register_rule(*aten("embedding"), flow=lambda flow: flow["weight"] or Signal())
def embedding(op: Operator, weight: Operand, indices: Operand, *settings: Any, **kwargs: Any) -> Any:
    op.pin(weight[0], INDEXED)
    op.pin(indices, INDICES)
    return [*indices, *weight[1:]]


@register_rule(*aten("index_select"), flow=lambda flow: flow["self"] or Signal())
def index_select(op: Operator, self: Operand, dim: int, index: Operand) -> Any:
    op.pin(self[dim], INDEXED)
    op.pin(index, INDICES)
    return op.replace(self, dim, index[0] if len(index) else op.new(1))


def _indexed(op: Operator, self: Operand, indices: Sequence[Operand | None]) -> list[Any]:
    """Dimensions of ``self[indices]``, as NumPy's advanced indexing defines them."""
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        return _masked(op, self, indices)
    places = [i for i, index in enumerate(indices) if index is not None]
    op.pin([self[i] for i in places], INDEXED)
    found = op.broadcast(*(indices[i] for i in places))
    op.pin(found, INDICES)
    rest = [dim for i, dim in enumerate(self) if i not in places]
    adjacent = places == list(range(places[0], places[0] + len(places)))
    at = places[0] if adjacent else 0
    return [*rest[:at], *found, *rest[at:]]


def _masked(op: Operator, self: Operand, indices: Sequence[Operand | None]) -> list[Any]:
    """A boolean index takes as many dimensions as it has, and leaves one of a size that data decides."""
    given = [(i, index) for i, index in enumerate(indices) if index is not None]
    if len(given) != 1:
        raise NotImplementedError("boolean and other indices together")
    place, mask = given[0]
    for dim, other in zip(self[place : place + len(mask)], mask, strict=True):
        op.unify(dim, other)
    op.pin(mask, "a boolean mask chooses its positions")
    rest = self[:place], self[place + len(mask) :]
    count = op.shape[place] if op.node.op._schema.name == "aten::index" else 0
    return [*rest[0], op.fixed(count, "data decides how many positions it has"), *rest[1]]


@register_rule(*aten("index"), flow=lambda flow: flow["self"] or Signal())
def index(op: Operator, self: Operand, indices: Sequence[Operand | None]) -> Any:
    return _indexed(op, self, indices)


@register_rule(*aten("index_put", "_unsafe_index_put"), flow=lambda flow: add(flow["self"], flow["values"]))
def index_put(
    op: Operator, self: Operand, indices: Sequence[Operand | None], values: Operand,
    accumulate: bool = False,
) -> Any:  # fmt: skip
    target = _indexed(op, self, indices)
    for dim, value in zip(target[::-1], values[::-1], strict=False):
        if dim.size == value.size:
            op.unify(dim, value)
        elif value.size > 1:
            op.pin(value, "data decides how many positions it has")
    return list(self)


def _along(op: Operator, self: Operand, dim: int, *others: Operand) -> None:
    """Tensors that address ``self`` along one dimension, and run beside it along all others."""
    dim %= max(len(self), 1)
    for position, own in enumerate(self):
        for other in others:
            if position == dim:
                op.pin([own, other[position]], INDEXED)
            elif own.size == other[position].size:
                op.unify(own, other[position])
            else:
                op.pin([own, other[position]], "only a part of it is addressed")


@register_rule(*aten("gather"), flow=lambda flow: flow["self"] or Signal())
def gather(op: Operator, self: Operand, dim: int, index: Operand, sparse_grad: bool = False) -> Any:
    _along(op, self, dim, index)
    return list(index)


def _scatters(flow: Flow) -> Signal:
    source = flow["src"]
    return add(flow["self"], source) if source is not None else loses(flow)


@register_rule(*aten("scatter", "scatter_add", "scatter_reduce"), flow=_scatters)
def scatter(
    op: Operator, self: Operand, dim: int, index: Operand, src: Any = None, *settings: Any, **kwargs: Any
) -> Any:
    _along(op, self, dim, *(t for t in (index, src) if isinstance(t, Operand)))
    return list(self)


@register_rule(*aten("index_add", "index_copy"), flow=lambda flow: add(flow["self"], flow["source"]))
def index_add(op: Operator, self: Operand, dim: int, index: Operand, source: Operand, alpha: Any = 1) -> Any:
    op.pin([self[dim], source[dim], *index], INDEXED)
    for position, (own, other) in enumerate(zip(self, source, strict=True)):
        if position != dim % len(self):
            op.unify(own, other)
    return list(self)


@register_rule(*aten("index_fill"), flow=loses)
def index_fill(op: Operator, self: Operand, dim: int, index: Operand, value: Any) -> Any:
    op.pin([self[dim], *index], INDEXED)
    return list(self)


@register_rule(*aten("masked_select"), flow=loses)
def masked_select(op: Operator, self: Operand, mask: Operand) -> Any:
    op.pin(op.broadcast(self, mask), "a boolean mask chooses its positions")
    return [op.fixed(op.shape[0], "data decides how many positions it has")]


@register_rule(*aten("nonzero"), flow=loses)
def nonzero(op: Operator, self: Operand) -> Any:
    op.pin(self, "the places of its non-zero entries are taken")
    return [op.fixed(n, "data decides how many positions it has") for n in op.shape]


@register_rule(*aten("nonzero_numpy"), flow=loses)
def nonzero_numpy(op: Operator, self: Operand) -> Any:
    op.pin(self, "the places of its non-zero entries are taken")
    return [[op.fixed(n, "data decides how many positions it has") for n in s] for s in op.shapes]


@register_rule(*aten("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), flow=lambda f: f["weight"] or Signal())
def embedding_bag(op: Operator, weight: Operand, indices: Operand, offsets: Operand, *a: Any, **k: Any) -> Any:
    op.pin(weight[0], INDEXED)
    op.pin([*indices, *offsets], INDICES)
    bags = op.fixed(op.shape[0], "bags of an embedding bag")
    rest = [[op.fixed(n, "bookkeeping of an embedding bag") for n in s] for s in op.shapes[1:]]
    return [[bags, weight[1]], *rest]


@register_rule(*aten("item", "_local_scalar_dense", "is_nonzero", "equal"), flow=keeps)
def to_python(op: Operator, self: Operand, *others: Operand) -> Any:
    op.pin(self, "its values are read by the model's code")
    return None
