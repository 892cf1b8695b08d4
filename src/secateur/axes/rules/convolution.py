"""Convolutions: channels are ``(groups, channels of a group)``; space is not to be cut."""

from __future__ import annotations

from typing import Any

from .._flow import weighs
from .._operator import Operand, Operator
from .._table import aten, register_rule

KERNEL = "positions of a convolution kernel"
SPACE = "a spatial dimension of a convolution's output"


def convolve(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None, groups: int, *, transposed: bool
) -> list[Any]:
    """Dimensions of the result: weight is (out, in / groups, *kernel), or (in, out / groups, *kernel)."""
    channel = len(input) - len(weight) + 1  # 0 for an input without a batch
    given, made = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        op.sum_over(op.unify(input[channel], given), input, weight)
    else:
        # One factor of the weight's grouped dimension is the groups, shared with the input.
        outer, inner = op.split(weight[0], groups, weight[0].size // groups)
        in_groups, in_each = op.split(input[channel], groups, input[channel].size // groups)
        op.number("groups", op.unify(outer, in_groups))
        op.sum_over(op.unify(in_each, inner if transposed else weight[1]), input, weight)
        made = op.product(outer, weight[1]) if transposed else weight[0]
    if bias is not None:
        op.unify(made, bias[0])
    op.pin(weight[2:], KERNEL)
    space = [op.fixed(size, SPACE) for size in op.shape[channel + 1 :]]
    return [*input[:channel], made, *space]


@register_rule(*aten("conv1d", "conv2d", "conv3d"), flow=weighs)
def conv(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    return convolve(op, input, weight, bias, groups, transposed=False)


@register_rule(*aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), flow=weighs)
def conv_transpose(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    return convolve(op, input, weight, bias, groups, transposed=True)


@register_rule(*aten("convolution", "_convolution"), flow=weighs)
def convolution(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, *flags: Any,
) -> Any:  # fmt: skip
    return convolve(op, input, weight, bias, groups, transposed=transposed)
