"""Concatenation, stacking, splitting, slicing."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import adds, keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule


@register_rule(*aten("cat", "concat", "concatenate"), flow=keeps)
def cat(op: Operator, tensors: Sequence[Operand], dim: int = 0) -> Any:
    width = len(op.shape)
    tensors = [t for t in tensors if len(t) == width]  # torch skips empty 1-d tensors
    dim %= width
    columns = [[tensor[position] for tensor in tensors] for position in range(width)]
    op.join_addresses(tensors)
    return [
        op.concat(column) if position == dim else op.unify(*column) for position, column in enumerate(columns)
    ]


@register_rule(*aten("stack"), flow=keeps)
def stack(op: Operator, tensors: Sequence[Operand], dim: int = 0) -> Any:
    dims = [op.unify(*column) for column in zip(*tensors, strict=True)]
    op.join_addresses(tensors)
    dims.insert(dim % (len(dims) + 1), op.fixed(len(tensors), "tensors are stacked along it"))
    return dims


@register_rule(*aten("unbind", "unbind_copy"), flow=keeps)
def unbind(op: Operator, self: Operand, dim: int = 0) -> Any:
    op.pin(self[dim], "its positions become tensors of their own (unbind)")
    return [op.replace(self, dim, None)] * self[dim].size


@register_rule(*aten("select", "select_copy"), flow=keeps)
def select(op: Operator, self: Operand, dim: int, index: int) -> Any:
    op.pin(self[dim], f"position {index} of it is taken by its number")
    return op.replace(self, dim, None)


@register_rule(*aten("select_scatter"), flow=adds("self", "src"))
def select_scatter(op: Operator, self: Operand, src: Operand, dim: int, index: int) -> Any:
    for own, other in zip(select(op, self, dim, index), src, strict=True):
        op.unify(own, other)
    return list(self)


def _pieces(op: Operator, self: Operand, dim: int) -> tuple[list[Any], list[Any]]:
    """Consecutive pieces of a dimension, and the results that have them."""
    pieces = op.cut(self[dim], [shape[dim] for shape in op.shapes])
    return pieces, [op.replace(self, dim, piece) for piece in pieces]


def _even(op: Operator, pieces: Sequence[Any]) -> None:
    """The code asks for a number of pieces, or for pieces of one size: they must lose alike.

    Of 160 positions in three pieces the last has two less than the others, and keeps them less.
    """
    most = max((piece.size for piece in pieces), default=0)
    reason = "what a piece has less than the others, which are equal by their number"
    missing = {piece.size: op.fixed(most - piece.size, reason) for piece in pieces}
    op.algebra.balance([op.concat([piece, missing[piece.size]]) for piece in pieces])


@register_rule(
    *aten(
        "split", "split_with_sizes", "split_copy", "split_with_sizes_copy", "unsafe_split",
        "unsafe_split_with_sizes",
    ),
    flow=keeps,
)  # fmt: skip
def split(op: Operator, self: Operand, split_size: int | Sequence[int], dim: int = 0) -> Any:
    pieces, results = _pieces(op, self, dim)
    if isinstance(split_size, int):
        _even(op, pieces)
        if split_size == pieces[0].size:  # not larger than the whole
            op.number("split_size", pieces[0])
    else:
        for position, piece in enumerate(pieces):
            op.number("split_size", piece, position)
    return results


@register_rule(*aten("chunk", "unsafe_chunk"), flow=keeps)
def chunk(op: Operator, self: Operand, chunks: int, dim: int = 0) -> Any:
    pieces, results = _pieces(op, self, dim)
    _even(op, pieces)
    return results


@register_rule(*(packet.sections for packet in aten("tensor_split")), flow=keeps)
def tensor_split(op: Operator, self: Operand, sections: int, dim: int = 0) -> Any:
    return chunk(op, self, sections, dim)


@register_rule(*(packet.indices for packet in aten("tensor_split")), flow=keeps)
def tensor_split_at(op: Operator, self: Operand, indices: Sequence[int], dim: int = 0) -> Any:
    pieces, results = _pieces(op, self, dim)
    for position, index in enumerate(indices):
        if 0 < index < self[dim].size:
            op.number("indices", op.concat(pieces[: position + 1]), position)
        elif -self[dim].size < index < 0:
            op.number("indices", op.concat(pieces[position + 1 :]), position, negative=True)
        else:
            op.pin(self[dim], "it is split at places beyond its ends")
    return results


def _sliced(op: Operator, dim: Any, start: int | None, end: int | None, step: int) -> list[Any]:
    """What is before, inside and after a slice of ``dim``, with the numbers that say so."""
    size = dim.size
    first, last, _ = slice(start, end, step).indices(size)
    if last < first:
        op.pin(dim, "nothing of it is taken, by numbers that contradict each other")
        return [dim, op.new(0), op.new(0)]
    before, middle, after = op.cut(dim, [first, last - first, size - last])
    if start and -size <= start <= size:
        whole = op.concat([middle, after])
        op.number("start", before if start > 0 else whole, negative=start < 0)
    if end is not None and -size < end <= size and end != 0:
        op.number("end", op.concat([before, middle]) if end > 0 else after, negative=end < 0)
    return [before, middle, after]


@register_rule(*aten("slice", "slice_copy"), flow=keeps)
def slice_(
    op: Operator, self: Operand, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Any:  # fmt: skip
    if step != 1:
        return op.replace(self, dim, _strided(op, self[dim], range(self[dim].size)[start:end:step]))
    return op.replace(self, dim, _sliced(op, self[dim], start, end, step)[1])


def _strided(op: Operator, dim: Any, taken: range) -> Any:
    step = taken.step
    if dim.size % step == 0 and taken.start < step and len(taken) == dim.size // step:
        outer, inner = op.split(dim, len(taken), step)
        op.pin(inner, f"every {step}th position is taken")
        return outer
    op.pin(dim, f"every {step}th position of a part of it is taken")
    return op.fixed(len(taken), f"every {step}th position of a part of another dimension")


@register_rule(*aten("slice_scatter"), flow=adds("self", "src"))
def slice_scatter(
    op: Operator, self: Operand, src: Operand, dim: int = 0, start: int | None = None,
    end: int | None = None, step: int = 1,
) -> Any:  # fmt: skip
    for own, other in zip(slice_(op, self, dim, start, end, step), src, strict=True):
        op.unify(own, other)
    return list(self)


@register_rule(*aten("narrow", "narrow_copy"), flow=keeps)
def narrow(op: Operator, self: Operand, dim: int, start: Any, length: int) -> Any:
    if not isinstance(start, int):
        raise NotImplementedError("a start that is a tensor depends on data")
    size = self[dim].size
    first = start + size if start < 0 else start
    before, middle, after = op.cut(self[dim], [first, length, size - first - length])
    if start:
        whole = op.concat([middle, after])
        op.number("start", before if start > 0 else whole, negative=start < 0)
    op.number("length", middle)
    return op.replace(self, dim, middle)
