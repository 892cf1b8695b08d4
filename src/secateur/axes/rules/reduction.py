"""Reductions, softmax, and other operators for which the positions of a dimension compete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import Flow, Signal, keeps, loses
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _reduced(self: Operand, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(len(self)))
    return [d % max(len(self), 1) for d in ([dim] if isinstance(dim, int) else dim)] if len(self) else []


def _result(op: Operator, self: Operand, dims: Sequence[int], keepdim: bool) -> Any:
    rest = [op.new(1) if i in dims else dim for i, dim in enumerate(self) if keepdim or i not in dims]
    return rest if len(op.shapes) == 1 else [rest] * len(op.shapes)


@register_rule(*aten("sum", "nansum"), flow=keeps)
def total(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.sum_over(self[d], self)
    return _result(op, self, dims, keepdim)


@register_rule(*aten("linalg_vector_norm"), flow=keeps)
def vector_norm(
    op: Operator, self: Operand, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.sum_over(self[d], self)
        if not isinstance(ord, (int, float)) or ord <= 0:
            op.inexact(self[d], f"a norm of order {ord} is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("norm"), flow=keeps)
def norm(
    op: Operator, self: Operand, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    return vector_norm(op, self, 2 if p is None else p, dim, keepdim)


@register_rule(*aten("mean", "nanmean"), flow=keeps)
def mean(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.sum_over(self[d], self)
        op.inexact(self[d], "a mean is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("var", "std", "var_mean", "std_mean"), flow=loses)
def variance(
    op: Operator, self: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False,
    correction: Any = None,
) -> Any:  # fmt: skip
    dim = None if isinstance(dim, bool) else dim
    dims = _reduced(self, dim)
    for d in dims:
        op.inexact(self[d], "a variance is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("amax", "amin", "any", "all", "aminmax", "prod"), flow=loses)
def extreme(
    op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.inexact(self[d], f"{op.node.op._schema.name.removeprefix('aten::')} is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("max", "min"), flow=loses)
def maximum(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Operand):
        return op.broadcast(self, dim)
    if dim is not None and not isinstance(dim, int):
        raise NotImplementedError("named dimensions")
    if dim is None:
        return extreme(op, self)
    return extreme(op, self, dim, keepdim)


@register_rule(*aten("argmax", "argmin", "logsumexp", "median", "mode", "kthvalue", "nanmedian"), flow=loses)
def competition(op: Operator, self: Operand, *args: Any, dim: Any = None, keepdim: bool = False) -> Any:
    name = op.node.op._schema.name.removeprefix("aten::")
    if name == "kthvalue":
        args = args[1:]
    dim, keepdim = (*args, dim, keepdim)[0], (*args[1:], keepdim)[0]
    dims = _reduced(self, dim)
    for d in dims:
        op.pin(self[d], f"its positions compete ({name})")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax"), flow=loses)
def softmax(op: Operator, self: Operand, dim: int, dtype: Any = None) -> Any:
    if len(self):
        op.pin(self[dim], "its positions compete (softmax)")
    return list(self)


@register_rule(*aten("cumsum", "cumprod", "logcumsumexp"), flow=loses)
def cumulative(op: Operator, self: Operand, dim: int, dtype: Any = None) -> Any:
    if len(self):
        op.pin(self[dim], "it is accumulated in its order")
    return list(self)


@register_rule(*aten("cummax", "cummin"), flow=loses)
def cumulative_extreme(op: Operator, self: Operand, dim: int) -> Any:
    op.pin(self[dim], "it is accumulated in its order")
    return [list(self), list(self)]


@register_rule(*aten("sort", "msort", "argsort"), flow=loses)
def sort(op: Operator, self: Operand, *args: Any, dim: int = -1, **kwargs: Any) -> Any:
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    dim = 0 if op.node.op._schema.name == "aten::msort" else (*numbers, dim)[0]
    if len(self):
        op.pin(self[dim], "its positions compete (sort)")
    return list(self) if len(op.shapes) == 1 else [list(self), list(self)]


@register_rule(*aten("topk"), flow=loses)
def topk(op: Operator, self: Operand, k: int, dim: int = -1, *flags: Any, **kwargs: Any) -> Any:
    op.pin(self[dim], "its positions compete (topk)")
    best = op.replace(self, dim, op.fixed(k, "the best positions of another dimension"))
    return [best, best]


def _glu(flow: Flow) -> Signal:
    return flow["self"] or Signal()


@register_rule(*aten("glu"), flow=_glu)
def glu(op: Operator, self: Operand, dim: int = -1) -> Any:
    value, gate = op.cut(self[dim], [self[dim].size // 2] * 2)
    return op.replace(self, dim, op.unify(value, gate))
