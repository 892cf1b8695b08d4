"""Concatenation, stacking, splitting, slicing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule


@register_rule(*aten("cat", "concat", "concatenate"), flow=keeps)
def cat(op: Operator, tensors: Sequence[Operand], dim: int = 0) -> Any:
    width = len(op.shape)
    tensors = [t for t in tensors if len(t) == width]  # torch skips empty 1-d tensors
    dim %= width
    columns = [[tensor[position] for tensor in tensors] for position in range(width)]
    return [op.concat(c) if position == dim else op.unify(*c) for position, c in enumerate(columns)]


@register_rule(*aten("stack"), flow=keeps)
def stack(op: Operator, tensors: Sequence[Operand], dim: int = 0) -> Any:
    dims = [op.unify(*column) for column in zip(*tensors, strict=True)]
    dims.insert(dim % (len(dims) + 1), op.fixed(len(tensors), "tensors are stacked along it"))
    return dims


@register_rule(*aten("unbind"), flow=keeps)
def unbind(op: Operator, self: Operand, dim: int = 0) -> Any:
    op.pin(self[dim], "its positions become tensors of their own (unbind)")
    return [op.replace(self, dim, None)] * self[dim].size


@register_rule(*aten("select", "select_copy"), flow=keeps)
def select(op: Operator, self: Operand, dim: int, index: int) -> Any:
    op.pin(self[dim], f"position {index} of it is taken by its number")
    return op.replace(self, dim, None)


def _pieces(op: Operator, self: Operand, dim: int, sizes: Sequence[int]) -> tuple[list[Any], list[Any]]:
    pieces = op.cut(self[dim], sizes)
    return pieces, [op.replace(self, dim, piece) for piece in pieces]


@register_rule(*aten("split", "split_with_sizes", "split_copy", "split_with_sizes_copy"), flow=keeps)
def split(
    op: Operator, self: Operand, split_size: Any = None, dim: int = 0, split_sizes: Any = None
) -> Any:
    sizes = [shape[dim] for shape in op.shapes]
    pieces, results = _pieces(op, self, dim, sizes)
    if isinstance(split_size, int):
        _even(op, pieces, sizes)
        op.number("split_size", pieces[0])
    else:
        argument = "split_size" if split_size is not None else "split_sizes"
        for position, piece in enumerate(pieces):
            op.number(argument, piece, position)
    return results


@register_rule(*aten("chunk", "unsafe_chunk"), flow=keeps)
def chunk(op: Operator, self: Operand, chunks: int, dim: int = 0) -> Any:
    sizes = [shape[dim] for shape in op.shapes]
    pieces, results = _pieces(op, self, dim, sizes)
    _even(op, pieces, sizes)
    return results


@register_rule(*aten("tensor_split"), flow=keeps)
def tensor_split(op: Operator, self: Operand, sections: Any = None, dim: int = 0, indices: Any = None) -> Any:
    sizes = [shape[dim] for shape in op.shapes]
    pieces, results = _pieces(op, self, dim, sizes)
    _even(op, pieces, sizes)
    return results


def _even(op: Operator, pieces: Sequence[Any], sizes: Sequence[int]) -> None:
    """The code asks for equal pieces: they must stay equal in size."""
    if len(set(sizes)) == 1:
        op.algebra.balance(pieces)
    else:
        op.pin(list(pieces), "it is split into pieces that are not equal, by their number")


@register_rule(*aten("slice", "slice_copy"), flow=keeps)
def slice_(
    op: Operator, self: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    size = self[dim].size
    first, last, _ = slice(start, end, step).indices(size)
    if step != 1:
        return op.replace(self, dim, _strided(op, self[dim], first, last, step))
    last = max(first, last)
    before, middle, after = op.cut(self[dim], [first, last - first, size - last])
    if start:
        op.number("start", before if start > 0 else op.concat([middle, after]), negative=start < 0)
    if end is not None and (0 < end <= size or -size < end < 0):
        op.number("end", op.concat([before, middle]) if end > 0 else after, negative=end < 0)
    return op.replace(self, dim, middle)


@register_rule(*aten("narrow", "narrow_copy"), flow=keeps)
def narrow(op: Operator, self: Operand, dim: int, start: int, length: int) -> Any:
    if not isinstance(start, int):
        raise NotImplementedError("a start that is a tensor depends on data")
    first = start % self[dim].size if start < 0 else start
    before, middle, _ = op.cut(self[dim], [first, length, self[dim].size - first - length])
    op.number("start", before)
    op.number("length", middle)
    return op.replace(self, dim, middle)


def _strided(op: Operator, dim: Any, first: int, last: int, step: int) -> Any:
    count = len(range(first, last, step))
    if dim.size % step == 0 and first < step and count == dim.size // step:
        outer, inner = op.split(dim, count, step)
        op.pin(inner, f"every {step}th position is taken")
        return outer
    op.pin(dim, f"every {step}th position of a part of it is taken")
    return op.fixed(count, f"every {step}th position of a part of another dimension")


@register_rule(*aten("meshgrid"), flow=lambda flow: keeps(flow))
def meshgrid(op: Operator, tensors: Sequence[Operand], indexing: str = "ij") -> Any:
    dims = [tensor[0] if len(tensor) else op.new(1) for tensor in tensors]
    if indexing == "xy" and len(dims) > 1:
        dims[0], dims[1] = dims[1], dims[0]
    return [dims] * len(tensors)
