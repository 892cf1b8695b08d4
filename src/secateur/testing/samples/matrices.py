"""Calls that lead to the rules of ``axes/rules/matrices.py``."""

from __future__ import annotations

import torch

from ._tensors import t

aten = torch.ops.aten


def decompositions() -> None:
    """A batch of matrices, and what they are made of."""
    x = t(3, 4, 4)
    definite = x @ x.mT + 4 * torch.eye(4).double()
    torch.linalg.cholesky(definite)
    torch.cholesky_inverse(definite)
    torch.linalg.inv(definite)
    torch.linalg.qr(t(3, 5, 4))
    torch.linalg.eig(x)
    aten._linalg_eigvals(x)
    torch.linalg.eigh(definite)
    torch.linalg.lu(x)
    torch.linalg.lu_factor(x)
    torch.linalg.svd(t(3, 5, 4))
    torch.linalg.det(x)
    torch.linalg.slogdet(x)
    torch.linalg.matrix_exp(x)
    torch.linalg.pinv(t(3, 5, 4))
    aten.linalg_pinv(t(3, 5, 4), 1e-10)
    aten.linalg_pinv.rcond_tensor(t(3, 5, 4), torch.tensor(1e-10).double())
    aten.linalg_pinv.atol_rtol_float(t(3, 5, 4))
    aten.linalg_pinv.atol_rtol_tensor(t(3, 5, 4))
    torch.linalg.householder_product(t(3, 5, 4), t(3, 4))


def equations() -> None:
    """Right sides come and go by columns."""
    x = t(3, 4, 4) + 4 * torch.eye(4).double()
    torch.linalg.solve(x, t(3, 4, 5))
    torch.linalg.solve(x, t(3, 4))
    torch.linalg.solve_triangular(x.tril(), t(3, 4, 5), upper=False)
    torch.linalg.solve_triangular(x.triu(), t(1, 5, 4), upper=True, left=False)
    torch.linalg.solve_triangular(x.triu(), t(4, 5), upper=True, unitriangular=True)
