"""Biases as int32, at the scale of the products that they are added to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..operators import DEQUANTIZE, LIMITS
from ._affine import LAYERS
from ._constants import Values, buffer, constants_of
from ._moves import origin_of

_LINEAR = torch.ops.aten.linear.default
_LONGEST = 2**30
"""Of a bias: the sums have as much room again in an int32."""


def quantize_biases(program: fx.GraphModule) -> None:
    """Store the bias of every layer of quantised input and weight as int32, in place.

    Its scale is the product of theirs, so the integers add up without a conversion; the error is at most half
    of that product, far below a step of the output. A channel with next to no weight beside its bias gets a
    coarser scale of the weight, in which the bias has 30 bits: what the weight gave was below that.

    The bias of a linear layer between tensors of more than two dimensions stays as it is: runtimes multiply
    matrices of integers there, make floats of the sums, and add the bias to these.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        if _takes_integers(node) and len(node.args) > 2 and node.args[2] in values:
            source = _scale_of_input(node, values)
            if source is not None:
                _coarsen(program, node, source, values)
                _quantize_bias(program, node, source, values)
    program.graph.eliminate_dead_code()


def _takes_integers(node: fx.Node) -> bool:
    return node.target in LAYERS and (node.target is not _LINEAR or node.meta["val"].dim() == 2)


def _scale_of_input(layer: fx.Node, values: Values) -> Tensor | None:
    """Scale of the input, shape (); None where input or weight is not of integers, or has other scales."""
    source, weight = origin_of(layer.args[0]), _node(layer.args[1])
    if any(side.target is not DEQUANTIZE for side in (source, weight)):
        return None
    if source.args[3] is not None or weight.args[3] not in (None, 0):
        return None
    return values[_node(source.args[1])]


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _coarsen(program: fx.GraphModule, layer: fx.Node, source: Tensor, values: Values) -> None:
    """Give channels whose bias would be too long for an int32 a scale in which it is not."""
    weight, bias = _node(layer.args[1]), values[_node(layer.args[2])].detach().double()
    steps, scale, zero = (values[_node(part)] for part in weight.args[:3])
    least = bias.abs() / (source.double() * _LONGEST)
    if not bool((scale < least).any()):
        return
    coarse = torch.maximum(scale.double(), least).to(scale.dtype)  # of shape (channels,)
    rows = [-1, *[1] * (steps.dim() - 1)]
    exact = (steps.double() - zero.double().reshape(rows)) * scale.double().reshape(rows)
    low, high = LIMITS[steps.dtype]
    zeros = zero.expand(coarse.shape)
    rounded = (exact / coarse.double().reshape(rows)).round() + zeros.reshape(rows)
    with program.graph.inserting_before(weight):
        given = [
            buffer(program, value, hint, values)
            for value, hint in (
                (rounded.clamp(low, high).to(steps.dtype), "weight"),
                (coarse, "scale"),
                (zeros, "zero"),
            )
        ]
        node = program.graph.call_function(DEQUANTIZE, (*given, 0))
    node.meta["val"] = values[node] = DEQUANTIZE(*(values[part] for part in given), 0)
    layer.update_arg(1, node)


def _quantize_bias(program: fx.GraphModule, layer: fx.Node, source: Tensor, values: Values) -> None:
    bias = values[_node(layer.args[2])].detach()
    scale = source * values[_node(_node(layer.args[1]).args[1])]
    steps = torch.round(bias.double() / scale.double())
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    with program.graph.inserting_before(layer):
        given = [
            buffer(program, value, hint)
            for value, hint in ((steps.to(torch.int32), "bias"), (scale, "scale"), (zero, "zero"))
        ]
        axis = 0 if scale.dim() else None
        node = program.graph.call_function(DEQUANTIZE, (*given, axis))
    node.meta["val"] = bias
    layer.update_arg(2, node)
