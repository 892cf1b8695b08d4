"""What a rule works with: the operands of one operator call, and the statements it can make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from ..capture import Node
from ._addresses import Address
from ._algebra import UNIT, Algebra, Dim, concat, leaf, product


@dataclass(slots=True)
class Operand:
    """A tensor argument: one dimension expression for each of its dimensions.

    Indexing and iteration give the expressions; a rule returns a list of them as its result.
    ``is_state`` marks a parameter or buffer, or a part of one, as against an activation. ``address`` is
    there where the values are known to be positions of a dimension, ``constant`` where they are numbers
    that the code wrote; ``strides`` where it does not lie in memory in the order of its dimensions.
    """

    id: int
    dims: list[Dim]
    dtype: torch.dtype
    is_state: bool = False
    address: Address | None = None
    constant: torch.Tensor | None = None
    strides: tuple[int, ...] | None = None

    def __getitem__(self, index: Any) -> Any:
        return self.dims[index]

    def __iter__(self) -> Iterator[Dim]:
        return iter(self.dims)

    def __len__(self) -> int:
        return len(self.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes before anything is taken off."""
        return tuple(dim.size for dim in self.dims)


def operands_in(values: Iterable[Any]) -> Iterator[Operand]:
    """All operands among ``values``, lists and dicts of them included."""
    for value in values:
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from operands_in(value)
        elif isinstance(value, dict):
            yield from operands_in(value.values())


@dataclass(slots=True)
class Number:
    """An integer argument of a call that is the size of a dimension, so has to change with it.

    ``argument`` and ``position`` say where it stands: ``position`` inside a list, None for a plain
    int. A ``negative`` number counts from the end (``x[:-n]``). ``offset`` is by how much it is more than
    the size (-1 for the last position).
    """

    argument: str
    position: int | None
    dim: Dim
    negative: bool = False
    offset: int = 0

    def at(self, size: int) -> int:
        """The number when the dimension has so many positions."""
        return (-size if self.negative else size) + self.offset


@dataclass(slots=True)
class Sum:
    """A dimension that an operator sums over, and the operands that carry it.

    Taking off a position changes nothing if one of them is zero there.
    """

    dim: Dim
    operands: tuple[int, ...]


@dataclass(slots=True)
class Rescale:
    """An operand that the operator scales by ``size ** power`` of a dimension it measures itself.

    When the dimension shrinks from ``old`` to ``new`` positions, the operand has to be multiplied
    by ``(old / new) ** power`` for the result to stay what it was: attention divides queries by the
    root of their width (power -0.5), so a narrower one is multiplied by ``(new / old) ** 0.5``.
    """

    operand: int
    dim: Dim
    power: float


@dataclass(slots=True)
class Average:
    """A dimension of an operand that the operator takes a mean over, and so divides by its size.

    With ``old`` positions before and ``new`` after, the result is ``old / new`` times what it was, if
    the positions that went were zero. An operator that ``normalises`` divides the operand by the
    root of its mean square: it is as before if the operand is ``(new / old) ** 0.5`` times what it was,
    and the result has that factor then.
    """

    dim: Dim
    operand: int
    reason: str
    normalises: bool = False


@dataclass
class Operator:
    """One operator call, while its rule states how its dimensions relate."""

    node: Node
    algebra: Algebra
    shapes: list[tuple[int, ...]]
    numbers: list[Number] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    inexact_dims: list[tuple[Dim, str]] = field(default_factory=list)
    rescales: list[Rescale] = field(default_factory=list)
    averages: list[Average] = field(default_factory=list)
    inexact_if: list[tuple[int, Dim, str]] = field(default_factory=list)
    spared: list[tuple[int, Dim]] = field(default_factory=list)
    roles: list[tuple[Dim, str]] = field(default_factory=list)
    competing: list[tuple[Dim, str]] = field(default_factory=list)
    addresses: dict[int, Address] = field(default_factory=dict)
    addressed: set[int] = field(default_factory=set)
    routes: list[Dim] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return self.shapes[0]

    @property
    def statistics(self) -> list[tuple[Dim, str]]:
        """Dimensions that the result depends on as a whole, with the reasons: averages among them."""
        return [*self.inexact_dims, *((average.dim, average.reason) for average in self.averages)]

    # -- statements --------------------------------------------------------------------------------

    def unify(self, first: Dim, *others: Dim) -> Dim:
        """All of these are the same positions."""
        for other in others:
            self.algebra.unify(first, other)
        return first

    def pin(self, dims: Dim | Operand | Sequence[Dim], reason: str) -> None:
        """None of these may be shortened."""
        for dim in [dims] if not isinstance(dims, (Operand, list, tuple)) else dims:
            self.algebra.pin(dim, reason)  # pyright: ignore[reportArgumentType]

    def new(self, size: int) -> Dim:
        """A dimension that the operator makes; it may be shortened if what follows allows it."""
        return leaf(size)

    def fixed(self, size: int, reason: str) -> Dim:
        """A dimension that the operator makes, and that may not be shortened."""
        return self.algebra.fixed(size, reason)

    def number(
        self, argument: str, dim: Dim, position: int | None = None, *, negative: bool = False, offset: int = 0
    ) -> Dim:
        """The integer in this argument is the size of ``dim`` (minus it, counted from an end)."""
        self.numbers.append(Number(argument, position, dim, negative, offset))
        return dim

    def compete(self, dim: Dim, reason: str) -> None:
        """Zero is no absence for ``dim``: it may not be shortened, unless it is a :meth:`route`."""
        self.competing.append((dim, reason))

    def points(self, result: int, dim: Dim, *, counted: bool = False) -> None:
        """The values of the result of that number are positions of ``dim``, or counts of them."""
        self.addresses[result] = Address(dim, counted)

    def address(self, dim: Dim, index: Operand, reason: str) -> None:
        """The values of ``index`` are positions of ``dim``.

        Where they are known to be positions of another dimension, the two are the same; else it is pinned.
        """
        known = index.address
        if known is None or known.counted or known.dim.size != dim.size:
            self.pin(dim, reason)
            return
        self.addressed.add(index.id)
        self.route(self.unify(dim, known.dim))

    def join_addresses(self, tensors: Sequence[Operand]) -> None:
        """The first result holds the values of all these: positions of one dimension, if all hold such."""
        known = [tensor.address for tensor in tensors if tensor.address and not tensor.address.counted]
        if known and len(known) == len(tensors) and len({address.dim.size for address in known}) == 1:
            self.unify(*(address.dim for address in known))
            self.points(0, known[0].dim)
            self.addressed.update(tensor.id for tensor in tensors)

    def route(self, dim: Dim) -> None:
        """What competes along ``dim`` only chooses among its positions, as a router its experts."""
        self.routes.append(dim)

    def sum_over(self, dim: Dim, *operands: Operand | None) -> None:
        """The operator sums over ``dim`` the product of these operands, as far as they carry it."""
        self.sums.append(Sum(dim, tuple(o.id for o in operands if o is not None)))

    def keep_at_least(self, dim: Dim, least: int) -> None:
        """The operator does something else if fewer positions of ``dim`` are left."""
        self.algebra.keep_at_least(dim, least)

    def inexact(self, dim: Dim, reason: str) -> None:
        """Taking positions off ``dim`` changes the result even where they are masked."""
        self.inexact_dims.append((dim, reason))

    def average(self, dim: Dim, operand: Operand, reason: str, *, normalises: bool = False) -> None:
        """The operator divides a sum over ``dim`` of ``operand`` by its size; see :class:`Average`."""
        self.averages.append(Average(dim, operand.id, reason, normalises))

    def inexact_if_used(self, result: int, dim: Dim, reason: str) -> None:
        """As :meth:`inexact`, where the model uses the result of that number."""
        self.inexact_if.append((result, dim, reason))

    def spare(self, operand: Operand, dim: Dim) -> None:
        """The masked model leaves this operand as it is along ``dim``.

        The operator divides by it, so that zeros would give NaN, and multiplies by another operand
        that carries ``dim`` as well and is masked.
        """
        self.spared.append((operand.id, dim))

    def role(self, dim: Dim, name: str) -> None:
        """Call the axes of ``dim`` what they are here: ``heads`` or ``features`` of attention."""
        self.roles.append((dim, name))

    # -- moves that many rules share ---------------------------------------------------------------

    def broadcast(self, *operands: Operand | Sequence[Dim]) -> list[Dim]:
        """Right-aligned dimensions of the result; size 1 stretches, the others are unified."""
        rows = [list(operand) for operand in operands]
        width = max(map(len, rows), default=0)
        result: list[Dim] = []
        for position in range(-width, 0):
            column = [row[position] for row in rows if len(row) >= -position]
            full = [dim for dim in column if dim.size != 1]
            result.append(self.unify(full[0], *full[1:]) if full else UNIT)
        return result

    def regroup(self, dims: Sequence[Dim], shape: Sequence[int]) -> list[Dim]:
        """Dimensions of a row-major view of ``dims`` with another ``shape``."""
        if prod(shape) == 0:
            return [leaf(size) for size in shape]
        old = [dim for dim in dims if dim.size != 1]
        new: list[Dim] = [leaf(size) for size in shape]
        fresh = [dim for dim in new if dim.size != 1]
        i = j = 0
        while i < len(old) and j < len(fresh):
            # The shortest runs of old and of new dimensions with the same number of elements.
            first_i, first_j = i, j
            left, right = old[i].size, fresh[j].size
            i, j = i + 1, j + 1
            while left != right:
                if left < right:
                    left, i = left * old[i].size, i + 1
                else:
                    right, j = right * fresh[j].size, j + 1
            self.unify(self._product(old[first_i:i]), self._product(fresh[first_j:j]))
        return new

    def _product(self, dims: Sequence[Dim]) -> Dim:
        return product(map(self.algebra.resolve, dims))

    def product(self, *dims: Dim) -> Dim:
        """Row-major product of dimensions."""
        return self._product(dims)

    def concat(self, dims: Sequence[Dim]) -> Dim:
        """One dimension after the other."""
        return concat(map(self.algebra.resolve, dims))

    def cut(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """Consecutive pieces of ``dim``."""
        return self.algebra.cut(dim, sizes)

    def split(self, dim: Dim, *sizes: int) -> list[Dim]:
        """Row-major factors of ``dim``."""
        return self.algebra.split(dim, sizes)

    def replace(self, operand: Operand | Sequence[Dim], dim: int, new: Dim | None) -> list[Dim]:
        """The operand's dimensions with one replaced, or dropped for None."""
        dims = list(operand)
        index = dim % len(dims) if dims else 0
        dims[index : index + 1] = [] if new is None else [new]
        return dims
