"""Operators that change nothing, taken out so that patterns of others can be seen."""

from __future__ import annotations

from torch import Tensor, fx
from torch import ops as _ops

_ATEN = _ops.aten
_CASTS = {_ATEN.to.dtype, _ATEN.to.dtype_layout, _ATEN.to.device, _ATEN._to_copy.default}
_NOTHING = {_ATEN.alias.default, _ATEN.detach.default, _ATEN.detach_.default, _ATEN.lift_fresh_copy.default}
_ASSERTIONS = {_ATEN._assert_tensor_metadata.default}


def drop_identities(program: fx.GraphModule) -> None:
    """Take out casts to the type that a tensor has, aliases, dropout in eval mode and assertions on types."""
    for node in list(program.graph.nodes):
        if node.target in _ASSERTIONS:
            program.graph.erase_node(node)
        elif _is_identity(node):
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)


def _is_identity(node: fx.Node) -> bool:
    if node.target in _NOTHING:
        return True
    if node.target is _ATEN.dropout.default:
        return not node.args[2]
    if node.target not in _CASTS or not isinstance(node.args[0], fx.Node):
        return False
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    return isinstance(before, Tensor) and isinstance(after, Tensor) and _alike(before, after)


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape)
