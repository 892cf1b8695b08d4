"""Linear algebra on matrices as a whole: decompositions, inverses, solutions of equations."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from typing import Any

from .._operator import Operand, Operator
from .._table import aten, register_rule

MATRIX = "rows and columns of a matrix that is taken as a whole"


@register_rule(
    *aten(
        "linalg_cholesky_ex", "linalg_inv_ex", "linalg_qr", "linalg_eig", "linalg_lu", "linalg_lu_factor_ex",
        "linalg_matrix_exp", "_linalg_svd", "_linalg_eigh", "_linalg_eigvals", "_linalg_det",
        "_linalg_slogdet", "cholesky_inverse",
    )
)  # fmt: skip
def matrix_function(op: Operator, A: Operand, *args: Any, **kwargs: Any) -> Any:
    op.pin(A[-2:], MATRIX)
    batch = A[:-2]
    results = [[*batch, *(op.fixed(n, MATRIX) for n in shape[len(batch) :])] for shape in op.shapes]
    return results if len(results) > 1 else results[0]


@register_rule(*aten("linalg_pinv"))
def pinv(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    return matrix_function(op, self)


@register_rule(*aten("linalg_solve_triangular"))
def solve_triangular(
    op: Operator, A: Operand, B: Operand, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    op.pin(A[-2:], MATRIX)
    batch = op.broadcast(A[:-2], B[:-2])
    equations, right_sides = (B[-2], B[-1]) if left else (B[-1], B[-2])
    op.pin(equations, MATRIX)
    return [*batch, equations, right_sides] if left else [*batch, right_sides, equations]


@register_rule(*aten("_linalg_solve_ex"))
def solve(op: Operator, A: Operand, B: Operand, *args: Any, **kwargs: Any) -> Any:
    op.pin([*A, *B], MATRIX)  # whether B is a vector or a matrix is told by sizes
    return [[op.fixed(n, MATRIX) for n in shape] for shape in op.shapes]


@register_rule(*aten("linalg_householder_product"))
def householder_product(op: Operator, input: Operand, tau: Operand) -> Any:
    op.pin([*input[-2:], tau[-1]], MATRIX)
    batch = op.broadcast(input[:-2], tau[:-1])
    return [*batch, *(op.fixed(n, MATRIX) for n in op.shape[-2:])]
