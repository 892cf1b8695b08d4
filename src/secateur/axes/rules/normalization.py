"""Normalisation layers: which dimension their statistics run over decides what is exact."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import Flow, Signal, multiply, normalizes
from .._operator import Operand, Operator
from .._table import aten, register_rule

STATISTICS = "mean and variance are taken over it"


def _batch_norm(op: Operator, input: Operand, tensors: Sequence[Operand | None], *, batch: bool) -> Any:
    """Channels go with their parameters; with statistics of the batch, all else changes them."""
    for tensor in tensors:
        if tensor is not None:
            op.unify(input[1], tensor[0])
    for dim in (input[0], *input[2:]) if batch else ():
        op.inexact(dim, f"BatchNorm's {STATISTICS}")
    if len(op.shapes) == 1:
        return list(input)
    # Saved statistics of the channels, for the backward pass.
    rest = [
        [input[1]] if shape == (input[1].size,) else [op.fixed(n, "saved statistics") for n in shape]
        for shape in op.shapes[1:]
    ]
    op.inexact_if_used(1, input[1], "statistics are not zero")
    op.inexact_if_used(2, input[1], "statistics are not zero")
    return [list(input), *rest]


@register_rule(
    *aten("batch_norm", "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"),
    flow=normalizes,
)
def batch_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand | None, running_var: Operand | None, training: bool, *args: Any,
) -> Any:  # fmt: skip
    return _batch_norm(op, input, (weight, bias, running_mean, running_var), batch=training)


@register_rule(*aten("_native_batch_norm_legit_no_training", "_batch_norm_no_update"), flow=normalizes)
def batch_norm_no_training(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand, running_var: Operand, *args: Any,
) -> Any:  # fmt: skip
    return _batch_norm(op, input, (weight, bias, running_mean, running_var), batch=False)


@register_rule(*aten("_native_batch_norm_legit"), flow=normalizes)
def batch_norm_legit(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None, *args: Any
) -> Any:
    running = [a for a in args if isinstance(a, Operand)]
    return _batch_norm(op, input, (weight, bias, *running), batch=args[len(running)])


@register_rule(*aten("instance_norm"), flow=normalizes)
def instance_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand | None, running_var: Operand | None, use_input_stats: bool, *args: Any,
) -> Any:  # fmt: skip
    for dim in input[2:] if use_input_stats else ():
        op.inexact(dim, f"InstanceNorm's {STATISTICS}")
    return _batch_norm(op, input, (weight, bias, running_mean, running_var), batch=False)


def _normalized(
    op: Operator,
    input: Operand,
    shape: Sequence[int],
    affine: Sequence[Operand | None],
) -> Any:
    lead = len(input) - len(shape)
    for position, dim in enumerate(input[lead:]):
        op.number("normalized_shape", dim, position)
        for tensor in affine:
            if tensor is not None:
                op.unify(dim, tensor[position])
    if len(op.shapes) == 1:
        return list(input)
    for result in range(1, len(op.shapes)):
        for dim in input[:lead]:
            op.inexact_if_used(result, dim, "statistics are not zero")
    return [list(input), *([*input[:lead], *map(op.new, s[lead:])] for s in op.shapes[1:])]


@register_rule(*aten("layer_norm", "native_layer_norm"), flow=normalizes)
def layer_norm(
    op: Operator, input: Operand, normalized_shape: Sequence[int], weight: Operand | None = None,
    bias: Operand | None = None, eps: float = 1e-5, *args: Any,
) -> Any:  # fmt: skip
    for dim in input[len(input) - len(normalized_shape) :]:
        op.inexact(dim, f"LayerNorm's {STATISTICS}")
    return _normalized(op, input, normalized_shape, (weight, bias))


def _keeps_zero(flow: Flow) -> Signal:
    return multiply(flow["input"], flow["weight"])


@register_rule(*aten("rms_norm", "_fused_rms_norm"), flow=_keeps_zero)
def rms_norm(
    op: Operator, input: Operand, normalized_shape: Sequence[int], weight: Operand | None = None,
    eps: float | None = None,
) -> Any:  # fmt: skip
    for dim in input[len(input) - len(normalized_shape) :]:
        op.average(dim, input, "RMSNorm's mean square is taken over it", normalises=True)
    return _normalized(op, input, normalized_shape, (weight,))


def _group_norm(
    op: Operator, input: Operand, groups: int, affine: Sequence[Operand | None]
) -> tuple[Any, Any]:
    for tensor in affine:
        if tensor is not None:
            op.unify(input[1], tensor[0])
    outer, inner = op.split(input[1], groups, input[1].size // groups)
    for dim in (inner, *input[2:]):
        op.inexact(dim, f"GroupNorm's {STATISTICS}")
    return outer, inner


@register_rule(*aten("group_norm"), flow=normalizes)
def group_norm(
    op: Operator, input: Operand, num_groups: int, weight: Operand | None = None,
    bias: Operand | None = None, eps: float = 1e-5, *args: Any,
) -> Any:  # fmt: skip
    groups, _ = _group_norm(op, input, num_groups, (weight, bias))
    op.number("num_groups", groups)
    return list(input)


@register_rule(*aten("native_group_norm"), flow=normalizes)
def native_group_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None, N: int, C: int,
    HxW: int, group: int, eps: float,
) -> Any:  # fmt: skip
    groups, _ = _group_norm(op, input, group, (weight, bias))
    for argument, dim in (("N", input[0]), ("C", input[1]), ("group", groups)):
        op.number(argument, dim)
    op.number("HxW", op.product(*input[2:]))
    for result in (1, 2):
        for dim in (input[0], groups):
            op.inexact_if_used(result, dim, "statistics are not zero")
    return [list(input), [input[0], groups], [input[0], groups]]


def _rescaled(flow: Flow) -> Signal:
    # Zero where the gains are, and along the dimensions of a norm where the directions are.
    directions, gains = flow["v"] or Signal(), flow["g"] or Signal()
    carried = directions.carried | gains.carried
    return Signal(carried, carried - gains.clean - (directions.clean - gains.carried))


@register_rule(*aten("_weight_norm", "_weight_norm_interface"), flow=_rescaled)
def weight_norm(op: Operator, v: Operand, g: Operand, dim: int = 0) -> Any:
    for position, own in enumerate(v):
        if position == dim % len(v):
            op.unify(own, g[position])
            op.spare(v, own)
            op.inexact_if_used(1, own, "norms are not zero")
        else:
            op.sum_over(own, v)
    return list(v) if len(op.shapes) == 1 else [list(v), list(g)]
