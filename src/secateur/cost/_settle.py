"""The widths that surgery gives, asked for many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TypeAlias

from ..axes import Concat, Dim, Leaf, Structure
from ._polynomial import settled_widths

SizeOf: TypeAlias = Callable[[Mapping[str, int]], int]


class Settling:
    """Widths that balances and floors allow, for one model.

    What :func:`settled_widths` gives. Widths that settle as they are, which is what selectors mostly ask
    for, are recognised in microseconds.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> Settling(ir.create_snapshot("main", args=(torch.ones(1, 2),)).structure)({})
        {'0': 6}
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._whole = {group.name: group.size for group in structure.groups}
        names = {group.axis: group.name for group in structure.groups}
        self._balances = [[size_of(dim, names) for dim in dims] for dims in structure.balances()]
        self._floors = [(size_of(dim, names), least) for dim, least in structure.floors()]

    def __call__(self, widths: Mapping[str, int]) -> dict[str, int]:
        """The width of every group, when these are asked for."""
        full = {**self._whole, **widths}
        known = len(full) == len(self._whole)
        return full if known and self._hold(full) else settled_widths(self._structure, widths)

    def _hold(self, widths: Mapping[str, int]) -> bool:
        for sizes in self._balances:
            first = sizes[0](widths)
            if any(size(widths) != first for size in sizes[1:]):
                return False
        return all(size(widths) >= least for size, least in self._floors)


def size_of(dim: Dim, names: Mapping[Leaf, str]) -> SizeOf:
    """The size of a resolved dimension as a function of the widths of all groups, ``names`` by axis."""
    if isinstance(dim, Leaf):
        name, size = names.get(dim), dim.size
        return (lambda widths: size) if name is None else (lambda widths: widths[name])
    if isinstance(dim, Concat):
        items = [size_of(part, names) for part in dim.parts]
        return lambda widths: sum(item(widths) for item in items)
    items = [size_of(factor, names) for factor in dim.factors]
    return lambda widths: prod(item(widths) for item in items)
