"""A table of operator times on this device, from which the latency of a model is predicted."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._errors import MeasurementError
from ..axes import Analysis, Dim, Leaf, Structure
from ..capture import Node, untouched
from ._device import describe_device
from ._functions import Widths
from ._latency import Clock, Latency, measure_latency, threads_set_to
from ._macs import node_macs
from ._polynomial import settled_widths
from ._timing import OperatorCall, part_key, time_call

if TYPE_CHECKING:
    from .._snapshot import Snapshot

FORMAT = 1
MOST_PARTS = 3


class LatencyTable:
    """Measured times of operators at many widths, filled as they are asked for.

    An operator's time depends on the sizes of a few axes. It is measured on a grid of sizes, and
    interpolated between them; a model's latency is the sum over its operators, times the ratio
    of the whole model's measured latency to that sum. What is measured once is remembered under the
    operator's shapes, so equal layers, other models and later selections find it.

    Given to a selector as its ``latency_calculation_function``, the table predicts, and calling it on
    a model measures that model: the selector corrects the prediction by what it measures.

    Args:
        args: positional inputs to measure models at; None for those of the snapshot.
        kwargs: keyword inputs.
        threads: intra-op threads while measuring (default: as they are).
        levels: sizes an axis is measured at, from full down to one part in ``levels``.
        multiple: sizes on the grid are rounded up to multiples of it, which vector units like.
        runs: runs of a whole model; the median counts.
        clock: what tells the time, see :func:`measure_latency`.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.Linear(512, 64)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(256, 64),))
        >>> table = LatencyTable(runs=3)
        >>> predict = table.bind(ir.snapshot())
        >>> predict({}) > predict({"0": 64})
        True
    """

    def __init__(
        self,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        threads: int | None = None,
        levels: int = 8,
        multiple: int = 8,
        runs: int = 15,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.args, self.kwargs = args, kwargs
        self.threads, self.runs, self.clock = threads, runs, clock
        self.levels, self.multiple = levels, multiple
        self.seconds: dict[str, float] = {}
        self.device = describe_device(threads=threads)
        self.measured = 0

    # -- whole models ------------------------------------------------------------------------------

    def __call__(self, model: nn.Module) -> float:
        """Measured seconds of one forward of a model (the median).

        Raises:
            MeasurementError: if the table was not given inputs and has not been bound to a model.
        """
        return self.measure(model).median

    def measure(self, model: nn.Module) -> Latency:
        """Measured latency of a model, with its spread."""
        if self.args is None:
            raise MeasurementError("the table has no inputs to run a model at: LatencyTable(args=(x,))")
        return measure_latency(
            model, self.args, self.kwargs, threads=self.threads, runs=self.runs, clock=self.clock
        )

    def bind(self, snapshot: Snapshot) -> PredictedLatency:
        """The predicted latency of one model as a function of widths; measures the model once."""
        if self.args is None:
            self.args, self.kwargs = snapshot.args, snapshot.kwargs
        return PredictedLatency(self, snapshot.structure, self(snapshot.model))

    # -- operators ---------------------------------------------------------------------------------

    def time(self, call: OperatorCall, sizes: Mapping[Any, int]) -> float:
        """Seconds of an operator at these sizes, measured if they are new."""
        key = call.describe(sizes)
        found = self.seconds.get(key)
        if found is None:
            self.measured += 1
            with torch.no_grad(), torch.random.fork_rng(devices=[]), threads_set_to(self.threads):
                found = self.seconds[key] = time_call(call.prepare(sizes), clock=self.clock)
        return found

    def grid(self, size: int) -> list[int]:
        """The sizes at which an axis of ``size`` is measured, ascending."""
        wanted = (-(-size * part // self.levels) for part in range(1, self.levels + 1))
        return sorted({min(size, -(-n // self.multiple) * self.multiple) for n in wanted})

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, with the description of the device."""
        content = {
            "format": FORMAT,
            "device": self.device,
            "levels": self.levels,
            "multiple": self.multiple,
            "seconds": self.seconds,
        }
        Path(path).write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> LatencyTable:
        """Read a table that :meth:`save` wrote; ``settings`` are those of the constructor.

        Warns:
            UserWarning: if it was measured on another device, or with other settings.

        Raises:
            MeasurementError: if the file is no such table.
        """
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] != FORMAT:
                raise MeasurementError(f"{path}: a table of format {content['format']}, {FORMAT} is known")
            seconds = {str(key): float(value) for key, value in content["seconds"].items()}
            sizes = {"levels": int(content["levels"]), "multiple": int(content["multiple"])}
            device = dict(content["device"])
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise MeasurementError(f"{path} is no latency table ({type(error).__name__}: {error})") from error
        table = cls(**{**sizes, **settings})
        table.seconds = seconds
        differences = [
            f"{name}: {device.get(name)} there, {value} here"
            for name, value in table.device.items()
            if device.get(name) != value
        ]
        if differences:
            warnings.warn(f"{path} was measured elsewhere ({'; '.join(differences)})", stacklevel=2)
        return table


class PredictedLatency:
    """The latency of one model as a function of the widths of its groups.

    Args:
        table: where the times of operators are.
        structure: the analysed model.
        measured: seconds of the whole model, by which the sum over operators is corrected.
    """

    def __init__(self, table: LatencyTable, structure: Structure, measured: float) -> None:
        self._structure = structure
        self._operators = [
            _OperatorTime(table, structure, node)
            for node in structure.analysis.graph.nodes
            if _takes_time(structure.analysis, node)
        ]
        self._touched: dict[str, list[int]] = {group.name: [] for group in structure.groups}
        for index, operator in enumerate(self._operators):
            for name in operator.groups:
                self._touched[name].append(index)
        self.full = measured
        self._factor = measured / sum(o.at({g.name: g.size for g in structure.groups}) for o in self._operators)

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


def _takes_time(analysis: Analysis, node: Node) -> bool:
    """Whether a node is worth timing: it computes something, and gives a tensor."""
    schema = getattr(node.op, "_schema", None)
    if not node.outputs or not node.inputs:
        return False
    return schema is None or not any(r.alias_info and not r.alias_info.is_write for r in schema.returns)


class _OperatorTime:
    """The time of one operator as a function of widths."""

    def __init__(self, table: LatencyTable, structure: Structure, node: Node) -> None:
        self._table = table
        self._call = OperatorCall(structure.analysis, node)
        axes = {group.axis: group.name for group in structure.groups}
        leaves = structure.analysis.algebra.leaves
        dims = [d for id_ in (*node.inputs, *node.outputs) for d in structure.analysis.dims_of(id_)]
        self.groups = sorted({axes[axis] for dim in dims for axis in leaves(dim) if axis in axes})
        self._parts = {
            key: part
            for key, part in self._call.parts().items()
            if any(axis in axes for axis in leaves(part))
        }
        self._axes = axes
        self._macs = node_macs(structure.analysis, node)
        self._known: dict[tuple[int, ...], float] = {}

    def at(self, widths: Mapping[str, int]) -> float:
        """Seconds at these widths."""
        sizes = tuple(_size(part, widths, self._axes) for part in self._parts.values())
        found = self._known.get(sizes)
        if found is None:
            found = self._known[sizes] = self._estimate(sizes)
        return found

    def _estimate(self, sizes: tuple[int, ...]) -> float:
        if not self._call.callable or len(self._parts) > MOST_PARTS:
            return self._scaled(sizes)
        grids = [self._table.grid(part.size) for part in self._parts.values()]
        return self._interpolated([_between(grid, size) for grid, size in zip(grids, sizes, strict=True)])

    def _interpolated(self, places: list[list[tuple[int, float]]]) -> float:
        total = 0.0
        for corner in product(*places):
            weight = prod(share for _, share in corner)
            if weight:
                sizes = dict(zip(self._parts, (size for size, _ in corner), strict=True))
                total += weight * self._table.time(self._call, sizes)
        return total

    def _scaled(self, sizes: tuple[int, ...]) -> float:
        """For what cannot be called at any sizes: the full time, in proportion to the work."""
        full = self._work({})
        share = self._work(dict(zip(self._parts, sizes, strict=True))) / full if full else 1.0
        return share * (self._table.time(self._call, {}) if self._call.callable else full / MACS_PER_SECOND)

    def _work(self, sizes: Mapping[Any, int]) -> float:
        terms = self._macs or [self._call.analysis.dims_of(i) for i in self._call.node.outputs]
        return sum(prod(_size_of(dim, sizes, self._call) for dim in term) for term in terms)


MACS_PER_SECOND = 2e10
"""A first guess of the speed of whole modules, which cannot be timed alone; the model's time corrects it."""


def _size(dim: Dim, widths: Mapping[str, int], axes: Mapping[Leaf, str]) -> int:
    from ..axes import size_of

    return size_of(dim, {axis: widths[name] for axis, name in axes.items()})


def _size_of(dim: Dim, sizes: Mapping[Any, int], call: OperatorCall) -> int:
    return prod(sizes.get(part_key(part), part.size) for part in call._sizes.parts(dim))


def _between(grid: list[int], size: int) -> list[tuple[int, float]]:
    """The neighbours of a size on a grid, with their shares."""
    if size <= grid[0]:
        return [(grid[0], 1.0)]
    above = next(i for i, point in enumerate(grid) if point >= size)
    low, high = grid[above - 1], grid[above]
    share = (size - low) / (high - low)
    return [(low, 1.0 - share), (high, share)] if share < 1 else [(high, 1.0)]


__all__ = ["LatencyTable", "PredictedLatency"]
_ = Iterable, untouched
