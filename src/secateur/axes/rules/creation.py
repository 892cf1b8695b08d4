"""Operators that make tensors: their sizes come from the code's numbers."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import adds, loses, zeros
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _made(op: Operator, size: Sequence[int]) -> list[Any]:
    return [op.number("size", op.new(n), i) for i, n in enumerate(size)]


@register_rule(*aten("zeros"), flow=zeros)
def zeros_(op: Operator, size: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("ones", "empty", "rand", "randn"), flow=loses)
def made(op: Operator, size: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("full"), flow=adds("fill_value"))
def full(op: Operator, size: Sequence[int], fill_value: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("new_zeros"), flow=zeros)
def new_zeros(op: Operator, self: Operand, size: Sequence[int], **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("new_ones", "new_empty"), flow=loses)
def new_made(op: Operator, self: Operand, size: Sequence[int], **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("new_full"), flow=adds("fill_value"))
def new_full(op: Operator, self: Operand, size: Sequence[int], fill_value: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("zeros_like"), flow=zeros)
def zeros_like(op: Operator, self: Operand, **kwargs: Any) -> Any:
    return list(self)


@register_rule(*aten("ones_like", "empty_like", "rand_like", "randn_like", "randint_like"), flow=loses)
def made_like(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(*aten("full_like"), flow=adds("fill_value"))
def full_like(op: Operator, self: Operand, fill_value: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(
    *aten(
        "arange", "linspace", "logspace", "eye", "range", "randint", "randperm", "scalar_tensor",
        "tril_indices", "triu_indices", "hann_window", "hamming_window", "blackman_window", "bartlett_window",
        "kaiser_window", "fft_fftfreq", "fft_rfftfreq", "empty_strided", "empty_permuted",
        "new_empty_strided", "affine_grid_generator",
    ),
    *aten("normal", in_place=False),
    flow=loses,
)  # fmt: skip
def counted(op: Operator, *args: Any, **kwargs: Any) -> Any:
    for operand in args:
        if isinstance(operand, Operand):
            op.pin(operand, "a tensor is made from its values")
    return [op.fixed(n, "its values are made from its positions") for n in op.shape]
