"""Views, permutations, expansions: dimensions are regrouped, moved and repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._flow import Flow, Signal, keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _sizes(op: Operator, argument: str, sizes: Sequence[int], dims: Sequence[Any], offset: int = 0) -> list[Any]:
    """Every size that the code wrote (and did not leave to be inferred) is the size of a dimension."""
    for position, size in enumerate(sizes):
        if size != -1:
            op.number(argument, dims[position + offset], position)
    return list(dims)


@register_rule(*aten("view", "_unsafe_view", "view_copy"), flow=keeps)
def view(op: Operator, self: Operand, size: Any) -> Any:
    if isinstance(size, torch.dtype):
        return list(self)
    return _sizes(op, "size", size, op.regroup(self.dims, op.shape))


@register_rule(*aten("reshape"), flow=keeps)
def reshape(op: Operator, self: Operand, shape: Sequence[int]) -> Any:
    return _sizes(op, "shape", shape, op.regroup(self.dims, op.shape))


@register_rule(*aten("_reshape_alias"), flow=keeps)
def reshape_alias(op: Operator, self: Operand, size: Sequence[int], stride: Any) -> Any:
    return _sizes(op, "size", size, op.regroup(self.dims, op.shape))


@register_rule(*aten("view_as", "reshape_as"), flow=lambda flow: flow["self"] or Signal())
def view_as(op: Operator, self: Operand, other: Operand) -> Any:
    op.broadcast(op.regroup(self.dims, op.shape), other)
    return list(other)


@register_rule(*aten("flatten", "ravel"), flow=keeps)
def flatten(op: Operator, self: Operand, start_dim: int = 0, end_dim: int = -1, out_dim: Any = None) -> Any:
    return op.regroup(self.dims, op.shape)


@register_rule(*aten("unflatten"), flow=keeps)
def unflatten(op: Operator, self: Operand, dim: int, sizes: Sequence[int]) -> Any:
    return _sizes(op, "sizes", sizes, op.regroup(self.dims, op.shape), offset=dim % len(self))


@register_rule(*aten("permute", "permute_copy"), flow=keeps)
def permute(op: Operator, self: Operand, dims: Sequence[int]) -> Any:
    return [self[dim] for dim in dims]


@register_rule(*aten("transpose", "swapaxes", "swapdims"), flow=keeps)
def transpose(op: Operator, self: Operand, dim0: int, dim1: int) -> Any:
    dims = list(self)
    if dims:
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return dims


@register_rule(*aten("t", "numpy_T", "matrix_H", "mT", "mH", "adjoint"), flow=keeps)
def transposed(op: Operator, self: Operand) -> Any:
    if op.node.op._schema.name in ("aten::t", "aten::numpy_T"):
        return self[::-1]
    return [*self[:-2], self[-1], self[-2]]


@register_rule(*aten("movedim", "moveaxis"), flow=keeps)
def movedim(op: Operator, self: Operand, source: Any, destination: Any) -> Any:
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    order = torch.movedim(torch.empty(tuple(range(2, len(self) + 2)), device="meta"), sources, targets).shape
    return [self[size - 2] for size in order]


@register_rule(*aten("squeeze"), flow=keeps)
def squeeze(op: Operator, self: Operand, dim: Any = None) -> Any:
    dims = range(len(self)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(self) for d in dims if len(self) and self[d].size == 1}
    return [d for i, d in enumerate(self) if i not in gone]


@register_rule(*aten("unsqueeze"), flow=keeps)
def unsqueeze(op: Operator, self: Operand, dim: int) -> Any:
    dims = list(self)
    dims.insert(dim % (len(dims) + 1), op.new(1))
    return dims


@register_rule(*aten("expand", "expand_copy"), flow=keeps)
def expand(op: Operator, self: Operand, size: Sequence[int], implicit: bool = False) -> Any:
    lead = len(size) - len(self)
    old = [op.new(1)] * lead + list(self)
    dims = [op.new(n) if dim.size == 1 else dim for dim, n in zip(old, op.shape, strict=True)]
    return _sizes(op, "size", size, dims)


@register_rule(*aten("expand_as"), flow=lambda flow: flow["self"] or Signal())
def expand_as(op: Operator, self: Operand, other: Operand) -> Any:
    return op.broadcast(self, other)


@register_rule(*aten("broadcast_to"), flow=keeps)
def broadcast_to(op: Operator, self: Operand, size: Sequence[int]) -> Any:
    return expand(op, self, size)


@register_rule(*aten("broadcast_tensors"), flow=keeps)
def broadcast_tensors(op: Operator, tensors: Sequence[Operand]) -> Any:
    dims = op.broadcast(*tensors)
    return [dims] * len(tensors)


@register_rule(*aten("repeat"), flow=keeps)
def repeat(op: Operator, self: Operand, repeats: Sequence[int]) -> Any:
    old = [op.new(1)] * (len(repeats) - len(self)) + list(self)
    times = [op.number("repeats", op.new(n), i) for i, n in enumerate(repeats)]
    return [op.product(n, dim) for n, dim in zip(times, old, strict=True)]


@register_rule(*aten("tile"), flow=keeps)
def tile(op: Operator, self: Operand, dims: Sequence[int]) -> Any:
    missing = len(self) - len(dims)
    times = [op.new(1)] * missing + [op.number("dims", op.new(n), i) for i, n in enumerate(dims)]
    old = [op.new(1)] * -missing + list(self)
    return [op.product(n, dim) for n, dim in zip(times, old, strict=True)]


@register_rule(*aten("repeat_interleave"), flow=keeps)
def repeat_interleave(
    op: Operator, self: Operand, repeats: Any = None, dim: int | None = None, output_size: Any = None
) -> Any:
    if not isinstance(repeats, int):
        raise NotImplementedError("repeats that are a tensor depend on data")
    times = op.number("repeats", op.new(repeats))
    if dim is None:
        return [op.product(*self, times)]
    return op.replace(self, dim, op.product(self[dim], times))


@register_rule(*aten("flip", "fliplr", "flipud"), flow=keeps)
def flip(op: Operator, self: Operand, dims: Sequence[int] = (0,)) -> Any:
    for dim in dims if op.node.op._schema.name == "aten::flip" else range(len(self)):
        op.pin(self[dim], "its order is reversed")
    return list(self)


@register_rule(*aten("roll"), flow=keeps)
def roll(op: Operator, self: Operand, shifts: Any, dims: Any = ()) -> Any:
    for dim in ([dims] if isinstance(dims, int) else dims) or range(len(self)):
        op.pin(self[dim], "its positions are shifted (roll)")
    return list(self)


@register_rule(*aten("pixel_shuffle"), flow=keeps)
def pixel_shuffle(op: Operator, self: Operand, upscale_factor: int) -> Any:
    r = upscale_factor
    channels, rows, columns = op.split(self[-3], self[-3].size // r**2, r, r)
    op.pin([rows, columns], "pixel_shuffle moves it into space")
    return [*self[:-3], channels, op.product(self[-2], rows), op.product(self[-1], columns)]


@register_rule(*aten("pixel_unshuffle"), flow=keeps)
def pixel_unshuffle(op: Operator, self: Operand, downscale_factor: int) -> Any:
    r = downscale_factor
    height, rows = op.split(self[-2], self[-2].size // r, r)
    width, columns = op.split(self[-1], self[-1].size // r, r)
    op.pin([rows, columns], "pixel_unshuffle takes it from space")
    return [*self[:-3], op.product(self[-3], rows, columns), height, width]


@register_rule(*aten("channel_shuffle", "native_channel_shuffle"), flow=keeps)
def channel_shuffle(op: Operator, self: Operand, groups: int) -> Any:
    outer, inner = op.split(self[1], groups, self[1].size // groups)
    op.number("groups", outer)
    return op.replace(self, 1, op.product(inner, outer))


@register_rule(*aten("im2col"), flow=keeps)
def im2col(op: Operator, self: Operand, kernel_size: Any, *args: Any, **kwargs: Any) -> Any:
    taps = op.fixed(op.shape[-2] // self[-3].size, "positions of an unfold window")
    return [*self[:-3], op.product(self[-3], taps), op.fixed(op.shape[-1], "windows of an unfold")]


@register_rule(*aten("col2im"), flow=keeps)
def col2im(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    channels, taps = op.split(self[-2], op.shape[-3], self[-2].size // op.shape[-3])
    op.pin([taps, self[-1]], "windows of a fold")
    space = [op.fixed(n, "a spatial dimension of a fold") for n in op.shape[-2:]]
    return [*self[:-2], channels, *space]


@register_rule(*aten("unfold"), flow=keeps)
def unfold(op: Operator, self: Operand, dimension: int, size: int, step: int) -> Any:
    op.pin(self[dimension], "windows slide over it")
    dims = op.replace(self, dimension, op.fixed(op.shape[dimension % len(self)], "windows of an unfold"))
    return [*dims, op.fixed(size, "positions of an unfold window")]


@register_rule(*aten("diagonal"), flow=keeps)
def diagonal(op: Operator, self: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    gone = {dim1 % len(self), dim2 % len(self)}
    op.pin([self[dim] for dim in gone], "its diagonal is taken")
    rest = [dim for i, dim in enumerate(self) if i not in gone]
    return [*rest, op.fixed(op.shape[-1], "a diagonal")]


@register_rule(*aten("tril", "triu"), flow=keeps)
def triangle(op: Operator, self: Operand, diagonal: int = 0) -> Any:
    op.pin(self[-2:], "a triangle of it is taken")
    return list(self)


def _pads(flow: Flow) -> Signal:
    signal = flow["self"] or Signal()
    return Signal(signal.carried, signal.carried) if flow.arguments.get("value") else signal


@register_rule(*aten("pad", "constant_pad_nd", "_pad_enum"), flow=_pads)
def pad(op: Operator, self: Operand, pad: Sequence[int], mode: Any = "constant", value: Any = None) -> Any:
    dims = list(self)
    for index in range(len(pad) // 2):
        before, after = pad[2 * index : 2 * index + 2]
        if (before or after) and min(before, after) >= 0 and mode in ("constant", 0):
            ends = [op.fixed(n, "padding") for n in (before, after)]
            dims[-1 - index] = op.concat([ends[0], dims[-1 - index], ends[1]])
        elif before or after:
            op.pin(dims[-1 - index], f"it is padded ({mode})")
            dims[-1 - index] = op.fixed(op.shape[-1 - index], f"it is padded ({mode})")
    return dims


@register_rule(*aten("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
                     "replication_pad2d", "replication_pad3d", "_pad_circular"), flow=keeps)  # fmt: skip
def pad_by_copies(op: Operator, self: Operand, padding: Sequence[int]) -> Any:
    return pad(op, self, padding, mode="reflect")
