"""Operators that make tensors: sizes come from the code's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import loses, zeros
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _made(op: Operator, size: Sequence[int]) -> list[Any]:
    return [op.number("size", op.new(n), i) for i, n in enumerate(size)]


@register_rule(*aten("zeros"), flow=zeros)
def zeros_(op: Operator, size: Sequence[int], *settings: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("ones", "empty", "full", "rand", "randn"), flow=loses)
def made(op: Operator, size: Sequence[int], *settings: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("new_zeros"), flow=zeros)
def new_zeros(op: Operator, self: Operand, size: Sequence[int], *settings: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("new_ones", "new_empty", "new_full"), flow=loses)
def new_made(op: Operator, self: Operand, size: Sequence[int], *settings: Any, **kwargs: Any) -> Any:
    return _made(op, size)


@register_rule(*aten("zeros_like"), flow=zeros)
def zeros_like(op: Operator, self: Operand, *settings: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(*aten("ones_like", "empty_like", "full_like", "rand_like", "randn_like"), flow=loses)
def made_like(op: Operator, self: Operand, *settings: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(
    *aten("arange", "linspace", "logspace", "eye", "randint", "randperm", "scalar_tensor", "tril_indices",
          "triu_indices", "hann_window", "range", "empty_strided", "hamming_window"),
    flow=loses,
)  # fmt: skip
def counted(op: Operator, *args: Any, **kwargs: Any) -> Any:
    return [op.fixed(n, "its values are made from its positions") for n in op.shape]
