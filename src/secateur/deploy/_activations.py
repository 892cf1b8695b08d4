"""Activations that a kernel takes in: they cut values off at two ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

_ATEN = torch.ops.aten
_INFINITY = float("inf")
_DEFAULTS = {
    _ATEN.relu: (0.0, _INFINITY),
    _ATEN.relu_: (0.0, _INFINITY),
    _ATEN.relu6: (0.0, 6.0),
    _ATEN.relu6_: (0.0, 6.0),
    _ATEN.hardtanh: (-1.0, 1.0),
    _ATEN.hardtanh_: (-1.0, 1.0),
    _ATEN.clamp: (-_INFINITY, _INFINITY),
    _ATEN.clamp_: (-_INFINITY, _INFINITY),
}
"""Where they cut off, unless their further arguments say so."""


def bounds_of(node: fx.Node) -> tuple[float, float] | None:
    """The ends at which an activation cuts off; None for other operators, and for ends that are tensors."""
    packet: Any = getattr(node.target, "overloadpacket", None)
    default = _DEFAULTS.get(packet)
    given: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values(), None, None)
    if default is None or any(isinstance(end, fx.Node) for end in given):
        return None
    low, high = (own if end is None else float(end) for own, end in zip(default, given[:2], strict=True))
    return low, high
