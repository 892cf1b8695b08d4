"""One form for linear layers, however a model's code writes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ._constants import Values, call, constants_of

_ATEN = torch.ops.aten
_FAKE = torch.ops.secateur.fake_quantize.default


def use_linear_form(program: fx.GraphModule) -> None:
    """Write ``addmm(bias, x, weight)`` as ``linear(x, weightᵀ, bias)``, in place, where weights are known.

    GPT-2 and its kin have their layers so. Of a weight whose quantisation is simulated, the scales of the
    outputs, then in dimension 0, stay those of the outputs.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        if node.target is not _ATEN.addmm.default or not _is_layer(node, values):
            continue
        bias, x, weight = node.args[:3]
        with program.graph.inserting_before(node):
            turned = _turned(program, weight)
            layer = call(program, _ATEN.linear.default, (x, turned, bias), node.meta["val"])
        node.replace_all_uses_with(layer)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _is_layer(node: fx.Node, values: Values) -> bool:
    bias, _, weight = (values.get(source) for source in node.args[:3])  # type: ignore[arg-type]
    return isinstance(bias, Tensor) and isinstance(weight, Tensor) and bias.dim() == 1 and not node.kwargs


def _turned(program: fx.GraphModule, weight: Any) -> fx.Node:
    """The weight with its outputs first, quantised after it was turned."""
    if weight.target is not _FAKE:
        return call(program, _ATEN.t.default, (weight,), weight.meta["val"].t())
    source, scale, zero, low, high, *rest = weight.args
    axis = rest[0] if rest else weight.kwargs.get("axis")
    turned = _turned(program, source)
    grid = (scale, zero, low, high, None if axis is None else 1 - axis % 2)
    return call(program, _FAKE, (turned, *grid), turned.meta["val"])
