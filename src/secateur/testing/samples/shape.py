"""Calls that lead to the rules of ``axes/rules/shape.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import t

aten = torch.ops.aten


def views() -> None:
    """Factors are split, merged and regrouped."""
    x = t(3, 8, 5)
    for size in ((3, 2, 4, 5), (24, 5), (3, -1), (6, 4, 5), (3, 8, 1, 5), (15, 8), (120,)):
        x.view(size)
        x.reshape(size)
        aten.view_copy(x, size)
        aten._unsafe_view(x, size)
        aten._reshape_copy(x, size)
    t(4, 6).view(6, 4)
    t(3, 8).resize_(3, 2, 4)
    aten.resize(t(3, 8), (3, 2, 4))
    t(3, 8).resize_(5, 2)
    t(3, 8).view(torch.float64)
    t(3, 8).view(torch.float32)
    t(3, 8).view(torch.complex128)
    aten.view_copy(t(3, 8), torch.float64)
    x.view_as(t(3, 2, 4, 5))
    x.reshape_as(t(24, 5))
    x.flatten(1)
    x.flatten(0, 1)
    x.ravel()
    x.unflatten(1, (2, 4))
    x.unflatten(-2, (-1, 4))


def orders() -> None:
    """The dimensions in another order."""
    x = t(2, 3, 4)
    x.permute(2, 0, 1)
    aten.permute_copy(x, (-1, 0, 1))
    x.transpose(0, -1)
    aten.transpose_copy(x, 0, 1)
    aten.swapaxes(x, 0, 1)
    aten.swapdims(x, 0, 1)
    t(2, 3, 4).transpose_(0, -1)
    t(3, 4).t()
    t(3).t()
    t(3, 4).T  # noqa: B018 - it dispatches an operator
    aten.numpy_T(t(3, 4))
    aten.t_copy(t(3, 4))
    for name in ("mT", "mH", "adjoint"):
        getattr(aten, name)(x)
    aten.matrix_H(t(3, 4))
    for move in (torch.movedim, torch.moveaxis):
        move(x, 0, -1)
        move(x, (0, 1), (2, 0))


def units() -> None:
    """Dimensions of size 1 come and go."""
    x = t(4, 1, 5, 1)
    x.squeeze()
    x.squeeze(1)
    x.squeeze(0)
    x.squeeze((1, 3))
    aten.squeeze_copy(x)
    aten.squeeze_copy(x, 1)
    aten.squeeze_copy(x, [1, 3])
    x.unsqueeze(0)
    x.unsqueeze(-1)
    aten.unsqueeze_copy(x, 2)


def repetitions() -> None:
    """The same values more than once."""
    x = t(3, 1, 4)
    x.expand(3, 5, 4)
    x.expand(2, -1, 5, -1)
    aten.expand_copy(x, (3, 5, 4))
    torch.broadcast_to(x, (2, 3, 5, 4))
    x.expand_as(t(3, 5, 4))
    torch.broadcast_tensors(x, t(5, 1))
    x.repeat(2, 3, 1)
    x.repeat(2, 1, 3, 2)
    torch.tile(x, (2, 3))
    torch.tile(x, (2, 1, 3, 2))
    t(3, 4).repeat_interleave(2, 1)
    t(3, 4).repeat_interleave(2)
    t(3, 4).repeat_interleave(torch.tensor([1, 2, 3]), 0)


def moves() -> None:
    """Positions are reversed, shifted, shuffled."""
    x = t(3, 4)
    x.flip(1)
    x.flip((0, -1))
    x.fliplr()
    x.flipud()
    torch.rot90(x)
    torch.rot90(t(2, 3, 4), 2, (1, 2))
    for shift in (1, -1, 3, 0, 9):
        t(3, 8).roll(shift, 1)
    t(6, 8).roll((2, -3), (0, 1))
    x.roll(2)
    F.pixel_shuffle(t(2, 12, 3, 4), 2)
    F.pixel_shuffle(t(12, 3, 4), 2)
    F.pixel_unshuffle(t(2, 3, 6, 8), 2)
    F.channel_shuffle(t(2, 12, 3), 3)
    torch.native_channel_shuffle(t(2, 12, 3), 3)


def windows() -> None:
    """Unfold and fold."""
    F.unfold(t(2, 3, 6, 5), 3, padding=1)
    F.unfold(t(3, 6, 5), (2, 1))
    F.fold(t(2, 12, 12), (4, 5), 2)
    F.fold(t(12, 12), (4, 5), 2)
    t(3, 8).unfold(1, 3, 1)
    t(3, 8).unfold(1, 2, 2)
    t(3, 8).unfold(0, 2, 1)
    aten.unfold_copy(t(3, 8), 1, 4, 4)


def diagonals() -> None:
    """Diagonals and triangles."""
    torch.diagonal(t(4, 4))
    torch.diagonal(t(2, 4, 3, 4), 0, -1, 1)
    torch.diagonal(t(4, 5), 1)
    aten.diagonal_copy(t(4, 4))
    torch.diag_embed(t(3, 4))
    torch.diag_embed(t(3, 4), 0, 0, 2)
    torch.diag_embed(t(3, 4), 1)
    torch.diag(t(4))
    torch.tril(t(2, 4, 5))
    torch.triu(t(4, 4), 1)
    t(4, 4).fill_diagonal_(0.0)


def paddings() -> None:
    """Constants, copies, and negative paddings."""
    for mode in ("reflect", "replicate", "circular"):
        F.pad(t(2, 3, 6), (2, 1), mode)
        F.pad(t(2, 3, 6, 5), (2, 1, 1, 0), mode)
        F.pad(t(2, 3, 4, 6, 5), (2, 1, 1, 0, 1, 1), mode)
    F.pad(t(3, 4), (2, 1))
    F.pad(t(3, 4), (0, 1, 2, 0), value=2.0)
    F.pad(t(3, 6), (-2, 1))
    F.pad(t(3, 6), (0, -2))
    aten.constant_pad_nd(t(3, 4), (1, 2), 0)
    aten.constant_pad_nd(t(3, 4), (1, 2), 3.0)
    for n in (1, 2, 3):
        for name in ("reflection", "replication"):
            getattr(aten, f"{name}_pad{n}d")(t(2, 3, *(4, 6, 5)[:n]), (1, 2, 1, 0, 1, 1)[: 2 * n])
    for mode in range(4):
        aten._pad_enum(t(2, 3, 6), (2, 1), mode)
    aten._pad_circular(t(2, 3, 6), (2, 1))
    torch.as_strided(t(3, 4), (2, 3), (4, 1))
    torch.as_strided(t(2, 6, 3), (2, 2, 4, 3), (18, 6, 3, 1))
    aten.as_strided_copy(t(3, 4), (3, 4), (4, 1))
