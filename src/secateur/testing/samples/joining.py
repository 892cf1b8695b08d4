"""Calls that lead to the rules of ``axes/rules/joining.py``."""

from __future__ import annotations

import torch

from ._tensors import t

aten = torch.ops.aten


def joins() -> None:
    """Concatenation and stacking."""
    for name in ("cat", "concat", "concatenate"):
        getattr(torch, name)([t(3, 4), t(3, 5)], 1)
    torch.cat([t(0), t(3, 4), t(2, 4)])
    x = t(3, 4)
    torch.cat([x, x], -1)
    torch.stack([t(3, 4), t(3, 4)], 1)
    torch.stack([t(), t()])
    for join in (torch.hstack, torch.vstack, torch.dstack, torch.column_stack):
        join([t(3, 4), t(3, 4)])
    torch.meshgrid(t(3), t(4), indexing="ij")
    torch.meshgrid(t(3), t(4), t(5), indexing="xy")


def pieces() -> None:
    """Splitting by size, by sizes, by number, at places."""
    x = t(3, 12)
    for split in (torch.split, aten.unsafe_split, aten.split_copy):
        split(x, 4, 1)
    torch.split(x, 5, 1)
    torch.split(x, 20, 1)
    for name in ("split_with_sizes", "split_with_sizes_copy", "unsafe_split_with_sizes"):
        getattr(aten, name)(x, [3, 4, 5], 1)
    aten.split.sizes(x, [3, 4, 5], -1)
    torch.chunk(x, 3, 1)
    torch.chunk(x, 5, -1)
    aten.unsafe_chunk(x, 2, 1)
    torch.tensor_split(x, 3, 1)
    torch.tensor_split(x, 5, 1)
    torch.tensor_split(x, (4, 7), 1)
    torch.tensor_split(x, (4, -3), 1)
    for unbind in (torch.unbind, aten.unbind_copy):
        unbind(x)
        unbind(x, 1)
    for split in (torch.hsplit, torch.vsplit):
        split(x, 3)


def slices() -> None:
    """Parts of a dimension, counted from either end."""
    x = t(8, 6)
    for part in (
        slice(2, 5), slice(3, None), slice(None, 5), slice(-3, None), slice(None, -3), slice(2, -2),
        slice(-6, -2), slice(0, 100), slice(-100, 4), slice(5, 2), slice(8, None),
    ):  # fmt: skip
        _ = x[part]
        _ = x[:, part]
    for part in (slice(None, None, 2), slice(1, None, 2), slice(None, None, 3), slice(2, 6, 2)):
        _ = x[part]
    aten.slice_copy(x, 1, 2, 5)
    aten.slice_scatter(x, t(8, 3), 1, 2, 5)
    aten.slice_scatter(x, t(4, 6), 0, 0, None, 2)
    torch.narrow(x, 1, 2, 3)
    torch.narrow(x, 1, -4, 3)
    torch.narrow(x, 0, 0, 5)
    aten.narrow_copy(x, 1, 2, 3)


def selections() -> None:
    """One position."""
    x = t(3, 4)
    _ = x[1]
    _ = x[:, -1]
    aten.select_copy(x, 1, 2)
    torch.select_scatter(x, t(3), 1, 2)
