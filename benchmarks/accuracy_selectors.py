"""Uniform, global and knapsack selection of the same scores at equal predicted latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_ours import repaired, scored
from accuracy_runs import CUT, Results, Run, standard_error

from secateur import (
    BinarySearchLatencyLabelSelector,
    KnapsackLabelSelector,
    Label,
    PruningIR,
    UniformLabelSelector,
)
from secateur.cost import BoundCost, LatencyTable

STEPS = 12


class RelativeLatency:
    """Predicted latency as a share of the full model's, from one table of operator times.

    It is not corrected by measuring, so equal predictions are equal for every selector.
    """

    def __init__(self, bound: BoundCost) -> None:
        self._bound = bound
        self._full = bound({})

    @classmethod
    def of(cls, ir: PruningIR, path: Path) -> RelativeLatency:
        """The latency of a model; operator times are kept in a file, the same for all seeds."""
        table = LatencyTable.load(path, threads=1) if path.exists() else LatencyTable(threads=1)
        return cls(_Kept(table, path, table.bind(ir.snapshot())))

    def bind(self, snapshot: Any) -> RelativeLatency:
        """Itself: it belongs to one model."""
        return self

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Share of the full model's latency at these widths."""
        return self._bound(widths) / self._full

    def curve(self, widths: Mapping[str, int], alternatives: Sequence[Mapping[str, int]]) -> list[float]:
        """Shares at ``widths`` with each of the alternatives laid over it."""
        return [value / self._full for value in self._bound.curve(widths, alternatives)]


class _Kept:
    """A predicted latency whose table is written when it has learned something."""

    def __init__(self, table: LatencyTable, path: Path, bound: BoundCost) -> None:
        self._table, self._path, self._bound = table, path, bound
        self._known = -1

    def __call__(self, widths: Mapping[str, int]) -> float:
        value = self._bound(widths)
        self._save()
        return value

    def curve(self, widths: Mapping[str, int], alternatives: Sequence[Mapping[str, int]]) -> list[float]:
        values = self._bound.curve(widths, alternatives)
        self._save()
        return values

    def _save(self) -> None:
        if len(self._table.seconds) != self._known:
            self._known = len(self._table.seconds)
            self._table.save(self._path)


def by_uniform(ir: PruningIR, target: float, cost: RelativeLatency) -> list[Label]:
    """The smallest ratio that comes within the target, as near as bisection gets."""
    low, high = 0.0, 1.0 - 1e-6
    for _ in range(STEPS):
        ratio = (low + high) / 2
        within = cost(_widths(ir, UniformLabelSelector(ratio).select(ir))) <= target
        low, high = (low, ratio) if within else (ratio, high)
    return UniformLabelSelector(high).select(ir)


def by_global(ir: PruningIR, target: float, cost: RelativeLatency) -> list[Label]:
    """The lowest scores of all groups, until the target is met."""
    return BinarySearchLatencyLabelSelector(target, cost, verbose=False, on_infeasible="warn").select(ir)


def by_knapsack(ir: PruningIR, target: float, cost: RelativeLatency) -> list[Label]:
    """As much score as fits under the target."""
    return KnapsackLabelSelector(target, cost, verbose=False, on_infeasible="warn").select(ir)


SELECTORS = {"uniform": by_uniform, "global": by_global, "knapsack": by_knapsack}


def _widths(ir: PruningIR, labels: Sequence[Label]) -> dict[str, int]:
    widths = {group.name: group.size for group in ir.groups()}
    for label in labels:
        widths[label.group] -= 1
    return widths


def run_selectors(results: Results, seeds: int, path: Path) -> None:
    """Every selector on every seed; what is known is not run again. ``macs`` holds the latency's share."""
    task = results.task
    for seed in range(seeds):
        wanted = [(n, s) for n in SELECTORS for s in task.latencies if results.get(n, seed, s) is None]
        if not wanted:
            continue
        case = task.load(seed)
        ir = scored(case, measured=task.measured)
        cost = RelativeLatency.of(ir, path)
        for name, share in wanted:
            start = time.process_time()
            labels = SELECTORS[name](ir, share, cost)
            seconds = time.process_time() - start
            small = repaired(ir, case, labels)
            case.settle(small)
            reached = cost(_widths(ir, labels))
            run = Run(task.key, name, seed, share, CUT, case.evaluate(small), reached, seconds)
            results.put(run)
            print(f"  seed {seed}, latency {share}, {name}: {run.values}, {seconds:.1f} s", flush=True)


def selector_table(results: Results, seeds: int) -> str:
    """Means over seeds after the cut."""
    task = results.task
    heads = " | ".join(metric.name for metric in task.metrics)
    lines = [
        f"### Selectors at equal latency: {task.name}",
        "",
        f"| latency | selector | {heads} | predicted latency | seconds of selecting |",
        "|" + "---|" * (4 + len(task.metrics)),
    ]
    for share in task.latencies:
        for name in SELECTORS:
            runs = [run for seed in range(seeds) if (run := results.get(name, seed, share)) is not None]
            cells = []
            for index, metric in enumerate(task.metrics):
                values = [run.values[index] for run in runs]
                mean, error = statistics.mean(values), standard_error(values)
                cells.append(f"{mean:.{metric.digits}f} ± {error:.{metric.digits}f}")
            reached = statistics.mean(run.macs for run in runs)
            seconds = statistics.mean(run.seconds for run in runs)
            lines.append(f"| {share} | {name} | {' | '.join(cells)} | {reached:.3f} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"
