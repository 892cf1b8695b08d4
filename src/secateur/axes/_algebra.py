"""The dimension algebra: what each dimension of each tensor is made of.

A dimension is an expression over axes:

- a :class:`Leaf`, an axis of ``size`` positions;
- a :class:`Product` of dimensions, row-major, as ``(h d)`` in einops;
- a :class:`Concat` of dimensions, one after the other.

:meth:`Algebra.unify` states that two dimensions are the same positions. It is union-find over the
leaves, with refinement: a leaf that meets a composite becomes that composite. Binding replaces a
leaf by strictly smaller ones or by another leaf, so any sequence of statements comes to an end.
What cannot be expressed is *pinned*: never wrong, only less prunable.

Expressions are kept canonical: no nesting of like in like, no factor of size 1, and the outermost
factor of a product is never a concatenation (``(a+b) d`` is ``a d + b d``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias


class Leaf:
    """An axis. ``bound`` is set once it is known to be another dimension."""

    __slots__ = ("bound", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.bound: Dim | None = None

    def __repr__(self) -> str:
        return f"{self.size}"


class Product:
    """Row-major product: the last factor varies fastest. The empty product has one position."""

    __slots__ = ("epoch", "factors", "size")

    def __init__(self, factors: tuple[Dim, ...]) -> None:
        self.factors = factors
        self.size = prod(factor.size for factor in factors)
        self.epoch = -1

    def __repr__(self) -> str:
        return "(" + " ".join(map(repr, self.factors)) + ")"


class Concat:
    """One dimension after the other. The empty concatenation has no position."""

    __slots__ = ("epoch", "parts", "size")

    def __init__(self, parts: tuple[Dim, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)
        self.epoch = -1

    def __repr__(self) -> str:
        return "[" + " + ".join(map(repr, self.parts)) + "]"


Dim: TypeAlias = Leaf | Product | Concat

MOST_CUTS = 16

UNIT = Product(())
EMPTY = Concat(())


def leaf(size: int) -> Dim:
    """A new axis; the sizes 1 and 0 have no axis of their own, since nothing can be taken off."""
    if size == 1:
        return UNIT
    return Leaf(size) if size else EMPTY


def product(factors: Iterable[Dim]) -> Dim:
    """Canonical product of canonical dimensions.

    >>> product([leaf(2), product([leaf(3), UNIT])])
    (2 3)
    >>> product([concat([leaf(2), leaf(3)]), leaf(4)])
    [(2 4) + (3 4)]
    """
    flat: list[Dim] = []
    for factor in factors:
        if isinstance(factor, Product):
            flat.extend(factor.factors)
        elif factor.size == 0:
            return EMPTY
        else:
            flat.append(factor)
    if len(flat) == 1:
        return flat[0]
    if flat and isinstance(flat[0], Concat):
        return concat(product([part, *flat[1:]]) for part in flat[0].parts)
    return Product(tuple(flat)) if flat else UNIT


def concat(parts: Iterable[Dim]) -> Dim:
    """Canonical concatenation of canonical dimensions."""
    flat: list[Dim] = []
    for part in parts:
        if isinstance(part, Concat):
            flat.extend(part.parts)
        else:
            flat.append(part)
    if len(flat) == 1:
        return flat[0]
    return Concat(tuple(flat)) if flat else EMPTY


@dataclass
class Algebra:
    """All that has been stated about the dimensions of one graph.

    ``pins`` are statements that a dimension may not be shortened, with the reason; ``balances``
    that some dimensions must stay equal in size; ``floors`` that one must keep so many positions.
    All are read once everything is stated: leaves may still be refined after a pin was set.
    ``context`` is whatever the statements of the moment are about (the operator); every pin remembers it.
    """

    pins: list[tuple[Dim, str, Any]] = field(default_factory=list)
    balances: list[tuple[tuple[Dim, ...], Any]] = field(default_factory=list)
    floors: list[tuple[Dim, int]] = field(default_factory=list)
    context: Any = None
    epoch: int = 0

    def resolve(self, dim: Dim) -> Dim:
        """The canonical expression that ``dim`` stands for by now."""
        chain: list[Leaf] = []
        while isinstance(dim, Leaf) and dim.bound is not None:
            chain.append(dim)
            dim = dim.bound
        root = dim if isinstance(dim, Leaf) else self._canonical(dim)
        for axis in chain:
            axis.bound = root
        return root

    def _canonical(self, dim: Product | Concat) -> Dim:
        if dim.epoch == self.epoch:
            return dim
        items = dim.factors if isinstance(dim, Product) else dim.parts
        resolved = tuple(map(self.resolve, items))
        if all(new is old for new, old in zip(resolved, items, strict=True)):
            dim.epoch = self.epoch
            return dim
        new = product(resolved) if isinstance(dim, Product) else concat(resolved)
        if not isinstance(new, Leaf):
            new.epoch = self.epoch
        return new

    def leaves(self, dim: Dim) -> Sequence[Leaf]:
        """The axes that ``dim`` is made of."""
        if isinstance(dim, Leaf) and dim.bound is None:
            return (dim,)
        return leaves_of(self.resolve(dim))

    def pin(self, dim: Dim, reason: str) -> None:
        """State that no position of ``dim`` may be taken off."""
        self.pins.append((dim, reason, self.context))

    def balance(self, dims: Sequence[Dim]) -> None:
        """State that ``dims`` must keep equal sizes, whichever positions they lose."""
        self.balances.append((tuple(dims), self.context))

    def keep_at_least(self, dim: Dim, least: int) -> None:
        """State that ``dim`` must keep ``least`` positions, whichever they are."""
        self.floors.append((dim, least))

    def unify(self, a: Dim, b: Dim) -> None:
        """State that ``a`` and ``b`` are the same positions in the same order."""
        a, b = self.resolve(a), self.resolve(b)
        if a is b:
            return
        if a.size != b.size:
            self._irregular(a, b, f"sizes {a.size} and {b.size} differ")
        elif isinstance(a, Leaf):
            self._bind(a, b)
        elif isinstance(b, Leaf):
            self._bind(b, a)
        elif isinstance(a, Concat) or isinstance(b, Concat):
            self._unify_parts(a, b)
        else:
            self._unify_factors(a, b)

    def cut(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """Consecutive pieces of ``dim``, refining the axes that the cuts fall into.

        A cut inside an inner factor of a product cannot be expressed: the whole is pinned then,
        and the pieces are pinned axes of their own.
        """
        rest = self.resolve(dim)
        pieces: list[Dim] = []
        for size in sizes[:-1]:
            if not self._cuttable(rest, size):
                reason = f"a cut at {size} falls inside a factor of {rest!r}"
                pieces += [self.fixed(n, reason) for n in sizes[len(pieces) :]]
                self._irregular(rest, rest, reason)
                return pieces
            piece, rest = self._cut(rest, size)
            pieces.append(piece)
        return [*pieces, rest] if sizes else []

    def split(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """The factors of ``dim``, row-major, refining its axes."""
        factors = [leaf(size) for size in sizes]
        self.unify(dim, product(factors))
        return [self.resolve(factor) for factor in factors]

    def fixed(self, size: int, reason: str) -> Dim:
        """A new axis that may not be shortened."""
        dim = leaf(size)
        self.pin(dim, reason)
        return dim

    # -- refinement --------------------------------------------------------------------------------

    def _bind(self, axis: Leaf, dim: Dim) -> None:
        axis.bound = dim
        self.epoch += 1

    def _irregular(self, a: Dim, b: Dim, reason: str) -> None:
        self.pin(a, reason)
        self.pin(b, reason)

    def _unify_factors(self, a: Product, b: Product) -> None:
        for end in (0, -1):  # align boundaries from the outside, else from the inside
            left, right = a.factors[end], b.factors[end]
            if left.size == right.size:
                self.unify(left, right)
                rest = slice(1, None) if end == 0 else slice(None, -1)
                return self.unify(product(a.factors[rest]), product(b.factors[rest]))
            if left.size < right.size:
                left, right = right, left
            if left.size % right.size == 0 and isinstance(left, Leaf):
                sizes = [right.size, left.size // right.size]
                self._bind(left, product(leaf(n) for n in (sizes if end == 0 else sizes[::-1])))
                return self.unify(a, b)
        self._irregular(a, b, f"the factors {a!r} and {b!r} do not align")

    def _unify_parts(self, a: Dim, b: Dim) -> None:
        # Of two that share an axis at different offsets (x[1:] and x[:-1]) every cut makes another.
        most = len(_parts(a)) + len(_parts(b)) + MOST_CUTS
        for _ in range(most):
            if not (a.size and b.size):
                return None
            size = min(_parts(a)[0].size, _parts(b)[0].size)
            if not (self._cuttable(a, size) and self._cuttable(b, size)):
                return self._irregular(a, b, f"the parts of {a!r} and {b!r} do not align")
            (left, a), (right, b) = self._cut(a, size), self._cut(b, size)
            self.unify(left, right)
            a, b = self.resolve(a), self.resolve(b)
        return self._irregular(a, b, "an axis is laid against itself, shifted") if a.size else None

    def _cuttable(self, dim: Dim, size: int) -> bool:
        for part in _parts(dim):
            if size <= 0:
                break
            if size < part.size and isinstance(part, Product):
                return size % (part.size // part.factors[0].size) == 0
            size -= part.size
        return True

    def _cut(self, dim: Dim, size: int) -> tuple[Dim, Dim]:
        parts = _parts(dim)
        for index, part in enumerate(parts):
            if size < part.size:
                head, tail = self._cut_part(part, size) if size else (EMPTY, part)
                return concat([*parts[:index], head]), concat([tail, *parts[index + 1 :]])
            size -= part.size
        return dim, EMPTY

    def _cut_part(self, part: Dim, size: int) -> tuple[Dim, Dim]:
        if isinstance(part, Product):
            inner = product(part.factors[1:])
            head, tail = self._cut_part(part.factors[0], size // inner.size)
            return product([head, inner]), product([tail, inner])
        assert isinstance(part, Leaf), "canonical products and concatenations begin with a leaf"
        head, tail = leaf(size), leaf(part.size - size)
        self._bind(part, concat([head, tail]))
        return head, tail


def _parts(dim: Dim) -> tuple[Dim, ...]:
    return dim.parts if isinstance(dim, Concat) else (dim,)


def leaves_of(dim: Dim) -> list[Leaf]:
    """The axes of an expression that is resolved already, in order, with repetitions."""
    if isinstance(dim, Leaf):
        return [dim]
    found: list[Leaf] = []
    for item in dim.factors if isinstance(dim, Product) else dim.parts:
        found += leaves_of(item)
    return found
