"""Linear maps: linear layers, the matmul family, einsum, bilinear forms, distances."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import Flow, Signal, add, keeps, multiplies, multiply, weighs
from .._operator import Operand, Operator
from .._table import aten, register_rule


@register_rule(*aten("linear"), flow=weighs)
def linear(op: Operator, input: Operand, weight: Operand, bias: Operand | None = None) -> Any:
    op.sum_over(op.unify(input[-1], weight[-1]), input, weight)
    if len(weight) == 1:
        return input[:-1]
    if bias is not None and len(bias):
        op.unify(weight[0], bias[0])
    return [*input[:-1], weight[0]]


def contract(op: Operator, a: Operand, b: Operand) -> list[Any]:
    """Dimensions of ``a @ b``; between two activations they are those of attention."""
    row = [] if len(a) == 1 else [a[-2]]
    column = [] if len(b) == 1 else [b[-1]]
    shared = op.unify(a[-1], b[-2] if len(b) > 1 else b[0])
    op.sum_over(shared, a, b)
    batch = op.broadcast(a[:-2], b[:-2])
    if batch and not (a.is_state or b.is_state):
        op.role(shared, "features")
        for dim in column:
            op.role(dim, "features")
        for dim in batch:
            op.role(dim, "heads")
    return [*batch, *row, *column]


@register_rule(*aten("matmul", "mm", "bmm", "mv", "dot", "vdot", "_int_mm"), flow=multiplies)
def matmul(op: Operator, self: Operand, other: Operand) -> Any:
    return contract(op, self, other)


def _adds_product(first: str, second: str) -> Any:
    return lambda flow: add(flow["self"], multiply(flow[first], flow[second]))


@register_rule(*aten("addmm"), flow=_adds_product("mat1", "mat2"))
def addmm(op: Operator, self: Operand, mat1: Operand, mat2: Operand, beta: Any = 1, alpha: Any = 1) -> Any:
    return op.broadcast(contract(op, mat1, mat2), self)


@register_rule(*aten("_addmm_activation"), flow=_adds_product("mat1", "mat2"))
def addmm_activation(
    op: Operator, self: Operand, mat1: Operand, mat2: Operand, beta: Any = 1, alpha: Any = 1,
    use_gelu: bool = False,
) -> Any:  # fmt: skip
    return op.broadcast(contract(op, mat1, mat2), self)


@register_rule(*aten("baddbmm", "addbmm"), flow=_adds_product("batch1", "batch2"))
def baddbmm(
    op: Operator, self: Operand, batch1: Operand, batch2: Operand, beta: Any = 1, alpha: Any = 1
) -> Any:
    dims = contract(op, batch1, batch2)
    if len(op.shape) == 2:  # addbmm sums over the batch
        op.sum_over(dims[0], batch1, batch2)
        dims = dims[1:]
    return op.broadcast(dims, self)


@register_rule(*aten("addmv", "addr"), flow=_adds_product("mat", "vec"))
def addmv(op: Operator, self: Operand, mat: Operand, vec: Operand, beta: Any = 1, alpha: Any = 1) -> Any:
    dims = contract(op, mat, vec) if len(mat) == 2 else [mat[0], vec[0]]
    return op.broadcast(dims, self)


@register_rule(*aten("tensordot"), flow=multiplies)
def tensordot(
    op: Operator, self: Operand, other: Operand, dims_self: Sequence[int], dims_other: Sequence[int]
) -> Any:
    mine = [dim % len(self) for dim in dims_self]
    theirs = [dim % len(other) for dim in dims_other]
    for left, right in zip(mine, theirs, strict=True):
        op.sum_over(op.unify(self[left], other[right]), self, other)
    rest = [dim for position, dim in enumerate(self) if position not in mine]
    return [*rest, *(dim for position, dim in enumerate(other) if position not in theirs)]


@register_rule(*aten("outer", "ger"), flow=multiplies)
def outer(op: Operator, self: Operand, vec2: Operand) -> Any:
    return [self[0], vec2[0]]


@register_rule(*aten("einsum"), flow=multiplies)
def einsum(op: Operator, equation: str, tensors: Sequence[Operand], path: Any = None) -> Any:
    left, arrow, right = equation.replace(" ", "").partition("->")
    letters: dict[str, Any] = {}
    ellipsis: list[list[Any]] = []
    carriers: dict[str, list[Operand]] = {}
    for term, tensor in zip(left.split(","), tensors, strict=True):
        names, dims = _einsum_dims(term, tensor)
        ellipsis.append(dims)
        for name, dim in names:
            if name in letters and 1 in (dim.size, letters[name].size):
                letters[name] = dim if letters[name].size == 1 else letters[name]
            else:
                letters[name] = op.unify(letters.get(name, dim), dim)
            carriers.setdefault(name, []).append(tensor)
    shared = op.broadcast(*ellipsis)
    if not arrow:
        right = "..." * bool(shared) + "".join(sorted(n for n in letters if left.count(n) == 1))
    before, dots, after = right.partition("...")
    for dim in () if dots else shared:
        op.sum_over(dim, *tensors)
    for name, dim in letters.items():
        if name not in right:
            op.sum_over(dim, *carriers[name])
            if len(tensors) > 1 and not any(t.is_state for t in carriers[name]):
                op.role(dim, "features")
    return [*(letters[n] for n in before), *(shared if dots else []), *(letters[n] for n in after)]


def _einsum_dims(term: str, tensor: Operand) -> tuple[list[tuple[str, Any]], list[Any]]:
    before, dots, after = term.partition("...")
    end = len(tensor) - len(after) if dots else len(before)
    last = tensor[end:] if dots else []
    named = [*zip(before, tensor[: len(before)], strict=True), *zip(after, last, strict=True)]
    return named, tensor[len(before) : end]


def _bilinear(flow: Flow) -> Signal:
    product = multiply(flow["input1"], flow["input2"], flow["weight"])
    return add(product, flow["bias"]) if flow["bias"] else product


@register_rule(*aten("bilinear"), flow=_bilinear)
def bilinear(
    op: Operator, input1: Operand, input2: Operand, weight: Operand, bias: Operand | None = None
) -> Any:
    op.sum_over(op.unify(input1[-1], weight[1]), input1, weight)
    op.sum_over(op.unify(input2[-1], weight[2]), input2, weight)
    if bias is not None:
        op.unify(weight[0], bias[0])
    return [*op.broadcast(input1[:-1], input2[:-1]), weight[0]]


def _aligned(op: Operator, dim: Any, block: int) -> None:
    """Only whole blocks go: the kernel wants rows of a multiple of 16 bytes."""
    reason = "rows of a grouped product are a multiple of 16 bytes"
    if dim.size % block:
        op.pin(dim, reason)
    else:
        op.pin(op.split(dim, dim.size // block, block)[1], reason)


def _choose(op: Operator, stacked: Any, offs: Operand, reason: str) -> None:
    """Groups of rows and a stack of matrices: these are a router's experts if it counted the rows."""
    counted = offs.address is not None and offs.address.counted
    op.unify(offs[0], stacked)
    op.route(stacked) if counted else op.pin(stacked, reason)


@register_rule(*aten("_grouped_mm"), flow=multiplies)
def grouped_mm(
    op: Operator, self: Operand, mat2: Operand, offs: Operand | None = None,
    bias: Operand | None = None, out_dtype: Any = None,
) -> Any:  # fmt: skip
    for dim in (self[-1], mat2[-1]):
        _aligned(op, dim, 16 // mat2.dtype.itemsize)
    if offs is None or len(self) == len(mat2) == 3:
        return contract(op, self, mat2)
    reason = "rows of it belong to groups, by their number"
    op.sum_over(op.unify(self[-1], mat2[-2]), self, mat2)
    if len(self) == len(mat2) == 2:  # the contracted dimension is in groups
        op.pin([*offs, self[-1]], reason)
        return [op.fixed(op.shape[0], reason), self[0], mat2[1]]
    grouped, stacked = (self[0], mat2[0]) if len(self) == 2 else (mat2[1], self[0])
    op.pin(grouped, reason)
    _choose(op, stacked, offs, reason)
    return [grouped, mat2[2]] if len(self) == 2 else [self[1], grouped]


def _between(op: Operator, first: Operand, second: Operand) -> None:
    """Differences are summed over: a zero on one side alone is no zero."""
    shared = op.unify(first[-1], second[-1])
    op.sum_over(shared, first)
    op.sum_over(shared, second)


@register_rule(*aten("cdist", "_cdist_forward", "_euclidean_dist"))
def cdist(op: Operator, x1: Operand, x2: Operand, p: float = 2, compute_mode: Any = None) -> Any:
    _between(op, x1, x2)
    return [*op.broadcast(x1[:-2], x2[:-2]), x1[-2], x2[-2]]


@register_rule(*aten("pdist", "_pdist_forward"))
def pdist(op: Operator, self: Operand, p: float = 2) -> Any:
    op.pin(self[0], "its positions are paired with each other")
    op.sum_over(self[1], self)
    return [op.fixed(op.shape[0], "pairs of positions")]


@register_rule(*aten("dist"))
def dist(op: Operator, self: Operand, other: Operand, p: float = 2) -> Any:
    for dim in op.broadcast(self, other):
        op.sum_over(dim, self)
        op.sum_over(dim, other)
        if self.shape != other.shape:
            op.inexact(dim, "differences to a broadcast tensor are summed over it")
    return []


@register_rule(*aten("linalg_cross"), flow=multiplies)
def linalg_cross(op: Operator, self: Operand, other: Operand, dim: int = -1) -> Any:
    op.pin([self[dim], other[dim]], "coordinates of a cross product")
    return op.broadcast(self, other)


@register_rule(*aten("renorm"), flow=keeps)
def renorm(op: Operator, self: Operand, p: float, dim: int, maxnorm: float) -> Any:
    for position, own in enumerate(self):
        if position != dim % len(self):
            op.sum_over(own, self)
    return list(self)
