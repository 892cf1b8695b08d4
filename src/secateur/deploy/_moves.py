"""Operators behind which values are still on the grid of what they were dequantised from."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

_ATEN = torch.ops.aten
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


def is_move(node: fx.Node) -> bool:
    """Whether it gives back some of the values that it got, in another place or shape, and zeros at most."""
    return node.target in _MOVES or pads_zeros(node)


def origin_of(argument: Any) -> fx.Node:
    """The node whose values an argument has, before they were moved."""
    assert isinstance(argument, fx.Node)
    return origin_of(argument.args[0]) if is_move(argument) else argument


def pads_zeros(node: fx.Node) -> bool:
    """Whether it adds zeros around what it got."""
    if node.target is _ATEN.constant_pad_nd.default:
        return not (len(node.args) > 2 and bool(node.args[2]))
    if node.target is not _ATEN.pad.default:
        return False
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return str(mode) == "constant" and not value
