"""Convolutions: channels are ``(groups, channels of a group)``; space is not to be cut."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import weighs
from .._operator import Operand, Operator
from .._table import aten, register_rule

KERNEL = "positions of a convolution kernel"
SPACE = "a spatial dimension of a convolution"


def convolve(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None, groups: int, *,
    transposed: bool = False, window: Sequence[Any] = (),
) -> list[Any]:  # fmt: skip
    """Dimensions of the result.

    The weight is (out, in / groups, *kernel), or (in, out / groups, *kernel) when transposed.
    ``window`` is (stride, padding): they tell whether a kernel of size 1 leaves space alone.
    """
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
    space = list(input[channel + 1 :])
    for place, size in enumerate(op.shape[channel + 1 :]):
        if not _point_wise(space[place].size, size, weight[2 + place].size, window, place):
            op.pin(space[place], SPACE)
            space[place] = op.fixed(size, SPACE)
    return [*input[:channel], made, *space]


def _point_wise(before: int, after: int, taps: int, window: Sequence[Any], place: int) -> bool:
    """Whether every position of the result comes from the one position of the input."""
    if before != after or taps != 1 or not window:
        return False
    numbers = (0 if isinstance(n, str) else n for n in window)  # "same" pads a single tap by none
    stride, padding = (n if isinstance(n, int) else n[place % len(n)] for n in numbers)
    return stride == 1 and padding == 0


@register_rule(*aten("conv1d", "conv2d", "conv3d"), flow=weighs)
def conv(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    return convolve(op, input, weight, bias, groups, window=(stride, padding))


@register_rule(*aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), flow=weighs)
def conv_transpose(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    window = (stride, padding)
    return convolve(op, input, weight, bias, groups, transposed=True, window=window)


@register_rule(*aten("convolution", "_convolution"), flow=weighs)
def convolution(
    op: Operator, input: Operand, weight: Operand, bias: Operand | None, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, *flags: Any,
) -> Any:  # fmt: skip
    window = (stride, padding)
    return convolve(op, input, weight, bias, groups, transposed=transposed, window=window)


@register_rule(*aten("conv_tbc"), flow=weighs)
def conv_tbc(op: Operator, input: Operand, weight: Operand, bias: Operand, pad: int = 0) -> Any:
    op.sum_over(op.unify(input[2], weight[1]), input, weight)
    op.pin([input[0], weight[0]], SPACE)
    return [op.fixed(op.shape[0], SPACE), input[1], op.unify(weight[2], bias[0])]


@register_rule("torchvision::deform_conv2d", flow=weighs)
def deform_conv2d(
    op: Operator, input: Operand, weight: Operand, offset: Operand, mask: Operand, bias: Operand,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    groups: int, offset_groups: int, use_mask: bool,
) -> Any:  # fmt: skip
    if offset_groups > 1:
        # The channels of a group move by one offset: as many have to stay in each.
        outer, _ = op.split(input[1], offset_groups, input[1].size // offset_groups)
        op.pin(outer, "groups of a deformable convolution's offsets")
    for field in (offset, mask):
        op.pin(field[1:], "offsets and masks of a deformable convolution")
        if field[0].size == input[0].size:  # an unused mask has no batch
            op.unify(field[0], input[0])
    return convolve(op, input, weight, bias, groups)
