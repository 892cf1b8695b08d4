"""Balances: dimensions that have to stay equal in size, whichever positions they lose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ._algebra import Concat, Dim, Leaf, Product
from ._keep import dim_size

Sizes = dict[Leaf, int]
Balance = Sequence[Dim]


def balanced_sizes(
    balances: Iterable[Balance], wanted: Mapping[Leaf, int], floors: Iterable[tuple[Dim, int]] = ()
) -> Sizes:
    """The sizes nearest to the wanted ones at which all balances and floors hold; none is below.

    Dimensions are resolved; an axis that ``wanted`` does not name stays whole. Sizes only ever
    grow, and everything balances at full size, so this ends.

    >>> from secateur.axes import leaf, product
    >>> width, heads, features = leaf(96), leaf(3), leaf(32)
    >>> sizes = balanced_sizes([[width, product([heads, features])]], {width: 48, heads: 2, features: 16})
    >>> sizes[width], sizes[heads], sizes[features]
    (48, 2, 24)
    """
    sizes = dict(wanted)
    for dim, least in floors:
        if size_of(dim, sizes) < least:
            _grow(dim, least, sizes)
    # A balance among axes that nobody cuts holds as it is.
    active = [dims for dims in balances if any(_cut(dim, sizes) for dim in dims)]
    changed = True
    while changed:
        changed = False
        for dims in active:
            target = max(size_of(dim, sizes) for dim in dims)
            for dim in dims:
                if size_of(dim, sizes) < target:
                    _grow(dim, target, sizes)
                    changed = True
    return sizes


def size_of(dim: Dim, sizes: Mapping[Leaf, int]) -> int:
    """Size of a resolved dimension when its axes have ``sizes``."""
    return dim_size(dim, lambda axis: sizes.get(axis, axis.size))


def _cut(dim: Dim, sizes: Mapping[Leaf, int]) -> bool:
    return size_of(dim, sizes) < dim.size


def _grow(dim: Dim, target: int, sizes: Sizes) -> None:
    """Grow ``dim`` to at least ``target`` positions, the innermost axes first."""
    if isinstance(dim, Leaf):
        sizes[dim] = min(dim.size, target)
    elif isinstance(dim, Product):
        for factor in reversed(dim.factors):
            rest = size_of(dim, sizes) // max(size_of(factor, sizes), 1)
            _grow(factor, min(factor.size, max(size_of(factor, sizes), -(-target // rest))), sizes)
            if size_of(dim, sizes) >= target:
                return
    else:
        _grow_parts(dim, target, sizes)


def _grow_parts(dim: Concat, target: int, sizes: Sizes) -> None:
    """Grow a sum by its smallest terms, evenly, since terms are often to be equal."""
    below, level = 0, target  # the lowest level that the terms have to be filled up to
    while level - below > 1:
        middle = (below + level) // 2
        filled = sum(min(part.size, max(size_of(part, sizes), middle)) for part in dim.parts)
        below, level = (below, middle) if filled >= target else (middle, level)
    for part in dim.parts:
        missing = target - size_of(dim, sizes)
        have = size_of(part, sizes)
        if missing > 0 and have < min(level, part.size):
            _grow(part, min(part.size, level, have + missing), sizes)
