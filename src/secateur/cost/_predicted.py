"""The latency of one model, predicted from the times of its operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Protocol

from ..axes import Concat, Dim, Leaf, Structure
from ..capture import Node
from ._functions import Widths
from ._macs import node_macs
from ._polynomial import settled_widths
from ._timing import OperatorCall

MOST_PARTS = 3
"""Axes along which an operator is measured on a grid; beyond, it is scaled by its work."""

MACS_PER_SECOND = 2e10
"""A first guess of the speed of whole modules, which cannot be called alone; the model's own measured
time corrects the sum."""

SizeOf = Callable[[Mapping[str, int]], int]


class OperatorTimes(Protocol):
    """Where the times of operators come from."""

    def time(self, call: OperatorCall, sizes: Mapping[Any, int]) -> float:
        """Seconds of an operator at these sizes of the parts of its dimensions."""
        ...

    def grid(self, size: int) -> list[int]:
        """The sizes at which an axis of ``size`` is measured, ascending."""
        ...


class PredictedLatency:
    """The latency of one model as a function of the widths of its groups.

    Args:
        table: where the times of operators are.
        structure: the analysed model.
        measured: seconds of the whole model, by which the sum over operators is corrected.
    """

    def __init__(self, table: OperatorTimes, structure: Structure, measured: float) -> None:
        self._structure = structure
        self._operators = [
            _OperatorTime(table, structure, node)
            for node in structure.analysis.graph.nodes
            if _takes_time(node)
        ]
        self._touched: dict[str, list[int]] = {group.name: [] for group in structure.groups}
        for index, operator in enumerate(self._operators):
            for name in operator.groups:
                self._touched[name].append(index)
        self.full = measured
        whole = {group.name: group.size for group in structure.groups}
        self._factor = measured / sum(operator.at(whole) for operator in self._operators)

    def __call__(self, widths: Widths) -> float:
        """Predicted seconds at these widths; a group that is not named is whole."""
        settled = settled_widths(self._structure, widths)
        return self._factor * sum(operator.at(settled) for operator in self._operators)

    def curve(self, widths: Widths, alternatives: Sequence[Widths]) -> list[float]:
        """Predicted seconds at ``widths`` with each of the alternatives laid over it."""
        base = settled_widths(self._structure, widths)
        times = [operator.at(base) for operator in self._operators]
        total = sum(times)
        return [self._factor * (total + self._change(base, times, other)) for other in alternatives]

    def _change(self, base: Mapping[str, int], times: list[float], other: Widths) -> float:
        settled = settled_widths(self._structure, {**base, **other})
        changed = [name for name, width in settled.items() if width != base[name]]
        touched = {index for name in changed for index in self._touched[name]}
        return sum(self._operators[index].at(settled) - times[index] for index in touched)


def _takes_time(node: Node) -> bool:
    """Whether a node is worth timing: it reads a tensor and makes another one."""
    schema = getattr(node.op, "_schema", None)
    if not node.outputs or not node.inputs:
        return False
    return schema is None or not any(
        result.alias_info is not None and not result.alias_info.is_write for result in schema.returns
    )


class _OperatorTime:
    """The time of one operator as a function of widths."""

    def __init__(self, table: OperatorTimes, structure: Structure, node: Node) -> None:
        self._table = table
        self._analysis = structure.analysis
        self._node = node
        self._call = OperatorCall(structure.analysis, node)
        axes = {group.axis: group.name for group in structure.groups}
        leaves = structure.analysis.algebra.leaves
        parts = self._call.parts()
        self._parts = {k: p for k, p in parts.items() if any(axis in axes for axis in leaves(p))}
        self.groups = sorted({axes[a] for p in self._parts.values() for a in leaves(p) if a in axes})
        self._sizes = [_size_of(part, axes) for part in self._parts.values()]
        self._known: dict[tuple[int, ...], float] = {}

    def at(self, widths: Mapping[str, int]) -> float:
        """Seconds at these widths; every group has to be named."""
        sizes = tuple(size(widths) for size in self._sizes)
        found = self._known.get(sizes)
        if found is None:
            found = self._known[sizes] = self._estimate(sizes)
        return found

    def _estimate(self, sizes: tuple[int, ...]) -> float:
        if not self._call.callable or len(sizes) > MOST_PARTS:
            return self._in_proportion(sizes)
        grids = (self._table.grid(part.size) for part in self._parts.values())
        total = 0.0
        for corner in product(*(_neighbours(grid, n) for grid, n in zip(grids, sizes, strict=True))):
            share = prod(weight for _, weight in corner)
            point = dict(zip(self._parts, (size for size, _ in corner), strict=True))
            total += share * self._table.time(self._call, point)
        return total

    def _in_proportion(self, sizes: tuple[int, ...]) -> float:
        """For what cannot be called at any sizes: the full time times the share of the work."""
        work = self._work(dict(zip(self._parts, sizes, strict=True)))
        full = self._work({})
        if not self._call.callable:
            return work / MACS_PER_SECOND
        return self._table.time(self._call, {}) * (work / full if full else 1.0)

    def _work(self, sizes: Mapping[Any, int]) -> int:
        """Multiply-accumulates, or elements of the results where there are none."""
        terms: list[Sequence[Dim]] = [*node_macs(self._analysis, self._node)]
        terms = terms or [self._analysis.dims_of(id_) for id_ in self._node.outputs]
        return sum(prod(self._call.size(dim, sizes) for dim in term) for term in terms)


def _size_of(dim: Dim, names: Mapping[Leaf, str]) -> SizeOf:
    """The size of a dimension as a function of widths."""
    if isinstance(dim, Leaf):
        name = names.get(dim)
        return (lambda widths: dim.size) if name is None else (lambda widths: widths[name])
    if isinstance(dim, Concat):
        items = [_size_of(part, names) for part in dim.parts]
        return lambda widths: sum(item(widths) for item in items)
    items = [_size_of(factor, names) for factor in dim.factors]
    return lambda widths: prod(item(widths) for item in items)


def _neighbours(grid: list[int], size: int) -> list[tuple[int, float]]:
    """The points of a grid around a size, with their shares; below the grid its first point."""
    if size <= grid[0]:
        return [(grid[0], 1.0)]
    above = next(index for index, point in enumerate(grid) if point >= size)
    low, high = grid[above - 1], grid[above]
    share = (size - low) / (high - low)
    return [(high, 1.0)] if share == 1 else [(low, 1.0 - share), (high, share)]
