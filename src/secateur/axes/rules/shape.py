"""Views, permutations, expansions: dimensions are regrouped, moved and repeated."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .._flow import Flow, Signal, add, adds, keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _sizes(
    op: Operator, argument: str, sizes: Sequence[int], dims: Sequence[Any], offset: int = 0
) -> list[Any]:
    """Every size that the code wrote (and did not leave to be inferred) is that of a dimension."""
    for position, size in enumerate(sizes):
        if size != -1:
            op.number(argument, dims[position + offset], position)
    return list(dims)


@register_rule(*aten("view", "_unsafe_view", "view_copy", "_reshape_copy"), flow=keeps)
def view(op: Operator, self: Operand, size: Any) -> Any:
    if not isinstance(size, torch.dtype):
        return _sizes(op, "size", size, op.regroup(self.dims, op.shape))
    if op.shape == self.shape:
        return list(self)
    op.pin(self[-1], "its bytes are taken for another type")
    return [*self[:-1], op.fixed(op.shape[-1], "bytes of another type")]


@register_rule(*aten("reshape"), flow=keeps)
def reshape(op: Operator, self: Operand, shape: Sequence[int]) -> Any:
    return _sizes(op, "shape", shape, op.regroup(self.dims, op.shape))


@register_rule(*aten("resize"), flow=keeps)
def resize(op: Operator, self: Operand, size: Sequence[int], **kwargs: Any) -> Any:
    if prod(size) == prod(self.shape):
        return _sizes(op, "size", size, op.regroup(self.dims, op.shape))
    op.pin(self, "it is resized to another number of elements")
    return [op.fixed(n, "a tensor is resized to it") for n in op.shape]


@register_rule(*aten("view_as", "reshape_as"), flow=adds("self"))
def view_as(op: Operator, self: Operand, other: Operand) -> Any:
    op.broadcast(op.regroup(self.dims, op.shape), other)
    return list(other)


@register_rule(*aten("flatten", "ravel"), flow=keeps)
def flatten(op: Operator, self: Operand, start_dim: int = 0, end_dim: int = -1) -> Any:
    return op.regroup(self.dims, op.shape)


@register_rule(*aten("unflatten"), flow=keeps)
def unflatten(op: Operator, self: Operand, dim: int, sizes: Sequence[int]) -> Any:
    return _sizes(op, "sizes", sizes, op.regroup(self.dims, op.shape), offset=dim % len(self))


@register_rule(*aten("permute", "permute_copy"), flow=keeps)
def permute(op: Operator, self: Operand, dims: Sequence[int]) -> Any:
    return [self[dim] for dim in dims]


@register_rule(*aten("transpose", "transpose_copy", "swapaxes", "swapdims"), flow=keeps)
def transpose(op: Operator, self: Operand, dim0: int, dim1: int) -> Any:
    dims = list(self)
    if dims:
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return dims


@register_rule(*aten("t", "t_copy", "numpy_T"), flow=keeps)
def reversed_dims(op: Operator, self: Operand) -> Any:
    return self[::-1]


@register_rule(*aten("matrix_H", "mT", "mH", "adjoint"), flow=keeps)
def matrix_transpose(op: Operator, self: Operand) -> Any:
    return [*self[:-2], self[-1], self[-2]]


@register_rule(*aten("movedim", "moveaxis"), flow=keeps)
def movedim(op: Operator, self: Operand, source: Any, destination: Any) -> Any:
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    places = dict(zip((t % len(self) for t in targets), (self[s] for s in sources), strict=True))
    gone = {s % len(self) for s in sources}
    others = (dim for i, dim in enumerate(self) if i not in gone)
    return [places[i] if i in places else next(others) for i in range(len(self))]


@register_rule(*aten("squeeze", "squeeze_copy"), flow=keeps)
def squeeze(op: Operator, self: Operand, dim: Any = None) -> Any:
    dims = range(len(self)) if dim is None else [dim] if isinstance(dim, int) else dim
    for d in dims if len(self) else ():
        if self[d].size > 1:
            op.keep_at_least(self[d], 2)  # a single position would be squeezed as well
    gone = {d % len(self) for d in dims if len(self) and self[d].size == 1}
    return [d for i, d in enumerate(self) if i not in gone]


@register_rule(*aten("unsqueeze", "unsqueeze_copy"), flow=keeps)
def unsqueeze(op: Operator, self: Operand, dim: int) -> Any:
    dims = list(self)
    dims.insert(dim % (len(dims) + 1), op.new(1))
    return dims


@register_rule(*aten("expand", "expand_copy", "broadcast_to"), flow=keeps)
def expand(op: Operator, self: Operand, size: Sequence[int], implicit: bool = False) -> Any:
    lead = len(size) - len(self)
    old = [op.new(1)] * lead + list(self)
    dims = [op.new(n) if dim.size == 1 else dim for dim, n in zip(old, op.shape, strict=True)]
    return _sizes(op, "size", size, dims)


@register_rule(*aten("expand_as"), flow=adds("self"))
def expand_as(op: Operator, self: Operand, other: Operand) -> Any:
    return op.broadcast(self, other)


@register_rule(*aten("broadcast_tensors"), flow=lambda flow: add(*flow.tensors()))
def broadcast_tensors(op: Operator, tensors: Sequence[Operand]) -> Any:
    return [op.broadcast(*tensors)] * len(tensors)


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


@register_rule(*(packet.self_int for packet in aten("repeat_interleave")), flow=keeps)
def repeat_interleave(
    op: Operator, self: Operand, repeats: int, dim: int | None = None, output_size: Any = None
) -> Any:
    times = op.number("repeats", op.new(repeats))
    if dim is None:
        return [op.product(*self, times)]
    return op.replace(self, dim, op.product(self[dim], times))


@register_rule(*aten("flip", "fliplr", "flipud", "rot90"), flow=keeps)
def flip(op: Operator, self: Operand, *args: Any) -> Any:
    fixed = {"aten::fliplr": (1,), "aten::flipud": (0,), "aten::rot90": (args[1:] or ((0, 1),))[0]}
    result = list(self)
    for dim in fixed.get(op.node.op._schema.name, args[0] if args else ()):
        op.pin(self[dim], "its order is reversed")
        result[dim] = op.fixed(op.shape[dim], "its order is reversed")
    return result


@register_rule(*aten("roll"), flow=keeps)
def roll(op: Operator, self: Operand, shifts: Any, dims: Any = ()) -> Any:
    if not dims:  # the flattened tensor is rolled
        op.pin(self, "its positions are shifted (roll)")
        return list(self)
    result = list(self)
    for position, (shift, dim) in enumerate(zip(shifts, dims, strict=True)):
        size = result[dim].size
        by = shift % max(size, 1)
        stay, wrap = op.cut(result[dim], [size - by, by])
        if by and abs(shift) < size:
            negative = shift < 0
            op.number("shifts", stay if negative else wrap, position, negative=negative)
        elif by:
            op.pin(result[dim], "its positions are shifted by more than its size (roll)")
        result[dim] = op.concat([wrap, stay])
    return result


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
def im2col(op: Operator, self: Operand, kernel_size: Any, *args: Any) -> Any:
    op.pin(self[-2:], "windows slide over it")
    taps = op.fixed(op.shape[-2] // self[-3].size, "positions of an unfold window")
    return [*self[:-3], op.product(self[-3], taps), op.fixed(op.shape[-1], "windows of an unfold")]


@register_rule(*aten("col2im"), flow=keeps)
def col2im(op: Operator, self: Operand, output_size: Any, *args: Any) -> Any:
    channels, taps = op.split(self[-2], op.shape[-3], self[-2].size // op.shape[-3])
    op.pin([taps, self[-1]], "windows of a fold")
    space = [op.fixed(n, "a spatial dimension of a fold") for n in op.shape[-2:]]
    return [*self[:-2], channels, *space]


@register_rule(*aten("unfold", "unfold_copy"), flow=keeps)
def unfold(op: Operator, self: Operand, dimension: int, size: int, step: int) -> Any:
    if not len(self):
        return [op.fixed(size, "positions of an unfold window")]
    dim = self[dimension]
    if step == size and dim.size % size == 0:  # windows side by side
        windows, inside = op.split(dim, dim.size // size, size)
        op.number("size", inside)
        op.number("step", inside)
    else:
        op.pin(dim, "windows slide over it")
        windows = op.fixed(op.shape[dimension % len(self)], "windows of an unfold")
        inside = op.fixed(size, "positions of an unfold window")
    return [*op.replace(self, dimension, windows), inside]


@register_rule(*aten("diagonal", "diagonal_copy"), flow=keeps)
def diagonal(op: Operator, self: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    gone = {dim1 % len(self), dim2 % len(self)}
    rest = [dim for i, dim in enumerate(self) if i not in gone]
    if offset == 0 and self[dim1].size == self[dim2].size:
        return [*rest, op.unify(self[dim1], self[dim2])]
    op.pin([self[dim1], self[dim2]], "its diagonal is taken")
    return [*rest, op.fixed(op.shape[-1], "a diagonal")]


@register_rule(*aten("diag_embed"), flow=keeps)
def diag_embed(op: Operator, self: Operand, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    dims: list[Any] = list(self[:-1])
    both = self[-1]
    if offset:
        op.pin(both, "it becomes a diagonal")
        both = op.fixed(op.shape[dim1], "a diagonal is put into it")
    for place in sorted((dim1 % len(op.shape), dim2 % len(op.shape))):
        dims.insert(place, both)
    return dims


@register_rule(*aten("tril", "triu"), flow=keeps)
def triangle(op: Operator, self: Operand, diagonal: int = 0) -> Any:
    op.pin(self[-2:], "a triangle of it is taken")
    return list(self)


@register_rule(*aten("fill_diagonal_"), flow=keeps)
def fill_diagonal(op: Operator, self: Operand, fill_value: Any, wrap: bool = False) -> Any:
    op.pin(self, "its diagonal is filled")
    return list(self)


def _pads(flow: Flow) -> Signal:
    signal = flow["self"] or Signal()
    return Signal(signal.carried, signal.carried) if flow.arguments.get("value") else signal


@register_rule(*aten("constant_pad_nd"), flow=_pads)
def constant_pad(op: Operator, self: Operand, pad: Sequence[int], value: Any = 0) -> Any:
    dims = list(self)
    for index in range(len(pad) // 2):
        before, after = pad[2 * index : 2 * index + 2]
        dims[-1 - index] = _padded(op, dims[-1 - index], before, after)
    return dims


@register_rule(*aten("pad", "_pad_enum"), flow=_pads)
def pad(op: Operator, self: Operand, pad: Sequence[int], mode: Any = "constant", value: Any = None) -> Any:
    if mode in ("constant", 3):
        return constant_pad(op, self, pad)
    return pad_by_copies(op, self, pad)


def _padded(op: Operator, dim: Any, before: int, after: int) -> Any:
    """Negative padding takes positions off, which may not be those that pruning takes."""
    cut = [max(0, -before), max(0, -after)]
    first, middle, last = op.cut(dim, [cut[0], dim.size - sum(cut), cut[1]])
    op.pin([first, last], "padding takes it off")
    ends = [op.fixed(max(0, n), "padding") for n in (before, after)]
    return op.concat([ends[0], middle, ends[1]])


@register_rule(
    *aten(
        "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
        "replication_pad3d", "_pad_circular",
    ),
    flow=keeps,
)  # fmt: skip
def pad_by_copies(op: Operator, self: Operand, padding: Sequence[int]) -> Any:
    dims = list(self)
    for index in range(len(padding) // 2):
        if any(padding[2 * index : 2 * index + 2]):
            op.pin(dims[-1 - index], "it is padded with copies of its positions")
            dims[-1 - index] = op.fixed(op.shape[-1 - index], "it is padded with copies")
    return dims


@register_rule(*aten("as_strided", "as_strided_copy"), flow=keeps)
def as_strided(op: Operator, self: Operand, size: Sequence[int], stride: Sequence[int], *offset: Any) -> Any:
    """Windows that overlap along one dimension leave the others as they are."""
    reason = "it is viewed with strides of its own"
    order = None if any(offset) else _memory_order(self)
    kept = {} if order is None else _kept_dims(self, order, size, stride)
    op.pin([dim for place, dim in enumerate(self) if place not in kept.values()], reason)
    result = [self[kept[j]] if j in kept else op.fixed(n, reason) for j, n in enumerate(op.shape)]
    for position, step in enumerate(stride if order else ()):
        inner: list[Any] = []
        for place in order or ():  # the innermost dimensions that a step goes over as a whole
            if step % prod([self[place].size, *(dim.size for dim in inner)]):
                break
            inner.insert(0, self[place])
        times = op.fixed(step // prod(dim.size for dim in inner), reason)
        op.number("stride", op.product(times, *inner), position)
    for position, place in kept.items():
        op.number("size", self[place], position)
    return result


def _memory_order(self: Operand) -> list[int] | None:
    """Dimensions from the innermost on; None for a tensor with gaps or repetitions in memory."""
    strides = self.strides or [prod(self.shape[place + 1 :]) for place in range(len(self))]
    order = sorted((place for place in range(len(self)) if self.shape[place] > 1), key=strides.__getitem__)
    size = 1
    for place in order:
        if strides[place] != size:
            return None
        size *= self.shape[place]
    return order


def _kept_dims(
    self: Operand, order: Sequence[int], size: Sequence[int], stride: Sequence[int]
) -> dict[int, int]:
    """Dimensions of the view that run along one of ``self``, which no other of the view runs along."""
    kept: dict[int, int] = {}
    view = list(zip(size, stride, strict=True))
    step = 1
    for place in order:
        whole = step * self.shape[place]
        for position, along in enumerate(view):
            others = [(n, s) for i, (n, s) in enumerate(view) if i != position and n > 1]
            below = sum((n - 1) * s for n, s in others if s < step)
            apart = all(s < step or s % whole == 0 for _, s in others)
            if along == (self.shape[place], step) and below < step and apart:
                kept[position] = place
        step = whole
    return kept
