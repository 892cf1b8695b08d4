"""Reductions, softmax, and other operators for which the positions of a dimension compete."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import add, adds, keeps, loses
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _reduced(self: Operand, dim: Any) -> list[int]:
    """Numbers of the reduced dimensions; None and an empty list stand for all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(len(self)))
    width = max(len(self), 1)
    return [d % width for d in ([dim] if isinstance(dim, int) else dim) if len(self)]


def _result(op: Operator, self: Operand, dims: Sequence[int], keepdim: bool) -> Any:
    rest = [op.new(1) if i in dims else dim for i, dim in enumerate(self) if keepdim or i not in dims]
    return rest if len(op.shapes) == 1 else [rest] * len(op.shapes)


def _name(op: Operator) -> str:
    return op.node.op._schema.name.removeprefix("aten::")


@register_rule(*aten("sum", "nansum"), flow=keeps)
def total(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.sum_over(self[d], self)
    return _result(op, self, dims, keepdim)


@register_rule(*aten("any", "count_nonzero"), flow=keeps)
def count(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    return total(op, self, dim, keepdim)


@register_rule(*aten("linalg_vector_norm"), flow=keeps)
def vector_norm(
    op: Operator, self: Operand, ord: Any = 2, dim: Any = None, keepdim: bool = False,
    dtype: Any = None,
) -> Any:  # fmt: skip
    dims = _reduced(self, dim)
    for d in dims:
        op.sum_over(self[d], self)
        if ord < 0:
            op.inexact(self[d], f"a norm of order {ord} is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("norm"), flow=keeps)
def norm(
    op: Operator, self: Operand, p: Any = 2, dim: Any = None, keepdim: bool = False,
    dtype: Any = None,
) -> Any:  # fmt: skip
    return vector_norm(op, self, 2 if p is None else p, dim, keepdim)


@register_rule(*aten("mean", "nanmean"), flow=keeps)
def mean(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.average(self[d], self, "a mean is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("var", "std", "var_mean", "std_mean"), flow=keeps)
def variance(
    op: Operator, self: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False,
    correction: Any = None,
) -> Any:  # fmt: skip
    dims = _reduced(self, None if isinstance(dim, bool) else dim)
    for d in dims:
        op.inexact(self[d], "a variance is taken over it")
    return _result(op, self, dims, keepdim)


@register_rule(*aten("amax", "amin", "all", "aminmax", "prod"), flow=keeps)
def extreme(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.inexact(self[d], f"{_name(op)} is taken over it")
    return _result(op, self, dims, keepdim)


def _indices(op: Operator, self: Operand) -> None:
    """The second result says where the values of the first stood."""
    for dim in self if len(op.shapes) > 1 else ():
        op.inexact_if_used(1, dim, "indices are something else where all values are zero")


@register_rule(*aten("max", "min"), flow=lambda flow: add(*flow.tensors()))
def maximum(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Operand):
        return op.broadcast(self, dim)
    _indices(op, self)
    if dim is not None and len(self):
        op.points(1, self[dim])
    return extreme(op, self, dim, keepdim)


def _competition(op: Operator, self: Operand, dim: Any, keepdim: bool) -> Any:
    dims = _reduced(self, dim)
    for d in dims:
        op.pin(self[d], f"its positions compete ({_name(op)})")
    _indices(op, self)
    return _result(op, self, dims, keepdim)


@register_rule(*aten("logsumexp"), flow=loses)
def logsumexp(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    return _competition(op, self, dim, keepdim)


@register_rule(*aten("argmax", "argmin"), flow=loses)
def winner(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    dims = _reduced(self, dim)
    if len(dims) != 1:
        return _competition(op, self, dim, keepdim)
    op.compete(self[dims[0]], f"its positions compete ({_name(op)})")
    op.points(0, self[dims[0]])
    return _result(op, self, dims, keepdim)


@register_rule(*aten("median", "nanmedian"), flow=keeps)
def median(op: Operator, self: Operand, dim: Any = None, keepdim: bool = False) -> Any:
    return _competition(op, self, dim, keepdim)


@register_rule(*aten("mode"), flow=keeps)
def mode(op: Operator, self: Operand, dim: int = -1, keepdim: bool = False) -> Any:
    return _competition(op, self, dim, keepdim)


@register_rule(*aten("kthvalue"), flow=keeps)
def kthvalue(op: Operator, self: Operand, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    return _competition(op, self, dim, keepdim)


@register_rule(*aten("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax"), flow=loses)
def softmax(op: Operator, self: Operand, dim: int, dtype: Any = None) -> Any:
    if len(self):
        op.compete(self[dim], "its positions compete (softmax)")
    return list(self)


@register_rule(*aten("cumsum"), flow=loses)
def cumsum(op: Operator, self: Operand, dim: int, dtype: Any = None) -> Any:
    if len(self):
        op.sum_over(self[dim], self)
        if len(self) == 1 and self.address is not None and self.address.counted:
            op.points(0, self.address.dim, counted=True)  # the ends of groups
    return list(self)


@register_rule(*aten("logcumsumexp"), flow=loses)
def logcumsumexp(op: Operator, self: Operand, dim: int) -> Any:
    return cumulative(op, self, dim)


@register_rule(*aten("cumprod", "cummax", "cummin"), flow=keeps)
def cumulative(op: Operator, self: Operand, dim: int, dtype: Any = None) -> Any:
    if len(self):
        op.pin(self[dim], "it is accumulated in its order")
    _indices(op, self)
    return list(self) if len(op.shapes) == 1 else [list(self)] * 2


@register_rule(*aten("argsort"), flow=loses)
def argsort(op: Operator, self: Operand, dim: int = -1, descending: bool = False, stable: Any = None) -> Any:
    if len(self):
        op.pin(self[dim], "its positions compete (sort)")
    return list(self)


@register_rule(*aten("sort"), flow=keeps)
def sort(op: Operator, self: Operand, dim: int = -1, descending: bool = False, stable: Any = None) -> Any:
    _indices(op, self)
    result = argsort(op, self, dim)
    if len(self):
        op.points(1, self[dim])
    if self.address is not None and not self.address.counted:  # of fewer positions the order is the same
        op.points(0, self.address.dim)
        op.addressed.add(self.id)
    return [result] * 2


@register_rule(*aten("msort"), flow=keeps)
def msort(op: Operator, self: Operand) -> Any:
    return argsort(op, self, 0)


@register_rule(*aten("topk"), flow=keeps)
def topk(op: Operator, self: Operand, k: int, dim: int = -1, *flags: Any, **kwargs: Any) -> Any:
    op.compete(self[dim], "its positions compete (topk)")
    op.keep_at_least(self[dim], k)
    op.points(1, self[dim])
    _indices(op, self)
    best = op.replace(self, dim, op.fixed(k, "the best positions of another dimension"))
    return [best, best]


@register_rule(*aten("glu"), flow=adds("self"))
def glu(op: Operator, self: Operand, dim: int = -1) -> Any:
    value, gate = op.cut(self[dim], [self[dim].size // 2] * 2)
    return op.replace(self, dim, op.unify(value, gate))


@register_rule(*aten("trace"), flow=keeps)
def trace(op: Operator, self: Operand) -> Any:
    if self[0].size == self[1].size:
        op.sum_over(op.unify(self[0], self[1]), self)
    else:
        op.pin(self, "its diagonal is taken")
    return []


@register_rule(*aten("_fft_r2c", "_fft_c2r", "_fft_c2c"), flow=keeps)
def fft(op: Operator, self: Operand, dim: Sequence[int], *args: Any) -> Any:
    dims = list(self)
    for d in dim:
        op.pin(self[d], "a Fourier transform runs over it")
        dims[d] = op.fixed(op.shape[d], "frequencies of a Fourier transform")
    return dims


@register_rule(*aten("nll_loss_forward"))
def nll_loss(
    op: Operator, self: Operand, target: Operand, weight: Operand | None, reduction: int, *args: Any
) -> Any:
    op.pin(self[-1], "its positions compete (classes)")
    op.pin(weight or [], "its positions compete (classes)")
    if len(target) and len(self) > 1:
        op.unify(self[0], target[0])
        if reduction:
            op.inexact(target[0], "a loss is taken over it")
    return [[] if reduction else list(target), []]
