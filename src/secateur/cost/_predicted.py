"""The latency of one model, predicted from the times of its operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, Protocol

from torch import nn

from ..axes import Dim, Structure
from ..capture import Node, gives_views
from ._functions import Widths
from ._macs import node_macs
from ._settle import Settling, size_of
from ._timing import OperatorCall

MOST_PARTS = 3
"""Axes along which an operator is measured on a grid; beyond, it is scaled by its work."""

MACS_PER_SECOND = 2e10
"""A first guess of the speed of whole modules, which cannot be called alone; the model's own measured
time corrects the sum."""


class OperatorTimes(Protocol):
    """Where the times of operators come from."""

    multiple: int

    def time(self, call: OperatorCall, sizes: Mapping[Any, int]) -> float:
        """Seconds of an operator at these sizes of the parts of its dimensions."""
        ...

    def grid(self, size: int, *, fine: bool = False) -> list[int]:
        """The sizes at which an axis of ``size`` is measured, ascending."""
        ...


class PredictedLatency:
    """The latency of one model as a function of the widths of its groups.

    Args:
        table: where the times of operators are.
        structure: the analysed model.
        full: seconds of the whole model, by which the sum over operators is corrected.
        share: what share of the whole model's time another one takes, by measuring both in turn.
    """

    def __init__(
        self, table: OperatorTimes, structure: Structure, full: float, share: Callable[[nn.Module], float]
    ) -> None:
        self.structure = structure
        self._settle = Settling(structure)
        self._share = share
        self.step = table.multiple
        self._operators = [
            _OperatorTime(table, structure, node)
            for node in structure.analysis.graph.nodes
            if _takes_time(node)
        ]
        self._touched: dict[str, list[int]] = {group.name: [] for group in structure.groups}
        for index, operator in enumerate(self._operators):
            for name in operator.groups:
                self._touched[name].append(index)
        self.full = full
        whole = {group.name: group.size for group in structure.groups}
        self._factor = full / sum(operator.at(whole) for operator in self._operators)

    def __call__(self, widths: Widths) -> float:
        """Predicted seconds at these widths; a group that is not named is whole."""
        settled = self._settle(widths)
        return self._factor * sum(operator.at(settled) for operator in self._operators)

    def measure(self, model: nn.Module) -> float:
        """Measured seconds of a (pruned) model, on the scale of those of the whole one.

        Both are run in turn, so that a machine that has become slower since is not held against it.
        """
        return self.full * self._share(model)

    def curve(self, widths: Widths, alternatives: Sequence[Widths]) -> list[float]:
        """Predicted seconds at ``widths`` with each of the alternatives laid over it."""
        base = self._settle(widths)
        times = [operator.at(base) for operator in self._operators]
        total = sum(times)
        return [self._factor * (total + self._change(base, times, other)) for other in alternatives]

    def _change(self, base: Mapping[str, int], times: list[float], other: Widths) -> float:
        settled = self._settle({**base, **other})
        changed = [name for name, width in settled.items() if width != base[name]]
        touched = {index for name in changed for index in self._touched[name]}
        return sum(self._operators[index].at(settled) - times[index] for index in touched)


def _takes_time(node: Node) -> bool:
    """Whether a node is worth timing: it reads a tensor and makes another one."""
    return bool(node.outputs and node.inputs) and not gives_views(node.op)


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
        self._sizes = [size_of(part, axes) for part in self._parts.values()]
        self._known: dict[tuple[int, ...], float] = {}
        self._corners: dict[tuple[int, ...], float] = {}

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
        total = 0.0
        for corner in product(*(_neighbours(grid, n) for grid, n in zip(self._grids, sizes, strict=True))):
            share = prod(weight for _, weight in corner)
            total += share * self._at_corner(tuple(size for size, _ in corner))
        return total

    @cached_property
    def _grids(self) -> list[list[int]]:
        """The sizes at which each part is measured."""
        # Kernels of one axis, as depthwise convolutions have, jump by factors from step to step.
        fine = len(self._parts) == 1 and any(True for _ in node_macs(self._analysis, self._node))
        return [self._table.grid(part.size, fine=fine) for part in self._parts.values()]

    def _at_corner(self, sizes: tuple[int, ...]) -> float:
        found = self._corners.get(sizes)
        if found is None:
            found = self._table.time(self._call, dict(zip(self._parts, sizes, strict=True)))
            self._corners[sizes] = found
        return found

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


def _neighbours(grid: list[int], size: int) -> list[tuple[int, float]]:
    """The points of a grid around a size, with their shares; below the grid its first point."""
    if size <= grid[0]:
        return [(grid[0], 1.0)]
    above = next(index for index, point in enumerate(grid) if point >= size)
    low, high = grid[above - 1], grid[above]
    share = (size - low) / (high - low)
    return [(high, 1.0)] if share == 1 else [(low, 1.0 - share), (high, share)]
