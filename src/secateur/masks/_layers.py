"""Layers with weights, brought into the normal form of a :class:`Reading`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..axes import Dim
from ..capture import Ref, Source, Value
from ._known import Known, along, constant, spread
from ._reading import BiasPlace, Reading, Weights
from ._transfer import Step


@dataclass(frozen=True, slots=True)
class Product:
    """A sum over products of two tensors at the same positions, inside a layer that is one operator.

    ``dim`` and ``part`` say which positions, row-major (outer, inner); the sum is over the inner
    ones. ``vanishes`` says where one of the two factors is zero.
    """

    dim: Dim
    part: slice
    outer: int
    vanishes: Tensor


@dataclass(frozen=True, slots=True)
class Layered:
    """What a layer sums over, and what is known of its results."""

    readings: list[Reading]
    results: list[Known | None]
    products: list[Product] = field(default_factory=list)


Layer = Callable[["Place"], Layered | None]

LAYERS: dict[Any, Layer] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """A step together with where it is in the model.

    Attributes:
        step: the operator call.
        dims_of: resolved dimensions of a tensor by id.
        value_of: the recorded value by id.
        model: the model, for biases that are not there yet.
        readers_of: how many operators read a tensor, by id.
    """

    step: Step
    dims_of: Callable[[int], list[Dim]]
    value_of: Callable[[int], Value]
    model: nn.Module
    readers_of: Callable[[int], int]

    def ref(self, name: str) -> Ref:
        """The tensor argument of that name."""
        return self.step.arguments[name]

    def bias(self, bias: Ref | None, weight: Ref, row_dim: int) -> BiasPlace | str:
        """Where constants go that are added to the rows of ``weight``."""
        value = self.value_of(weight.id)
        if bias is not None:
            own = self.value_of(bias.id)
            if own.source is not Source.PARAMETER or len(own.shape) != 1:
                return "its bias is not a parameter"
            return BiasPlace(own.name, True, (value.name, row_dim))
        path = self.step.node.module
        module = self.model.get_submodule(path)
        own = value.source is Source.PARAMETER and f"{path}.weight".lstrip(".") in value.names
        if own and "bias" in module._parameters and isinstance(module, _WITH_BIAS):
            return BiasPlace(f"{path}.bias".lstrip("."), False, (value.name, row_dim))
        return "it has no bias, and none can be given to it"


_WITH_BIAS = (nn.Linear, nn.modules.conv._ConvNd)


def layer(*names: str) -> Callable[[Layer], Layer]:
    """Decorator that enters the layer function of operators of ``torch.ops.aten``."""

    def register(function: Layer) -> Layer:
        for name in names:
            LAYERS[getattr(torch.ops.aten, name)] = function
        return function

    return register


def whole(dim: Dim) -> tuple[Dim, slice]:
    """All rows of a dimension."""
    return dim, slice(0, dim.size)


def blocks(known: Known, groups: int) -> Known:
    """A vector as (groups, positions of a group)."""
    return Known(known.value.reshape(groups, -1), known.state.reshape(groups, -1))


def start_of(bias: Known | None, groups: int, rows: int) -> Known:
    """What rows start from: the bias, or zero."""
    return constant(0.0, (groups, rows)) if bias is None else blocks(along(bias, 0), groups)


def spread_along(known: Known, dim: int, shape: Sequence[int]) -> Known:
    """(groups, rows) as what is known of a tensor that has them as its dimension ``dim``."""
    form = [-1 if d == dim % len(shape) else 1 for d in range(len(shape))]
    return Known(*(spread(t.reshape(form), shape) for t in known.tensors))


ONE_TAP = torch.ones(1, dtype=torch.float64)


@layer("linear")
def linear(place: Place) -> Layered | None:
    """weight (out, in)."""
    weight, bias = place.ref("weight"), place.step.arguments.get("bias")
    if len(place.value_of(weight.id).shape) != 2:
        return None
    return _matrix(place, place.ref("input"), weight, bias, transposed=False)


@layer("addmm")
def addmm(place: Place) -> Layered | None:
    """mat2 (in, out), and the bias first."""
    if place.step.arguments.get("beta", 1) != 1 or place.step.arguments.get("alpha", 1) != 1:
        return None
    if len(place.value_of(place.ref("self").id).shape) != 1:
        return None
    return _matrix(place, place.ref("mat1"), place.ref("mat2"), place.ref("self"), transposed=True)


@layer("matmul", "mm")
def matmul(place: Place) -> Layered | None:
    """Activations times a parameter, or a view of one."""
    other = place.step.arguments.get("other") or place.step.arguments["mat2"]
    weight = place.step.known_of(other.id)
    if weight.masked is None or len(weight.shape) != 2 or len(place.value_of(place.ref("self").id).shape) < 2:
        return None
    return _matrix(place, place.ref("self"), other, None, transposed=True)


def _matrix(place: Place, source: Ref, weight: Ref, bias: Ref | None, *, transposed: bool) -> Layered | None:
    step = place.step

    def arrange(tensor: Tensor) -> Tensor:
        return (tensor.t() if transposed else tensor)[None, :, :, None]

    weights = Weights.of(step.known_of(weight.id), arrange)
    reading = Reading(
        step.node,
        blocks(along(step.known_of(source.id), -1), 1),
        weights,
        ONE_TAP,
        place.dims_of(source.id)[-1],
        whole(place.dims_of(step.node.outputs[0])[-1]),
        place.bias(bias, weight, 1 if transposed else 0),
        start_of(None if bias is None else step.known_of(bias.id), 1, weights.shape[1]),
    )
    return Layered([reading], [spread_along(reading.result(), -1, step.shapes[0])])


@layer(
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution", "_convolution",
)  # fmt: skip
def convolution(place: Place) -> Layered | None:
    """weight (out, in / groups, *kernel), transposed (in, out / groups, *kernel)."""
    step = place.step
    a = step.arguments
    groups = a.get("groups", 1)
    transposed = a.get("transposed", "transpose" in step.node.op._schema.name)
    source, weight, bias = place.ref("input"), place.ref("weight"), a.get("bias")
    shape = place.value_of(weight.id).shape
    channel = len(place.value_of(source.id).shape) - len(shape) + 1

    def arrange(tensor: Tensor) -> Tensor:
        each = tensor.reshape(groups, shape[0] // groups, shape[1], prod(shape[2:]))
        return each.transpose(1, 2) if transposed else each

    weights = Weights.of(step.known_of(weight.id), arrange)
    sizes = place.value_of(source.id).shape[channel + 1 :]
    reading = Reading(
        step.node,
        blocks(along(step.known_of(source.id), channel), groups),
        weights,
        _taps(a, shape[2:], sizes, step.shapes[0][channel + 1 :], transposed),
        place.dims_of(source.id)[channel],
        whole(place.dims_of(step.node.outputs[0])[channel]),
        place.bias(bias, weight, 1 if transposed else 0),
        start_of(None if bias is None else step.known_of(bias.id), groups, weights.shape[1]),
        place.value_of(weight.id).name if place.value_of(weight.id).source is Source.PARAMETER else "",
        place.readers_of(weight.id),
    )
    return Layered([reading], [spread_along(reading.result(), channel, step.shapes[0])])


def _taps(
    a: dict[str, Any], kernel: Sequence[int], sizes: Sequence[int], results: Sequence[int], transposed: bool
) -> Tensor:
    """For each kernel tap: at which share of the results it falls inside the input."""
    shares = ONE_TAP
    for dim, (taps, size, made) in enumerate(zip(kernel, sizes, results, strict=True)):
        stride, dilation = _item(a.get("stride", 1), dim), _item(a.get("dilation", 1), dim)
        before = _padding(a.get("padding", 0), dim, taps, dilation)
        inside = _taps_along(taps, size, made, stride, dilation, before, transposed)
        shares = (shares[:, None] * inside).flatten()
    return shares


@functools.lru_cache(maxsize=256)  # the layers of a network are of a few kinds
def _taps_along(
    taps: int, size: int, made: int, stride: int, dilation: int, before: int, transposed: bool
) -> Tensor:
    """:func:`_taps` of one dimension, padded by ``before`` zeros at its beginning."""
    tap = torch.arange(taps)[:, None] * dilation - before
    steps, inside = (size, made) if transposed else (made, size)
    at = torch.arange(steps) * stride + tap
    return ((at >= 0) & (at < inside)).double().sum(1) / made


def _item(value: int | Sequence[int], dim: int) -> int:
    if isinstance(value, int):
        return value
    return value[dim] if len(value) > 1 else value[0]


def _padding(value: Any, dim: int, taps: int, dilation: int) -> int:
    if isinstance(value, str):
        return dilation * (taps - 1) // 2 if value == "same" else 0
    return _item(value, dim)
