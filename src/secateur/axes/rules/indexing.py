"""Indexing by tensors: what is indexed may not be cut, since the indices are its positions."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...capture import Ref
from .._flow import adds, keeps, loses
from .._operator import Operand, Operator, operands_in
from .._table import aten, register_rule

INDEXED = "its positions are addressed by an index tensor"
INDICES = "it counts the entries of an index tensor"
DATA = "data decides how many positions it has"


@register_rule(*aten("embedding"), flow=adds("weight"))
def embedding(op: Operator, weight: Operand, indices: Operand, *args: Any) -> Any:
    op.address(weight[0], indices, INDEXED)
    op.pin(indices, INDICES)
    return [*indices, *weight[1:]]


@register_rule(*aten("embedding_renorm_"), flow=keeps)
def embedding_renorm(op: Operator, self: Operand, indices: Operand, max_norm: float, norm_type: float) -> Any:
    op.pin([self[0], *indices], INDEXED)
    op.sum_over(self[1], self)
    return list(self)


@register_rule(*aten("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), flow=adds("weight"))
def embedding_bag(op: Operator, weight: Operand, indices: Operand, offsets: Operand, *args: Any) -> Any:
    op.pin(weight[0], INDEXED)
    for operand in operands_in((indices, offsets, *args)):
        op.pin(operand, INDICES)
    results = [[op.fixed(n, "bags of an embedding bag") for n in shape] for shape in op.shapes]
    results[0][1] = weight[1]
    if len(op.shapes[3]) == 2 and op.shapes[3][1] == weight[1].size:  # places of maxima
        results[3][1] = weight[1]
        op.inexact_if_used(3, weight[1], "places of maxima are something else where all are zero")
    return results


@register_rule(*aten("index_select"), flow=adds("self"))
def index_select(op: Operator, self: Operand, dim: int, index: Operand) -> Any:
    op.pin(index, INDICES)
    if not len(self):
        return []
    op.address(self[dim], index, INDEXED)
    return op.replace(self, dim, index[0] if len(index) else op.new(1))


def _addressed(op: Operator, self: Operand, place: int, index: Operand) -> None:
    """A dimension that is indexed: of one position that the code counts off, only what is counted stays."""
    dim, number = self[place], index.constant
    if number is None or number.numel() != 1 or number.device.type == "meta":
        op.address(dim, index, INDEXED)
        return
    position = int(number)
    first = position % dim.size
    before, one, after = op.cut(dim, [first, 1, dim.size - first - 1])
    op.pin([one, before if position >= 0 else after], INDEXED)


def _indexed(op: Operator, self: Operand, indices: Sequence[Operand | None]) -> list[Any | None]:
    """Dimensions of ``self[indices]``, as NumPy's advanced indexing defines them.

    None stands for a dimension whose size data decides.
    """
    gone: list[int] = []
    rows: list[Operand] = []
    masked = False
    place = 0
    for index in indices:
        width = 1
        if index is not None:
            if index.dtype in (torch.bool, torch.uint8):
                # A mask takes as many dimensions as it has, and leaves one.
                masked, width = True, len(index)
                for own, other in zip(self[place : place + width], index, strict=True):
                    op.unify(own, other)
                op.pin(index, "a boolean mask chooses its positions")
            else:
                _addressed(op, self, place, index)
                op.pin(index, INDICES)
                rows.append(index)
            gone += range(place, place + width)
        place += width
    found: list[Any | None] = list(op.broadcast(*rows))
    if masked:
        found = [None] * max(1, len(found))
    rest = [dim for i, dim in enumerate(self) if i not in gone]
    at = gone[0] if gone == list(range(gone[0], gone[0] + len(gone))) else 0
    return [*rest[:at], *found, *rest[at:]]


@register_rule(*aten("index", "_unsafe_index"), flow=adds("self"))
def index(op: Operator, self: Operand, indices: Sequence[Operand | None]) -> Any:
    dims = _indexed(op, self, indices)
    return [op.fixed(n, DATA) if d is None else d for d, n in zip(dims, op.shape, strict=True)]


@register_rule(*aten("index_put", "_unsafe_index_put", "_index_put_impl_"), flow=adds("self", "values"))
def index_put(
    op: Operator, self: Operand, indices: Sequence[Operand | None], values: Operand, *args: Any
) -> Any:
    for dim, value in zip(_indexed(op, self, indices)[::-1], values[::-1], strict=False):
        if dim is not None and dim.size == value.size:
            op.unify(dim, value)
        elif value.size > 1:
            op.pin(value, DATA)
    return list(self)


def _along(op: Operator, self: Operand, dim: int, *others: Operand) -> None:
    """Tensors that address ``self`` along one dimension, and run beside it along all others."""
    for position, own in enumerate(self):
        for other in others:
            if position == dim % len(self):
                op.address(own, others[0], INDEXED)
                op.pin(other[position], INDEXED)
            elif own.size == other[position].size:
                op.unify(own, other[position])
            else:
                op.pin([own, other[position]], "only a part of it is addressed")


@register_rule(*aten("gather"), flow=adds("self"))
def gather(op: Operator, self: Operand, dim: int, index: Operand, sparse_grad: bool = False) -> Any:
    _along(op, self, dim, index)
    return list(index)


@register_rule(*aten("one_hot"), flow=loses)
def one_hot(op: Operator, self: Operand, num_classes: int = -1) -> Any:
    (size,) = op.shape[len(self) :]
    known = self.address
    if known is None or known.counted or num_classes < known.dim.size:
        op.pin(self, INDICES)
        return [*self, op.fixed(size, "numbers of classes")]
    op.addressed.add(self.id)
    op.route(known.dim)
    more = op.fixed(size - known.dim.size, "more classes than there are positions")
    return [*self, op.number("num_classes", op.concat([known.dim, more]))]


@register_rule(*aten("scatter", "scatter_add", "scatter_reduce"), flow=adds("self", "src"))
def scatter(
    op: Operator, self: Operand, dim: int, index: Operand, src: Any, *args: Any, **kwargs: Any
) -> Any:
    _along(op, self, dim, *operands_in((index, src)))
    return list(self)


@register_rule(*aten("index_add", "index_copy", "index_reduce"), flow=adds("self", "source"))
def index_add(
    op: Operator,
    self: Operand,
    dim: int,
    index: Operand,
    source: Operand,
    *args: Any,
    **kwargs: Any,
) -> Any:
    op.pin([self[dim], source[dim], *index], INDEXED)
    for position, (own, other) in enumerate(zip(self, source, strict=True)):
        if position != dim % len(self):
            op.unify(own, other)
    return list(self)


@register_rule(*aten("index_fill"), flow=adds("self", "value"))
def index_fill(op: Operator, self: Operand, dim: int, index: Operand, value: Any) -> Any:
    op.pin([self[dim], *index], INDEXED)
    return list(self)


@register_rule(*aten("searchsorted"), flow=loses)
def searchsorted(op: Operator, sorted_sequence: Operand, self: Any, **kwargs: Any) -> Any:
    op.pin(sorted_sequence[-1], "values are looked up in it")
    for sorter in operands_in(kwargs.values()):
        op.broadcast(sorted_sequence, sorter)
    if not isinstance(self, Operand):
        return []
    for own, other in zip(sorted_sequence[:-1], self, strict=False):
        op.unify(own, other)
    return list(self)


@register_rule(*aten("masked_scatter"), flow=loses)
def masked_scatter(op: Operator, self: Operand, mask: Operand, source: Operand) -> Any:
    op.pin(source, DATA)
    dims = op.broadcast(self, mask)
    op.pin(dims, "a boolean mask chooses its positions")
    return dims


@register_rule(
    *aten(
        "masked_select", "nonzero", "nonzero_numpy", "nonzero_static", "_unique", "_unique2", "unique_dim",
        "unique_consecutive", "unique_dim_consecutive", "bincount", "take", "multinomial",
        "segment_reduce",
    ),
    torch.ops.aten.where.default,
    torch.ops.aten.repeat_interleave.Tensor,
)  # fmt: skip
def data_decides(op: Operator, *args: Any, **kwargs: Any) -> Any:
    for operand in operands_in((*args, *kwargs.values())):
        op.pin(operand, "its values decide what the operator returns")
    results = [[op.fixed(n, DATA) for n in shape] for shape in op.shapes]
    return results[0] if isinstance(op.node.result, Ref) else results


@register_rule(*aten("histc"))
def histc(op: Operator, self: Operand, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    known = self.address
    if known is None or known.counted or (bins, min, max) != (known.dim.size, 0, bins - 1):
        return data_decides(op, self)
    op.pin(self, INDICES)
    op.addressed.add(self.id)
    op.number("bins", known.dim)
    op.number("max", known.dim, offset=-1)
    op.points(0, known.dim, counted=True)
    return [known.dim]


@register_rule(*aten("put", "_unsafe_masked_index_put_accumulate"))
def put(op: Operator, self: Operand, *args: Any) -> Any:
    for operand in operands_in((self, *args)):
        op.pin(operand, INDEXED)
    return list(self)


@register_rule(
    *aten(
        "item", "_local_scalar_dense", "is_nonzero", "equal", "allclose", "_is_all_true", "_is_any_true",
        "_assert_async", "is_same_size",
    )
)  # fmt: skip
def to_python(op: Operator, *args: Any, **kwargs: Any) -> Any:
    for operand in operands_in(args):
        op.pin(operand, "its values are read by the model's code")
    return [] if op.shapes else None


@register_rule(*aten("_assert_tensor_metadata", "record_stream", "_linalg_check_errors"))
def bystander(op: Operator, *args: Any, **kwargs: Any) -> Any:
    return None
