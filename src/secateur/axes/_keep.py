"""Positions that remain: from the keep sets of axes to those of any dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from ._algebra import Concat, Dim, Leaf

Positions = NDArray[np.int64]
Keep = Mapping[Leaf, Positions]


def kept(dim: Dim, keep: Keep) -> Positions | None:
    """Sorted positions of a resolved ``dim`` that remain, or None where all of them do.

    >>> from secateur.axes import leaf, product
    >>> heads, features = leaf(3), leaf(2)
    >>> kept(product([heads, features]), {heads: np.array([0, 2])})
    array([0, 1, 4, 5])
    """
    if isinstance(dim, Leaf):
        return keep.get(dim)
    if isinstance(dim, Concat):
        pieces = [kept(part, keep) for part in dim.parts]
        if all(piece is None for piece in pieces):
            return None
        offsets = np.cumsum([0, *(part.size for part in dim.parts)])
        return np.concatenate([
            offset + (np.arange(part.size) if piece is None else piece)
            for offset, part, piece in zip(offsets, dim.parts, pieces, strict=False)
        ])  # fmt: skip
    pieces = [kept(factor, keep) for factor in dim.factors]
    if all(piece is None for piece in pieces):
        return None
    positions = np.zeros(1, np.int64)
    for factor, piece in zip(dim.factors, pieces, strict=True):
        inner = np.arange(factor.size) if piece is None else piece
        positions = (positions[:, None] * factor.size + inner).reshape(-1)
    return positions


def kept_size(dim: Dim, keep: Keep) -> int:
    """How many positions of a resolved ``dim`` remain."""

    if isinstance(dim, Leaf):
        positions = keep.get(dim)
        return dim.size if positions is None else len(positions)
    if isinstance(dim, Concat):
        return sum([kept_size(part, keep) for part in dim.parts])
    return prod([kept_size(factor, keep) for factor in dim.factors])


def dim_size(dim: Dim, size_of: Callable[[Leaf], int]) -> int:
    """Size of a resolved ``dim`` when each axis has the size that ``size_of`` says."""
    if isinstance(dim, Leaf):
        return size_of(dim)
    if isinstance(dim, Concat):
        return sum(dim_size(part, size_of) for part in dim.parts)
    size = 1
    for factor in dim.factors:
        size *= dim_size(factor, size_of)
    return size


def labels_at(dim: Dim, axis: Leaf) -> Positions:
    """For every position of a resolved ``dim``: which position of ``axis`` it belongs to, or -1.

    >>> from secateur.axes import leaf, product
    >>> heads, features = leaf(2), leaf(3)
    >>> labels_at(product([heads, features]), heads)
    array([0, 0, 0, 1, 1, 1])
    """
    if isinstance(dim, Leaf):
        return np.arange(dim.size) if dim is axis else np.full(dim.size, -1)
    if isinstance(dim, Concat):
        return np.concatenate([labels_at(part, axis) for part in dim.parts])
    labels = np.full(1, -1)
    for factor in dim.factors:
        inner = labels_at(factor, axis)
        labels = np.where(inner >= 0, inner, labels[:, None]).reshape(-1)
    return labels


def add_by_label(dim: Dim, values: NDArray[np.float64], sums: Mapping[Leaf, NDArray[np.float64]]) -> None:
    """Add what is at each position of a resolved ``dim`` to the labels that the position belongs to.

    One walk over the dimension serves all its axes; ``sums`` are changed in place, axes that are
    not in it are passed over.

    >>> from secateur.axes import leaf, product
    >>> heads, features = leaf(2), leaf(3)
    >>> sums = {heads: np.zeros(2), features: np.zeros(3)}
    >>> add_by_label(product([heads, features]), np.arange(6.0), sums)
    >>> sums[heads], sums[features]
    (array([ 3., 12.]), array([3., 5., 7.]))
    """
    if isinstance(dim, Leaf):
        if dim in sums:
            sums[dim][:] += values
    elif isinstance(dim, Concat):
        start = 0
        for part in dim.parts:
            add_by_label(part, values[start : start + part.size], sums)
            start += part.size
    else:
        table = values.reshape([factor.size for factor in dim.factors])
        for position, factor in enumerate(dim.factors):
            others = tuple(i for i in range(len(dim.factors)) if i != position)
            add_by_label(factor, table.sum(others), sums)
