"""Calls that lead to the rules of ``axes/rules/reduction.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import ints, mask, positive, t, z

aten = torch.ops.aten


def sums() -> None:
    """Over all, one, several dimensions; kept and dropped."""
    x = t(3, 4, 5)
    for reduce in (torch.sum, torch.mean, torch.nansum, torch.nanmean):
        reduce(x)
        reduce(x, 1)
        reduce(x, (0, -1), keepdim=True)
        reduce(x, dim=1, dtype=torch.float64)
    torch.sum(t())
    for count in (torch.any, torch.all):
        count(mask(3, 4))
        count(mask(3, 4), 1)
        count(mask(3, 4), dim=(0, 1), keepdim=True)
    torch.count_nonzero(mask(3, 4))
    torch.count_nonzero(mask(3, 4), 1)
    torch.count_nonzero(mask(3, 4, 5), (0, 2))
    torch.trace(t(4, 4))
    torch.trace(t(3, 4))


def norms() -> None:
    """Vector norms of every order."""
    x = t(3, 4, 5)
    for order in (2, 1, 3, 0, float("inf"), -1, float("-inf")):
        torch.linalg.vector_norm(x, order, 1)
        torch.linalg.vector_norm(x, order, keepdim=True)
    aten.norm.Scalar(x, 2)
    aten.norm.ScalarOpt_dim(x, None, [1])
    aten.norm.ScalarOpt_dim(x, 1, [1, 2], True)
    aten.norm.ScalarOpt_dim_dtype(x, 2, [1], False, dtype=torch.float64)
    aten.norm.ScalarOpt_dtype(x, 2, dtype=torch.float64)
    F.normalize(x, dim=1)
    F.cosine_similarity(t(3, 4), t(3, 4))
    F.pairwise_distance(t(3, 4), t(3, 4))


def spreads() -> None:
    """Variances and standard deviations."""
    x = t(3, 4, 5)
    for reduce in (torch.var, torch.std, torch.var_mean, torch.std_mean):
        reduce(x)
        reduce(x, 1)
        reduce(x, (0, 2), keepdim=True)
        reduce(x, dim=1, correction=0)
    for name in ("var", "std", "var_mean", "std_mean"):
        getattr(aten, name).default(x, False)
        getattr(aten, name).dim(x, [1], False, True)


def extremes() -> None:
    """The largest, the smallest, their places, and products."""
    x = t(3, 4, 5)
    for name in ("max", "min"):
        getattr(torch, name)(x)
        getattr(torch, name)(x, 1)
        getattr(torch, name)(x, 1, keepdim=True)
        getattr(torch, name)(x, t(5))
        getattr(torch, f"a{name}")(x)
        getattr(torch, f"a{name}")(x, (0, 2), keepdim=True)
        getattr(torch, f"arg{name}")(x)
        getattr(torch, f"arg{name}")(x, 1, keepdim=True)
    torch.aminmax(x)
    torch.aminmax(x, dim=1, keepdim=True)
    torch.prod(x)
    torch.prod(x, 1)
    torch.prod(x, 1, keepdim=True)
    for name in ("median", "nanmedian"):
        getattr(torch, name)(x)
        getattr(torch, name)(x, 1)
    torch.mode(x)
    torch.mode(x, 1, True)
    torch.kthvalue(x, 2)
    torch.kthvalue(x, 2, 1, True)
    torch.logsumexp(x, 1)
    torch.logsumexp(x, (0, 2), keepdim=True)


def competitions() -> None:
    """Softmax, sorting, the best."""
    x = t(3, 4, 5)
    for normalise in (torch.softmax, torch.log_softmax):
        normalise(x, 1)
        normalise(x, -1, dtype=torch.float64)
    F.softmin(x, 1)
    aten._softmax(x, 1, False)
    aten._log_softmax(x, 1, False)
    aten._safe_softmax(x, 1)
    torch.sort(x)
    torch.sort(x, 1, True)
    torch.sort(x, stable=True, dim=1)
    torch.argsort(x, 1)
    torch.argsort(x, stable=True, dim=0, descending=True)
    torch.msort(x)
    torch.topk(x, 2)
    torch.topk(x, 2, 1, largest=False)
    F.nll_loss(t(4, 5), ints(5, 4))
    F.nll_loss(t(4, 5), ints(5, 4), positive(5), reduction="none")
    F.nll_loss(t(5), ints(5).reshape(()))


def accumulations() -> None:
    """Sums and products up to a position."""
    x = t(3, 4)
    for name in ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"):
        getattr(torch, name)(x, 1)
    torch.cumsum(x, 0, dtype=torch.float64)
    torch.cumsum(t(), 0)
    torch.diff(t(3, 6))


def gates() -> None:
    """GLU."""
    F.glu(t(3, 8))
    F.glu(t(8, 3), 0)


def fourier() -> None:
    """Fourier transforms of every kind, normalised and padded."""
    for name in ("fft", "ifft"):
        getattr(torch.fft, name)(z(3, 6, 4), dim=1)
        getattr(torch.fft, name)(t(3, 6, 4), dim=1)
        getattr(torch.fft, f"{name}2")(z(3, 6, 4), norm="ortho")
        getattr(torch.fft, f"{name}n")(z(3, 6, 4), dim=(0, 2))
    torch.fft.rfft(t(3, 6, 4), dim=1)
    torch.fft.irfft(z(3, 4, 5), dim=1)
    torch.fft.rfft2(t(3, 6, 4), dim=(0, 1), norm="ortho")
    torch.fft.irfft2(z(3, 6, 4), dim=(0, 1))
    torch.fft.fft(t(3, 6), n=8)
    torch.fft.fftshift(t(3, 6), 1)
