"""Biases as int32, at the scale of the products that they are added to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ._affine import LAYERS
from ._constants import Values, buffer, constants_of

_ATEN = torch.ops.aten
_DEQUANTIZE = torch.ops.secateur.dequantize.default
_MOVES = {
    _ATEN.max_pool1d.default,
    _ATEN.max_pool2d.default,
    _ATEN.reshape.default,
    _ATEN.view.default,
    _ATEN.flatten.using_ints,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.dropout.default,
    _ATEN.contiguous.default,
    _ATEN.squeeze.dims,
    _ATEN.unsqueeze.default,
}
"""Operators behind which values are still on the grid of what they were dequantised from."""


def quantize_biases(program: fx.GraphModule) -> None:
    """Store the bias of every layer of quantised input and weight as int32, in place.

    Its scale is the product of theirs, so the integers add up without a conversion; the error is at most half
    of that product, far below a step of the output.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        if node.target in LAYERS and len(node.args) > 2 and node.args[2] in values:
            scale = _scale_of_products(node, values)
            if scale is not None:
                _quantize_bias(program, node, values[node.args[2]], scale)
    program.graph.eliminate_dead_code()


def _scale_of_products(layer: fx.Node, values: Values) -> Tensor | None:
    """Scale of input times weight, shape () or (channels,); None where either is not of integers."""
    source, weight = _node(layer.args[0]), _node(layer.args[1])
    while source.target in _MOVES:
        source = _node(source.args[0])
    if any(side.target is not _DEQUANTIZE for side in (source, weight)):
        return None
    if source.args[3] is not None or weight.args[3] not in (None, 0):
        return None
    return values[_node(source.args[1])] * values[_node(weight.args[1])]


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _quantize_bias(program: fx.GraphModule, layer: fx.Node, bias: Tensor, scale: Tensor) -> None:
    steps = torch.round(bias.detach().double() / scale.double())
    if bool((steps.abs() >= 2**31).any()):
        return  # a weight row of next to nothing: the float bias stays
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    with program.graph.inserting_before(layer):
        given = [
            buffer(program, value, hint)
            for value, hint in ((steps.to(torch.int32), "bias"), (scale, "scale"), (zero, "zero"))
        ]
        axis = 0 if scale.dim() else None
        node = program.graph.call_function(_DEQUANTIZE, (*given, axis))
    node.meta["val"] = bias
    layer.update_arg(2, node)
