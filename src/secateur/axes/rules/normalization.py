"""Normalisation layers: which dimension their statistics run over decides what is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import normalizes
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _channel(op: Operator, dim: Any, *tensors: Operand | None) -> None:
    for tensor in tensors:
        if tensor is not None:
            op.unify(dim, tensor[0])


@register_rule(*aten("batch_norm", "instance_norm"), flow=normalizes)
def batch_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand | None, running_var: Operand | None, *settings: Any,
) -> Any:  # fmt: skip
    _channel(op, input[1], weight, bias, running_mean, running_var)
    return list(input)


@register_rule(
    *aten("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm"),
    flow=normalizes,
)  # fmt: skip
def native_batch_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand | None, running_var: Operand | None, *settings: Any,
) -> Any:  # fmt: skip
    _channel(op, input[1], weight, bias, running_mean, running_var)
    # The saved statistics are for the backward pass.
    rest = [[op.fixed(n, "saved statistics") for n in shape] for shape in op.shapes[1:]]
    return [list(input), *rest]


def _normalized(op: Operator, input: Operand, shape: Sequence[int], *affine: Operand | None) -> list[Any]:
    dims = input[len(input) - len(shape) :]
    for position, dim in enumerate(dims):
        op.number("normalized_shape", dim, position)
        for tensor in affine:
            if tensor is not None:
                op.unify(dim, tensor[position])
    return dims


@register_rule(*aten("layer_norm", "native_layer_norm"), flow=normalizes)
def layer_norm(
    op: Operator, input: Operand, normalized_shape: Sequence[int], weight: Operand | None = None,
    bias: Operand | None = None, eps: float = 1e-5, *settings: Any,
) -> Any:  # fmt: skip
    for dim in _normalized(op, input, normalized_shape, weight, bias):
        op.inexact(dim, "LayerNorm's mean and variance are taken over it")
    if len(op.shapes) == 1:
        return list(input)
    return [list(input), *([*input[: len(shape)]] for shape in op.shapes[1:])]


@register_rule(*aten("rms_norm"), flow=normalizes)
def rms_norm(
    op: Operator, input: Operand, normalized_shape: Sequence[int], weight: Operand | None = None,
    eps: float | None = None,
) -> Any:  # fmt: skip
    for dim in _normalized(op, input, normalized_shape, weight):
        op.inexact(dim, "RMSNorm's mean square is taken over it")
    return list(input)


@register_rule(*aten("group_norm"), flow=normalizes)
def group_norm(
    op: Operator, input: Operand, num_groups: int, weight: Operand | None = None,
    bias: Operand | None = None, eps: float = 1e-5, *settings: Any,
) -> Any:  # fmt: skip
    _channel(op, input[1], weight, bias)
    groups, inner = op.split(input[1], num_groups, input[1].size // num_groups)
    op.number("num_groups", groups)
    op.inexact(inner, "GroupNorm's mean and variance are taken over it")
    return list(input)


@register_rule(*aten("native_group_norm"), flow=normalizes)
def native_group_norm(
    op: Operator, input: Operand, weight: Operand | None, bias: Operand | None, N: int, C: int,
    HxW: int, group: int, eps: float,
) -> Any:  # fmt: skip
    _channel(op, input[1], weight, bias)
    groups, inner = op.split(input[1], group, C // group)
    op.number("C", input[1])
    op.number("group", groups)
    op.inexact(inner, "GroupNorm's mean and variance are taken over it")
    return [list(input), [input[0], groups], [input[0], groups]]
