"""Transfers of views, permutations, joins and cuts: what is known moves with the positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..capture import Ref, map_tree
from ._known import EXACTLY, LARGEST, NEARLY, Known, compress, spread, unknown
from ._transfer import Results, Step, functional, packet_of, transfers


@transfers(
    "permute", "transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "movedim", "moveaxis", "squeeze",
    "unsqueeze", "expand", "broadcast_to", "select", "slice", "narrow", "split", "split_with_sizes", "chunk",
    "tensor_split", "unbind", "unfold", "diagonal", "swapdims",
)  # fmt: skip
def view(step: Step) -> Results:
    """A view of the tensor is the same view of what is known of it."""
    source = step.operand("self")
    if not source.anything:
        return [unknown(shape) for shape in step.shapes]

    def moved(tensor: Tensor) -> list[Tensor]:
        args, kwargs = map_tree((step.node.args, step.node.kwargs), Ref, lambda _: tensor)
        result = functional(step.node.op)(*args, **kwargs)
        return [result] if isinstance(result, Tensor) else list(result)

    return [Known(*parts) for parts in zip(*map(moved, source.tensors), strict=True)]


@transfers("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias", "flatten", "ravel", "unflatten",
           "view_as", "reshape_as")  # fmt: skip
def regroup(step: Step) -> Results:
    """Dimensions are merged and split; those that stay alike keep stride 0."""
    source = step.operand("self")
    if not source.anything:
        return step.nothing
    if isinstance(step.arguments.get("dtype"), torch.dtype):
        return step.nothing
    return Known(*(_regrouped(tensor, step.shapes[0]) for tensor in source.tensors))


def _regrouped(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """``tensor.reshape(shape)``, without writing out the dimensions that do not change."""
    old, new = list(tensor.shape), list(shape)
    for step in (range(min(len(old), len(new))), range(-1, -min(len(old), len(new)) - 1, -1)):
        for dim in step:
            if old[dim] != new[dim]:
                break
            if tensor.stride(dim) == 0 and tensor.shape[dim] > 1:
                tensor = tensor.narrow(dim, 0, 1)
                new[dim] = 1
    return spread(tensor.reshape(new), shape)


@transfers("expand_as")
def expand_as(step: Step) -> Results:
    """Stretched to the shape of another tensor."""
    return Known(*(spread(t, step.shapes[0]) for t in step.operand("self").tensors))


@transfers("roll", "flip", "fliplr", "flipud")
def reorder(step: Step) -> Results:
    """Positions change places; where all are alike nothing changes."""
    return _run(step, lambda tensors: compress(*tensors))


@transfers("repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
           "native_channel_shuffle", "im2col")  # fmt: skip
def rearrange(step: Step) -> Results:
    """Positions are copied or moved between dimensions."""
    return _run(step, lambda tensors: tensors)


def _run(step: Step, prepare: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]) -> Results:
    source = step.operand("self")
    refs = step.refs()
    if len(refs) != 1 or not source.anything:
        return step.nothing
    tensors = prepare(source.tensors)
    if tensors[0].numel() > LARGEST:
        return step.nothing
    operator, dims = functional(step.node.op), (step.node.args, step.node.kwargs)
    results = []
    for tensor in tensors:
        args, kwargs = map_tree(dims, Ref, lambda _, tensor=tensor: tensor.double())
        results.append(spread(operator(*args, **kwargs).to(tensor.dtype), step.shapes[0]))
    return Known(*results)


@transfers("cat", "concat", "concatenate", "stack")
def join(step: Step) -> Results:
    """One after the other; along the other dimensions what is alike in all stays so."""
    dim = step.arguments.get("dim", 0) % len(step.shapes[0])
    stacked = packet_of(step.node.op) is torch.ops.aten.stack
    parts = [step.known_of(ref.id) for ref in step.arguments["tensors"]]
    if not stacked:
        parts = [part for part in parts if len(part.shape) == len(step.shapes[0])]
    if not any(part.anything for part in parts):
        return step.nothing
    operator = torch.stack if stacked else torch.cat
    alike = [
        d
        for d in range(len(parts[0].shape))
        if (stacked or d != dim)
        and all(t.stride(d) == 0 or t.shape[d] == 1 for part in parts for t in part.tensors)
    ]
    joined = []
    for column in zip(*(_plain(part).tensors for part in parts), strict=True):
        narrow = [_narrowed(tensor, alike) for tensor in column]
        joined.append(spread(operator(narrow, dim), step.shapes[0]))
    return Known(*joined)


def _plain(known: Known) -> Known:
    # A parameter that happens to be zero is a constant like any other once it is part of a tensor.
    numbers = known.numbers()
    return Known(numbers.value.double(), numbers.state.cpu())


def _narrowed(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        tensor = tensor.narrow(dim, 0, min(1, tensor.shape[dim]))
    return tensor


@transfers("pad", "constant_pad_nd", "_pad_enum")
def pad(step: Step) -> Results:
    """Padding with the constant itself changes nothing; with another number only the border does."""
    mode = step.arguments.get("mode", "constant")
    if mode not in ("constant", 0):
        return _padded_by_copies(step)
    source = step.operand("self").numbers()
    filler = float(step.arguments.get("value") or 0.0)
    value, state = compress(source.value, source.state)
    sizes: Sequence[int] = step.arguments["pad"]
    for index in range(len(sizes) // 2):
        dim = value.dim() - 1 - index
        ends = sizes[2 * index : 2 * index + 2]
        if not any(ends):
            continue
        if value.shape[dim] == 1 and source.shape[dim] > 1:
            state = torch.where(value != filler, state.clamp_max(NEARLY), state)
        else:
            spec = [0] * (2 * index) + list(ends)
            value = torch.nn.functional.pad(value, spec, value=filler)
            state = torch.nn.functional.pad(state, spec, value=EXACTLY)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


@transfers("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
           "replication_pad2d", "replication_pad3d", "_pad_circular")  # fmt: skip
def pad_by_copies(step: Step) -> Results:
    """The border is made of what is there."""
    return _padded_by_copies(step)


def _padded_by_copies(step: Step) -> Results:
    source = step.operand("self")
    tensors = compress(*source.tensors)
    wide = any(old != new and t.shape[d] != 1 for t in tensors[:1]
               for d, (old, new) in enumerate(zip(source.shape, step.shapes[0], strict=True)))  # fmt: skip
    return step.nothing if wide else Known(*(spread(t, step.shapes[0]) for t in tensors))


def is_view(op: Any) -> bool:
    """Whether an operator is one that merely looks at its operand in another way."""
    return packet_of(op) in _VIEWS


_VIEWS = {
    getattr(torch.ops.aten, name)
    for name in ("view", "reshape", "permute", "transpose", "t", "flatten", "unsqueeze", "squeeze", "expand")
}
