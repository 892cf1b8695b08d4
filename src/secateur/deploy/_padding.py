"""Padding of quantised tensors, done on the integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ._constants import constants_of

_ATEN = torch.ops.aten
_DEQUANTIZE = torch.ops.secateur.dequantize.default
_PADS = {_ATEN.pad.default, _ATEN.constant_pad_nd.default}


def pad_integers(program: fx.GraphModule) -> None:
    """Let zeros be padded before integers are made floats, in place: a layer then reads what was dequantised.

    Zero is the integer ``zero_point``. Only where there is one scale, and the padding is by zeros.
    """
    values = constants_of(program)
    for node in list(program.graph.nodes):
        source = node.args[0] if node.args else None
        if node.target not in _PADS or not isinstance(source, fx.Node) or source.target is not _DEQUANTIZE:
            continue
        given: tuple[Any, ...] = source.args
        steps, scale, zero_point, axis = given
        if axis is not None or not _pads_zeros(node):
            continue
        with program.graph.inserting_before(node):
            zero = int(values[zero_point])
            padded = program.graph.call_function(_ATEN.constant_pad_nd.default, (steps, node.args[1], zero))
            padded.meta["val"] = node.meta["val"].to(torch.uint8)
            made = program.graph.call_function(_DEQUANTIZE, (padded, scale, zero_point, None))
            made.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(made)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _pads_zeros(node: fx.Node) -> bool:
    if node.target is _ATEN.constant_pad_nd.default:
        return not (len(node.args) > 2 and bool(node.args[2]))
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return str(mode) == "constant" and not value
