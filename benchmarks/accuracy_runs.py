"""Runs of ``accuracy.py``: what has been measured is kept in a file, and not measured again."""

from __future__ import annotations

import copy
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from accuracy_case import Case, Load, Metric, Task
from torch import nn

OURS = "Secateur"
CUT = 0.0
"""Stands for a learning rate in what was measured right after the cut."""


class Cutter(Protocol):
    """What cuts the model of a case."""

    def cut(self, target: float) -> nn.Module | None:
        """The model with at most ``target`` MACs, or None."""
        ...


@dataclass(frozen=True)
class Run:
    """What one method gave on one seed at one share, after the cut or after tuning at one rate.

    ``values`` is empty where the method failed; ``seconds`` is CPU time of the cut, or of the tuning.
    """

    task: str
    method: str
    seed: int
    share: float
    rate: float
    values: tuple[float, ...]
    macs: float
    seconds: float


class Results:
    """All runs of a task, in a file with one JSON object a line."""

    def __init__(self, path: Path, task: Task) -> None:
        self._path = path
        self.task = task
        self._runs: dict[tuple[str, int, float, float], Run] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            entry = json.loads(line)
            run = Run(**{**entry, "values": tuple(entry["values"])})
            if run.task == task.key:
                self._runs[run.method, run.seed, run.share, run.rate] = run

    def get(self, method: str, seed: int, share: float, rate: float = CUT) -> Run | None:
        """One run, if it has been made."""
        return self._runs.get((method, seed, share, rate))

    def put(self, run: Run) -> None:
        """Keep a run."""
        self._runs[run.method, run.seed, run.share, run.rate] = run
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")

    def methods(self) -> list[str]:
        """The names of all methods that have a run."""
        return list(dict.fromkeys(run.method for run in self._runs.values()))

    def value(self, method: str, seed: int, share: float, index: int, rate: float) -> float:
        """One number; the worst there is where the method failed or was not run."""
        run = self.get(method, seed, share, rate)
        worst = -self.task.metrics[index].sign * float("inf")
        return run.values[index] if run and run.values else worst

    def best_rate(self, method: str, share: float) -> float:
        """The learning rate that is best for a method on the first seed, by the last metric."""
        index = len(self.task.metrics) - 1
        sign = self.task.metrics[index].sign
        return max(self.task.rates, key=lambda rate: sign * self.value(method, 0, share, index, rate))

    def over_seeds(
        self, method: str, seeds: int, share: float, index: int, *, tuned: bool
    ) -> list[float] | None:
        """One metric on all seeds; None unless the method has run on all of them."""
        rate = self.best_rate(method, share) if tuned else CUT
        if any(self.get(method, seed, share, rate) is None for seed in range(seeds)):
            return None
        return [self.value(method, seed, share, index, rate) for seed in range(seeds)]


def measure(
    results: Results, load: Load, method: str, seed: int, share: float, rates: Iterable[float], cutter: Cutter
) -> None:
    """Cut once, then evaluate and tune as far as that has not been done."""
    missing = [rate for rate in (CUT, *rates) if results.get(method, seed, share, rate) is None]
    if not missing:
        return
    case = load()
    full = case.macs(case.model)
    start = time.process_time()
    small = cutter.cut(share * full)
    seconds = time.process_time() - start
    if small is not None:
        case.settle(small)
    for rate in missing:
        values: tuple[float, ...] = ()
        macs = 0.0
        if small is not None:
            tuned, start = copy.deepcopy(small), time.process_time()
            if rate != CUT:
                case.tune(tuned, rate)
                seconds = time.process_time() - start
            values, macs = case.evaluate(tuned), case.macs(tuned) / full
        run = Run(results.task.key, method, seed, share, rate, values, macs, seconds)
        results.put(run)
        print(f"  seed {seed}, {share}, {method}, {rate or 'cut'}: {values}, {seconds:.1f} s", flush=True)


def finalists(results: Results, names: list[str], count: int) -> list[str]:
    """The peer's best methods for each number that the first seed gave right after the cut."""
    chosen: dict[str, None] = {}
    for share in results.task.screened:
        for index, metric in enumerate(results.task.metrics):

            def key(name: str, at: tuple[float, int, Metric] = (share, index, metric)) -> float:
                return at[2].sign * results.value(name, 0, at[0], at[1], CUT)

            chosen |= dict.fromkeys(sorted(names, key=key, reverse=True)[:count])
    return list(chosen)


Cutters = Callable[[Load], dict[str, Cutter]]


def loader(task: Task, seed: int) -> Load:
    """The case of a seed, made once, when something has to be measured."""

    @functools.cache
    def load() -> Case:
        case = task.load(seed)
        print(f"{task.name}, seed {seed}: the full model has {case.evaluate(case.model)}", flush=True)
        return case

    return load


def run_task(results: Results, seeds: int, count: int, cutters: Cutters) -> list[str]:
    """All methods on the first seed, the best of them on every seed.

    Returns:
        The methods that ran on every seed, ours first.
    """
    task = results.task
    kept: list[str] = []
    for seed in range(seeds):
        load = loader(task, seed)
        ways = cutters(load)
        if seed == 0:
            for share in task.screened:
                for name, cutter in ways.items():
                    measure(results, load, name, seed, share, (), cutter)
            kept = [OURS, *finalists(results, [name for name in ways if name != OURS], count)]
        for name in kept:
            for share in task.shares:
                rates = task.rates if seed == 0 else (results.best_rate(name, share),)
                measure(results, load, name, seed, share, rates, ways[name])
    return kept


def standard_error(values: list[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
