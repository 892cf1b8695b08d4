"""Operators that are weighted sums, and how their operands are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..axes import Operand, Operator
from ..capture import ModuleCall, Node
from ._layouts import Convolution, Dense, Layout, Stacked


@dataclass(frozen=True)
class Sum:
    """A weighted sum in a recorded graph: ids of its operands there, and how they are laid out.

    ``result`` is what it gives, None where the node does more than the sum. ``hidden``: it is a part of
    a module that was recorded whole, and only its result is seen, as ``activation`` too.
    """

    node: Node
    activation: int
    weight: int
    bias: int | None
    layout: Layout
    result: int | None
    hidden: bool = False


def weighted_sum(operator: Operator | None) -> Sum | None:
    """How an operator is a weighted sum; None if it is none that can be solved for."""
    if operator is None:
        return None
    build = _BUILDERS.get(getattr(operator.node.op, "overloadpacket", None))
    return build(operator, operator.arguments) if build else None


def hidden_projection(operator: Operator | None) -> Sum | None:
    """The output projection of an ``nn.MultiheadAttention``, which is recorded whole."""
    op = None if operator is None else operator.node.op
    if operator is None or not isinstance(op, ModuleCall) or op.type is not nn.MultiheadAttention:
        return None
    own: Mapping[str, Operand] = operator.arguments["module"]
    bias = own.get("out_proj.bias")
    return Sum(
        operator.node,
        operator.node.outputs[0],
        own["out_proj.weight"].id,
        None if bias is None else bias.id,
        Dense(swapped=not op.settings["batch_first"]),
        operator.node.outputs[0],
        hidden=True,
    )


def _sum(
    operator: Operator, activation: Operand, weight: Operand, bias: Operand | None, layout: Layout
) -> Sum:
    node, bias_id = operator.node, None if bias is None else bias.id
    return Sum(node, activation.id, weight.id, bias_id, layout, node.outputs[0])


def _linear(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    return _sum(operator, given["input"], given["weight"], given.get("bias"), Dense())


def _addmm(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        return None
    return _sum(operator, given["mat1"], given["mat2"], given["self"], Dense(transposed=True))


def _matmul(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    left, right = given["self"], given["other"]
    if len(right) == 2:
        return _sum(operator, left, right, None, Dense(transposed=True))
    return _sum(operator, left, right, None, Stacked()) if len(left) == len(right) == 3 else None


def _convolution(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    weight = given["weight"]
    space = len(weight) - 2

    def numbers(name: str, default: int) -> tuple[int, ...] | str:
        value = given.get(name, default)
        if isinstance(value, str):
            return value
        row = [value] if isinstance(value, int) else list(value)
        return tuple(row * space if len(row) == 1 else row)

    layout = Convolution(
        stride=tuple(map(int, numbers("stride", 1))),
        padding=numbers("padding", 0),
        dilation=tuple(map(int, numbers("dilation", 1))),
        groups=given.get("groups", 1),
        output_padding=tuple(map(int, numbers("output_padding", 0))),
        transposed=given.get("transposed", "transpose" in str(operator.node.op)),
    )
    return _sum(operator, given["input"], weight, given.get("bias"), layout)


def _recurrent(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    """The input projection of the first layer; of two directions the forward one."""
    if "input" not in given or "params" not in given:
        return None
    params, (has_biases, *_) = given["params"], given["settings"]
    bias = params[2] if has_biases else None
    return replace(_sum(operator, given["input"], params[0], bias, Dense()), result=None)


def further_projections(operator: Operator | None) -> list[int]:
    """Ids of a recurrent layer's input projections but the first: of other directions and layers."""
    packet = None if operator is None else getattr(operator.node.op, "overloadpacket", None)
    if operator is None or packet not in _RECURRENT or "params" not in operator.arguments:
        return []
    params, (_, layers, _, _, bidirectional, *_) = (operator.arguments[key] for key in ("params", "settings"))
    each = len(params) // (layers * (2 if bidirectional else 1))
    return [weight.id for weight in params[each::each]]


_aten = torch.ops.aten
_RECURRENT = (_aten.lstm, _aten.gru, _aten.rnn_tanh, _aten.rnn_relu)
_BUILDERS: dict[Any, Callable[[Operator, Mapping[str, Any]], Sum | None]] = {
    _aten.linear: _linear,
    _aten.addmm: _addmm,
    _aten.matmul: _matmul,
    _aten.mm: _matmul,
    _aten.bmm: _matmul,
    **dict.fromkeys(
        [
            _aten.conv1d,
            _aten.conv2d,
            _aten.conv3d,
            _aten.conv_transpose1d,
            _aten.conv_transpose2d,
            _aten.conv_transpose3d,
            _aten.convolution,
        ],
        _convolution,
    ),
    **dict.fromkeys(_RECURRENT, _recurrent),
}
