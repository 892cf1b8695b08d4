"""Per-channel factors and shifts behind a layer, such as BatchNorm, go into its weight and bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..operators import DEQUANTIZE
from ._constants import Values, buffer, constants_of

_ATEN = torch.ops.aten
CONVOLUTIONS = {
    getattr(getattr(_ATEN, name), overload)
    for name in ("conv1d", "conv2d", "conv3d")
    for overload in ("default", "padding")
}
LAYERS = {_ATEN.linear.default, *CONVOLUTIONS}
"""Layers whose weight has its output channels first, with input, weight and bias as first arguments."""
_AFFINE = {
    _ATEN.batch_norm.default,
    _ATEN.mul.Tensor,
    _ATEN.div.Tensor,
    _ATEN.add.Tensor,
    _ATEN.sub.Tensor,
}


def fold_affine(program: fx.GraphModule) -> None:
    """Fold what multiplies and shifts the channels of a layer into the layer, in place.

    A float weight is multiplied; of an int8 weight only the scales are, so its integers stay what the
    simulation computed with. What reads the layer's output beside others stays.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        while node.target in LAYERS and len(node.users) == 1:
            (user,) = node.users
            if not _fold(program, node, user, values):
                break
    program.graph.eliminate_dead_code()


def _fold(program: fx.GraphModule, layer: fx.Node, user: fx.Node, values: Values) -> bool:
    weight = layer.args[1]
    change = _factor_and_shift(layer, user, values)
    if change is None or weight not in values or not isinstance(weight, fx.Node):
        return False
    factor, shift = change
    bias = layer.args[2] if len(layer.args) > 2 else None
    if bias is not None and bias not in values:
        return False
    moved = shift if bias is None else values[bias].double() * factor + shift
    with program.graph.inserting_before(layer):
        scaled = _scaled(program, weight, factor, values)
        if scaled is None:
            return False
        added = buffer(program, moved.to(values[weight].dtype), "bias", values)
    given: tuple[Any, ...] = layer.args
    layer.args = (given[0], scaled, added, *given[3:])
    user.replace_all_uses_with(layer)
    program.graph.erase_node(user)
    return True


def _factor_and_shift(layer: fx.Node, user: fx.Node, values: Values) -> tuple[Tensor, Tensor] | None:
    """What ``user`` multiplies each channel of the layer's output by, and adds: float64, shape (channels,).

    The operator itself is asked, at zeros and at ones.
    """
    others = [source for source in user.all_input_nodes if source is not layer]
    given = [*user.args, *user.kwargs.values()]
    once = sum(argument is layer for argument in given) == 1
    if user.target not in _AFFINE or not once or any(other not in values for other in others):
        return None
    made = layer.meta["val"]
    channels = made.dim() - 1 if layer.target is _ATEN.linear.default else 1
    shape = [made.shape[channels] if dim == channels else 1 for dim in range(made.dim())]
    # BatchNorm of a linear layer's output has its channels in dimension 1.
    if user.target is _ATEN.batch_norm.default and (channels != 1 or user.args[5]):
        return None
    at_zero, at_one = (_called(user, layer, torch.full(shape, x).double(), values) for x in (0.0, 1.0))
    if at_zero.shape != torch.Size(shape):
        return None
    shift = at_zero.flatten()
    factor = at_one.flatten() - shift
    return (factor, shift) if bool(factor.isfinite().all() and shift.isfinite().all()) else None


def _called(user: fx.Node, layer: fx.Node, x: Tensor, values: Values) -> Tensor:
    def given(node: fx.Node) -> Any:
        value = x if node is layer else values[node]
        return value.detach().double() if isinstance(value, Tensor) else value

    args, kwargs = fx.map_arg((user.args, user.kwargs), given)
    with torch.no_grad():
        return user.target(*args, **kwargs)  # type: ignore[operator]


def _scaled(program: fx.GraphModule, weight: fx.Node, factor: Tensor, values: Values) -> fx.Node | None:
    """A weight times a factor for each row; None where integers cannot take it."""
    if weight.target is not DEQUANTIZE:
        value = values[weight].detach()
        spread = factor.reshape(-1, *[1] * (value.dim() - 1))
        return buffer(program, (value.double() * spread).to(value.dtype), "weight", values)
    steps, scale, zero_point = (values[source] for source in weight.args[:3])  # type: ignore[index]
    negative = factor < 0
    turned = bool(negative.any())
    if weight.args[3] not in (None, 0) or (turned and (bool(zero_point.any()) or int(steps.min()) == -128)):
        return None
    rows = len(factor)
    sign = torch.where(negative, -1, 1).reshape(-1, *[1] * (steps.dim() - 1))
    given = [
        buffer(program, (steps * sign).to(steps.dtype), "weight", values),
        buffer(program, (scale.double() * factor.abs()).to(scale.dtype), "scale", values),
        buffer(program, zero_point.expand(rows), "zero", values),
    ]
    node = program.graph.call_function(DEQUANTIZE, (*given, 0))
    node.meta["val"] = values[node] = DEQUANTIZE(*(values[source] for source in given), 0)
    return node
