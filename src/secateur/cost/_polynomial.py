"""Cost as a polynomial in the widths of groups: no surgery and no keep sets, only counts.

How many multiply-accumulates or parameters are left depends on how many positions of each axis stay,
not on which. Every dimension of a tensor is an expression over axes, so every term of the cost is a
product of widths: evaluating all of a ResNet-50 takes some ten microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .._errors import LabelError
from ..axes import Concat, Dim, Leaf, Structure, balanced_sizes
from ..capture import Source
from ._macs import mac_terms

Monomial = tuple[int, ...]
"""Numbers of the groups whose widths are multiplied, sorted."""


class CostPolynomial:
    """A sum of products of group widths.

    Args:
        structure: the analysed model.
        terms: products of dimensions that add up to the cost.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> structure = ir.create_snapshot("main", args=(torch.ones(1, 2),)).structure
        >>> cost = secateur.cost.mac_cost(structure)
        >>> cost.full, cost({"0": 4})
        (18, 12)
    """

    def __init__(self, structure: Structure, terms: Iterable[Sequence[Dim]]) -> None:
        groups = structure.groups
        self.names = [group.name for group in groups]
        self._sizes = np.array([*(group.size for group in groups), 1], np.int64)
        self._index = {name: index for index, name in enumerate(self.names)}
        numbers = {group.axis: index for index, group in enumerate(groups)}
        resolve = structure.analysis.algebra.resolve
        counts: Counter[Monomial] = Counter()
        for term in terms:
            for monomial, coefficient in _expand(map(resolve, term), numbers):
                counts[monomial] += coefficient
        longest = max(map(len, counts), default=0)
        one = len(groups)  # stands for a factor of 1
        self._factors = np.array(
            [[*monomial, *[one] * (longest - len(monomial))] for monomial in counts], np.int64
        ).reshape(len(counts), longest)
        self._coefficients = np.array([*counts.values()], np.int64)

    @property
    def full(self) -> int:
        """The cost before anything is taken off."""
        return self.at(self._sizes[:-1])

    def __call__(self, widths: Mapping[str, int]) -> int:
        """The cost when groups have these widths; a group that is not named is whole.

        Raises:
            LabelError: for an unknown group.
        """
        vector = self._sizes[:-1].copy()
        for name, width in widths.items():
            if name not in self._index:
                raise LabelError(f"there is no group {name!r}; ir.groups() lists all groups")
            vector[self._index[name]] = width
        return self.at(vector)

    def at(self, widths: NDArray[np.int64]) -> int:
        """The cost at a vector of widths, in the order of ``names``."""
        padded = np.append(widths, 1)
        return int((self._coefficients * padded[self._factors].prod(1)).sum())


def _expand(dims: Iterable[Dim], numbers: Mapping[Leaf, int]) -> Iterator[tuple[Monomial, int]]:
    """The monomials of a product of dimensions."""
    total: Counter[Monomial] = Counter({(): 1})
    for dim in dims:
        factor = _monomials(dim, numbers)
        product: Counter[Monomial] = Counter()
        for left, a in total.items():
            for right, b in factor.items():
                product[tuple(sorted(left + right))] += a * b
        total = product
    yield from total.items()


def _monomials(dim: Dim, numbers: Mapping[Leaf, int]) -> Counter[Monomial]:
    if isinstance(dim, Leaf):
        return Counter({(numbers[dim],): 1}) if dim in numbers else Counter({(): dim.size})
    if isinstance(dim, Concat):
        total: Counter[Monomial] = Counter()
        for part in dim.parts:
            total.update(_monomials(part, numbers))
        return total
    return Counter(dict(_expand(dim.factors, numbers)))


def mac_cost(structure: Structure) -> CostPolynomial:
    """Multiply-accumulates of one forward as a function of group widths.

    Counts what :func:`count_macs` counts: convolutions, linear layers, matrix products, attention.
    """
    return CostPolynomial(structure, mac_terms(structure.analysis))


def parameter_cost(structure: Structure) -> CostPolynomial:
    """Parameter elements as a function of group widths; a tied parameter counts once."""
    analysis = structure.analysis
    values = analysis.graph.state(Source.PARAMETER)
    return CostPolynomial(structure, (analysis.dims_of(value.id) for value in values))


def settled_widths(structure: Structure, widths: Mapping[str, int]) -> dict[str, int]:
    """The widths that surgery gives when these are asked for: balances can make some wider.

    Every group is in the result.

    Raises:
        LabelError: for an unknown group.
    """
    axes = {group.name: group.axis for group in structure.groups}
    unknown = [name for name in widths if name not in axes]
    if unknown:
        raise LabelError(f"there is no group {unknown[0]!r}; ir.groups() lists all groups")
    wanted = {axes[name]: width for name, width in widths.items() if width < axes[name].size}
    sizes = balanced_sizes(structure.balances(), wanted, structure.floors()) if wanted else {}
    return {name: sizes.get(axis, axis.size) for name, axis in axes.items()}


def mac_savings(structure: Structure) -> dict[str, float]:
    """For each group: the multiply-accumulates that taking off one of its labels saves."""
    cost = mac_cost(structure)
    full = cost.full
    return {g.name: float(full - cost({g.name: g.size - 1})) for g in structure.groups}
