"""Calls that lead to the rules of ``axes/rules/linear.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import ints, t

aten = torch.ops.aten


def layers() -> None:
    """Linear and bilinear layers."""
    F.linear(t(2, 3, 4), t(5, 4), t(5))
    F.linear(t(3, 4), t(5, 4))
    F.linear(t(4), t(5, 4))
    F.linear(t(3, 4), t(4))
    F.bilinear(t(3, 4), t(3, 5), t(6, 4, 5), t(6))
    F.bilinear(t(2, 3, 4), t(2, 3, 5), t(6, 4, 5))


def products() -> None:
    """The matmul family."""
    for a, b in (
        ((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (4,)),
        ((3, 4), (4,)), ((4,), (4, 5)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,)),
    ):  # fmt: skip
        torch.matmul(t(*a), t(*b))
    torch.mm(t(3, 4), t(4, 5))
    torch.bmm(t(2, 3, 4), t(2, 4, 5))
    torch.mv(t(3, 4), t(4))
    torch.dot(t(4), t(4))
    torch.vdot(t(4), t(4))
    aten._int_mm(ints(9, 20, 8).to(torch.int8), ints(9, 8, 16).to(torch.int8))
    aten.tensordot(t(2, 3, 4), t(4, 3, 5), [1, 2], [1, 0])
    aten.tensordot(t(2, 3, 4), t(5, 4), [-1], [1])
    torch.outer(t(3), t(4))
    torch.ger(t(3), t(4))


def sums_of_products() -> None:
    """A product added to something."""
    torch.addmm(t(5), t(3, 4), t(4, 5))
    torch.addmm(t(3, 5), t(3, 4), t(4, 5), beta=0.5, alpha=2)
    aten._addmm_activation(t(5), t(3, 4), t(4, 5))
    aten._addmm_activation(t(5), t(3, 4), t(4, 5), use_gelu=True)
    torch.baddbmm(t(2, 3, 5), t(2, 3, 4), t(2, 4, 5))
    torch.baddbmm(t(5), t(2, 3, 4), t(2, 4, 5))
    torch.addbmm(t(3, 5), t(2, 3, 4), t(2, 4, 5))
    torch.addmv(t(3), t(3, 4), t(4))
    torch.addr(t(3, 5), t(3), t(5))


def einsums() -> None:
    """Contractions, diagonals, ellipses, broadcasts, implicit results."""
    torch.einsum("bhid,bhjd->bhij", t(2, 3, 4, 5), t(2, 3, 6, 5))
    torch.einsum("bhij,bhjd->bihd", t(2, 3, 4, 6), t(2, 3, 6, 5))
    torch.einsum("ij,jk", t(3, 4), t(4, 5))
    torch.einsum("...ij,...jk->...ik", t(2, 3, 4), t(6, 2, 4, 5))
    torch.einsum("i...,i...", t(3, 4), t(3, 4))
    torch.einsum("...i->i", t(2, 3, 4))
    torch.einsum("ii->i", t(4, 4))
    torch.einsum("ii", t(4, 4))
    torch.einsum("bi,bj,bk->ijk", t(2, 3), t(2, 4), t(2, 5))
    torch.einsum("bi,bi->b", t(1, 3), t(4, 3))
    torch.einsum("Ab,bA", t(3, 4), t(4, 3))
    torch.einsum(" b i , i o -> b o ", t(2, 3), t(3, 4))


def grouped() -> None:
    """Experts: rows that belong to groups."""
    ends = torch.tensor([16, 32, 48], dtype=torch.int32)
    half = torch.bfloat16
    aten._grouped_mm(t(48, 16).to(half), t(3, 16, 32).to(half), ends)
    aten._grouped_mm(t(3, 16, 32).to(half), t(3, 32, 16).to(half))
    aten._grouped_mm(t(16, 48).to(half), t(48, 32).to(half), ends)
    aten._grouped_mm(t(3, 16, 32).to(half), t(32, 48).to(half), ends)


def distances() -> None:
    """Differences, summed over."""
    for p in (1.0, 2.0, 3.0):
        torch.cdist(t(2, 3, 5), t(2, 4, 5), p=p)
        F.pdist(t(4, 5), p)
        torch.dist(t(3, 4), t(3, 4), p)
    torch.cdist(t(3, 5), t(2, 4, 5), compute_mode="donot_use_mm_for_euclid_dist")
    torch.dist(t(3, 4), t(4))
    aten._cdist_forward(t(2, 3, 5), t(2, 4, 5), 2.0, None)
    aten._pdist_forward(t(4, 5))
    aten._euclidean_dist(t(3, 5), t(4, 5))
    torch.linalg.cross(t(4, 3), t(4, 3))
    torch.linalg.cross(t(3, 4), t(3, 1), dim=0)
    torch.renorm(t(3, 4, 5), 2, 1, 0.5)
