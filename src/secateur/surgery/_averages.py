"""Averages over an axis that is cut: which parameters have to be scaled to make up for them.

A mean over ``n`` positions of which ``n'`` stay is ``f = n / n'`` times too large, if what went was
zero. Every tensor is therefore given an exponent: in the small model it is ``f ** e`` times what it
is in the masked one. Each operator is a linear equation between the exponents of its operands and
results: those of a sum are equal, a product adds them, a root halves them, a mean adds one; inputs
and outputs of the model, and whatever is not homogeneous, have zero. Parameters are free. If the
equations can be solved, scaling the parameters by their exponents makes the average exact: for
RMSNorm in a residual stream, say, whatever writes into the stream shrinks by ``f ** -0.5``, and the
gains of the norms grow by as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch

from ..axes import Analysis, Dim, Keep, Leaf, Operand, Operator, Product, kept_size, operands_in
from ..capture import Node, Source
from ._fold import MOVES, PASSES, Fold, packet
from ._replay import Scale

aten = torch.ops.aten
Unknown: TypeAlias = "int | tuple[Any, ...]"
"""The exponent of a tensor, by its id; or a dimension that an average is taken over."""
Equation = dict[Unknown, Fraction]
"""Coefficients of a sum that is zero."""

HALF = Fraction(1, 2)


def _packets(*names: str) -> set[Any]:
    found = (getattr(aten, name + suffix, None) for name in names for suffix in ("", "_"))
    return {packet for packet in found if packet is not None}


_SAME = MOVES | PASSES | _packets(
    "relu", "leaky_relu", "abs", "sum", "amax", "amin", "max_pool1d", "max_pool2d", "avg_pool1d",
    "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "linalg_vector_norm", "index_select", "index",
    "detach", "permute", "unfold",
)  # fmt: skip
_SUMS = _packets("add", "sub", "cat", "concat", "stack", "maximum", "minimum")
_QUOTIENTS = _packets("div")
_PRODUCTS = _packets("mul", "matmul", "mm", "bmm", "mv", "einsum", "_grouped_mm")
_POWERS = {aten.sqrt: HALF, aten.rsqrt: -HALF, aten.square: Fraction(2), aten.reciprocal: Fraction(-1)}
# (factors), (terms beside their product): the result has the exponent of each of them.
_WEIGHTED: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    aten.linear: (("input", "weight"), ("bias",)),
    **{p: (("input", "weight"), ("bias",)) for p in _packets("conv1d", "conv2d", "conv3d")},
    aten.addmm: (("mat1", "mat2"), ("self",)),
    aten.embedding: (("weight",), ()),
}
# What is normalised, or weighed by a softmax, has to be what it was; the rest sets the exponent.
_FIXED: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    aten.layer_norm: (("weight",), ("bias",)),
    aten.group_norm: (("weight",), ("bias",)),
    aten.batch_norm: (("weight",), ("bias",)),
    aten.scaled_dot_product_attention: (("value",), ()),
}


class Averages:
    """The averages of one graph over axes that may be cut, and the exponents that make up for them.

    Attributes:
        made_up: averages that can be made up for, as (node index, number of the average there).
    """

    def __init__(self, analysis: Analysis, axes: Iterable[Leaf]) -> None:
        self.made_up: set[tuple[int, int]] = set()
        self._analysis = analysis
        self._dims: dict[tuple[Any, ...], Dim] = {}
        self._solved: dict[Unknown, Equation] = {}
        self._failed: set[Unknown] = set()
        self._free = frozenset(axes)
        self._exponents: dict[str, Equation] = {}
        averages = list(self._averages())
        if averages:
            self._solve()
        self.made_up = {place for place, key in averages if key not in self._failed}

    def scales(self, keep: Keep) -> list[Scale]:
        """The parameters to scale, and by how much, if only ``keep`` stays."""
        found = []
        shapes = {value.name: value.shape for value in self._analysis.graph.state(Source.PARAMETER)}
        sizes = {key: kept_size(dim, keep) / dim.size for key, dim in self._dims.items()}
        for name, exponents in self._exponents.items():
            factor = prod(sizes[key] ** -float(power) for key, power in exponents.items())  # pyright: ignore
            if factor != 1:
                rows = np.arange(shapes[name][0])
                found.append(Scale(Fold(((name, 0, rows),)), factor))
        return found

    def _averages(self) -> Iterator[tuple[tuple[int, int], Unknown]]:
        leaves = self._analysis.algebra.leaves
        for node, operator in self._operators():
            for number, average in enumerate(operator.averages if operator else ()):
                if not self._free.isdisjoint(leaves(average.dim)):
                    yield (node.index, number), self._key(average.dim)

    def _operators(self) -> Iterator[tuple[Node, Operator | None]]:
        return zip(self._analysis.graph.nodes, self._analysis.operators, strict=True)

    def _key(self, dim: Dim) -> tuple[Any, ...]:
        dim = self._analysis.algebra.resolve(dim)
        key = _structure(dim)
        self._dims[key] = dim
        return key

    # -- equations ---------------------------------------------------------------------------------

    def _solve(self) -> None:
        graph = self._analysis.graph
        zero = {
            value.id for value in graph.values
            if value.source not in (Source.PARAMETER, Source.OPERATOR) or not value.shape
        }  # fmt: skip
        for id_ in (*zero, *graph.outputs.values()):
            self._state({id_: Fraction(1)})
        for node, operator in self._operators():
            for equation in self._equations(node, operator):
                self._state(equation)
        for value in graph.state(Source.PARAMETER):
            found = self._reduced({value.id: Fraction(1)})
            powers: Equation = {
                key: c for key, c in found.items() if isinstance(key, tuple) and key not in self._failed
            }
            if powers:
                self._exponents[value.name] = powers

    def _state(self, equation: Equation) -> None:
        """Take an equation in: one of its unknowns is solved for, or it is a contradiction."""
        equation = self._reduced(equation)
        unknowns = [key for key in equation if isinstance(key, int)]
        if not unknowns:
            self._failed |= equation.keys()
            return
        chosen = max(unknowns)  # what the run made before parameters, and the last of these
        own = equation.pop(chosen)
        self._solved[chosen] = {key: -c / own for key, c in equation.items()}

    def _reduced(self, equation: Equation) -> Equation:
        """The equation without what is solved already."""
        equation = {key: c for key, c in equation.items() if c}
        while known := [key for key in equation if key in self._solved]:
            for key in known:
                factor = equation.pop(key)
                for other, c in self._solved[key].items():
                    equation[other] = equation.get(other, Fraction(0)) + factor * c
            equation = {key: c for key, c in equation.items() if c}
        return equation

    def _equations(self, node: Node, operator: Operator | None) -> Iterator[Equation]:
        floating = {
            id_ for id_ in (*node.inputs, *node.outputs)
            if self._analysis.graph.values[id_].dtype.is_floating_point
        }  # fmt: skip
        outputs = [id_ for id_ in node.outputs if id_ in floating]
        inputs = (
            [o.id for o in operands_in(operator.arguments.values()) if o.id in floating] if operator else []
        )
        sides = self._sides(node, operator, inputs) if operator and outputs and inputs else None
        if sides is None:  # not homogeneous: nothing it reads or makes may change
            for id_ in floating:
                yield {id_: Fraction(1)}
            return
        made, unchanged = sides
        # A norm's second result is the statistics, which stay what they were.
        others = outputs[1:] if operator and operator.averages else []
        for id_ in (*unchanged, *others):
            yield {id_: Fraction(1)}
        for out in outputs[: len(outputs) - len(others)]:
            for side in made:
                equation: Equation = {out: Fraction(-1)}
                for key, c in side:
                    equation[key] = equation.get(key, Fraction(0)) + c
                yield equation

    def _sides(self, node: Node, operator: Operator, inputs: list[int]) -> _Sides | None:
        """What the exponent of a result is equal to (each of several sums), and what must stay as it is."""
        kind, given = packet(node), operator.arguments
        if operator.averages:
            return self._average_sides(operator, inputs)
        if kind in _SAME:
            return [_product(inputs[:1])], inputs[1:]
        if kind in _SUMS:
            return [_product([id_]) for id_ in inputs], inputs if _adds_number(given) else []
        if kind in _PRODUCTS:
            return [_product(inputs)], []
        if kind in _QUOTIENTS and isinstance(given.get("self"), Operand) and not given.get("rounding_mode"):
            return [[*_product(inputs[:1]), *((id_, Fraction(-1)) for id_ in inputs[1:])]], []
        if kind in _POWERS or (kind is aten.pow and _is_number(given.get("exponent")) and len(inputs) == 1):
            return [[(inputs[0], _POWERS.get(kind) or Fraction(given["exponent"]))]], []
        if kind in _WEIGHTED or kind in _FIXED:
            factors, terms = _WEIGHTED.get(kind) or _FIXED[kind]
            made = [_product(_named(given, factors)), *(_product([id_]) for id_ in _named(given, terms))]
            stated = {key for side in made for key, _ in side}
            return made, [] if kind in _WEIGHTED else [id_ for id_ in inputs if id_ not in stated]
        return None

    def _average_sides(self, operator: Operator, inputs: list[int]) -> _Sides:
        """An average measures its dimensions; a norm asks that its mean square stays what it was."""
        leaves = self._analysis.algebra.leaves
        cut = [a for a in operator.averages if not self._free.isdisjoint(leaves(a.dim))]
        made = _product(inputs)
        if any(average.normalises for average in operator.averages):
            # The mean square is what it was if the operand shrinks by the root of the factor.
            self._state({inputs[0]: Fraction(1), **{self._key(a.dim): HALF for a in cut}})
            return [made], []
        return [[*made, *((self._key(a.dim), Fraction(1)) for a in cut)]], []


_Side: TypeAlias = list[tuple[Unknown, Fraction]]
_Sides: TypeAlias = tuple[list[_Side], list[int]]


def _structure(dim: Dim) -> tuple[Any, ...]:
    """What tells resolved dimensions apart."""
    if isinstance(dim, Leaf):
        return (id(dim),)
    items = dim.factors if isinstance(dim, Product) else dim.parts
    return (type(dim).__name__, *map(_structure, items))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _adds_number(arguments: dict[str, Any]) -> bool:
    """Whether a sum has a term that is a number other than zero."""
    return any(_is_number(arguments.get(name)) and arguments[name] != 0 for name in ("self", "other"))


def _named(arguments: dict[str, Any], names: Iterable[str]) -> list[int]:
    """Ids of the operands that are given under these names."""
    return [value.id for name in names if isinstance(value := arguments.get(name), Operand)]


def _product(ids: Iterable[int]) -> _Side:
    """The exponent of a product: that of nothing is zero."""
    return [(id_, Fraction(1)) for id_ in ids]
