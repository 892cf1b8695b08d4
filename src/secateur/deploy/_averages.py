"""Means over images as one operator, which runtimes have an integer kernel for."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..operators import AVERAGE, DEQUANTIZE, QUANTIZE
from ._constants import Values, buffer, constants_of
from ._moves import is_move

_ATEN = torch.ops.aten
_POOLS = {
    _ATEN.adaptive_avg_pool1d.default,
    _ATEN.adaptive_avg_pool2d.default,
    _ATEN.adaptive_avg_pool3d.default,
}


def average_integers(program: fx.GraphModule) -> None:
    """Let the mean of a quantised image that is quantised itself be one kernel of integers, in place.

    Often input and mean have one scale, so that means lie half way between two steps: a sum of floats decides
    there by the order in which it was added up, a sum of integers does not.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        later = _quantised_later(node) if _is_global_average(node) else None
        if later is not None:
            _replace(program, node, later, values)
    program.graph.eliminate_dead_code()


def _is_global_average(node: fx.Node) -> bool:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source.target is not DEQUANTIZE or source.args[3] is not None:
        return False
    dims = source.meta["val"].dim()
    if node.target in _POOLS:
        return all(size == 1 for size in node.meta["val"].shape[2:]) and node.meta["val"].dim() == dims
    if node.target is not _ATEN.mean.dim or dims < 3:
        return False
    given: Any = node.args[1]
    return sorted(dim % dims for dim in given) == list(range(2, dims)) and not node.kwargs.get("dtype")


def _quantised_later(node: fx.Node) -> fx.Node | None:
    """The quantisation of a mean, which alone reads it."""
    while len(node.users) == 1:
        (node,) = node.users
        if not is_move(node):
            return node if node.target is QUANTIZE and node.args[3] is None else None
    return None


def _replace(program: fx.GraphModule, node: fx.Node, later: fx.Node, values: Values) -> None:
    image, (scale, zero) = node.args[0], (values[given] for given in later.args[1:3])  # type: ignore[index]
    assert isinstance(image, fx.Node)
    whole = torch.ops.secateur.global_average(image.meta["val"])
    with program.graph.inserting_before(node):
        made = program.graph.call_function(AVERAGE, (image,))
        given = buffer(program, scale, "scale"), buffer(program, zero, "zero"), None
        steps = program.graph.call_function(QUANTIZE, (made, *given))
        mean = program.graph.call_function(DEQUANTIZE, (steps, *given))
        flat = mean
        if node.meta["val"].dim() == 2:
            flat = program.graph.call_function(_ATEN.flatten.using_ints, (mean, 1))
    made.meta["val"] = mean.meta["val"] = whole
    steps.meta["val"] = whole.to(torch.uint8)
    flat.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(flat)
    program.graph.erase_node(node)
