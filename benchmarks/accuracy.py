"""Accuracy at equal cost: Secateur against the best that Torch-Pruning 1.6.1 gives.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --task digits --seeds 2 --screen 1

The same trained model, the same data, the same budget of fine-tuning, at most the same MACs. For each
task every importance of Torch-Pruning is tried within each of its scopes (local, global, isomorphic), its
pruning ratio bisected to the wanted MACs. All of them run on the first ``--screen`` seeds; the best
``--finalists`` for each number of the table run on all seeds. Both sides fine-tune at each of the
task's learning rates; the better one counts, for each method by itself.

Secateur: ``ReconstructionCriterion``, ``KnapsackLabelSelector`` on MACs, ``compensate="least_squares"``. The
statistics of BatchNorm are estimated again for both. A number is a mean over seeds with its standard
error. ``ahead`` says by how many standard errors of the difference.

``--selectors`` prints the other table instead: uniform, global and knapsack selection of the same scores
at equal measured latency.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accuracy_case import Case, Metric, Task
from torch import nn

import secateur
from secateur import KnapsackLabelSelector, PruningIR, ReconstructionCriterion
from secateur.cost import Macs

OURS = "Secateur"


@dataclass
class Entry:
    """What one method gave at one share: values by metric, by seed, after the cut and after tuning."""

    cut: list[tuple[float, ...]] = field(default_factory=list)
    tuned: dict[float, list[tuple[float, ...]]] = field(default_factory=dict)
    macs: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def values(self, metric: int, tuned: bool, better: Metric) -> list[float]:
        """Values of one metric over seeds; after tuning, at the learning rate that is better."""
        if not tuned:
            return [row[metric] for row in self.cut]
        columns = ([row[metric] for row in rows] for rows in self.tuned.values())
        key = statistics.mean
        return max(columns, key=key) if better.higher else min(columns, key=key)


Cutter = Callable[[Case, float], nn.Module | None]
Results = dict[tuple[str, float], Entry]


def tasks() -> dict[str, Callable[[], Task]]:
    """The tasks by name; their libraries are imported when they are asked for."""

    def digits() -> Task:
        from accuracy_digits import Digits

        return Digits()

    def photos() -> Task:
        from accuracy_photos import Photos

        return Photos()

    def sentences() -> Task:
        from accuracy_sentences import Sentences

        return Sentences()

    return {"digits": digits, "photos": photos, "sentences": sentences}


# -- ours ------------------------------------------------------------------------------------------


def scored(case: Case) -> PruningIR:
    """The model with scores."""
    ir = PruningIR(case.model)
    ir.create_snapshot("main", case.args, case.kwargs)
    with ReconstructionCriterion(ir) as collect:
        for sample in case.samples:
            case.loss(collect(sample), sample).backward()
    return ir


def cut_by_us(ir: PruningIR, case: Case, target: float) -> nn.Module:
    """The model cut to a number of MACs."""
    labels = KnapsackLabelSelector(target, Macs(), verbose=False).select(ir)
    return ir.prune(labels=labels, compensate="least_squares", calibration=case.samples).model


# -- measuring -------------------------------------------------------------------------------------


def measure(task: Task, case: Case, name: str, cut: Cutter, results: Results) -> None:
    """One method on one seed, at all shares."""
    full = case.macs(case.model)
    for share in task.shares:
        start = time.process_time()
        small = cut(case, share * full)
        seconds = time.process_time() - start
        entry = results.setdefault((name, share), Entry())
        entry.seconds += seconds
        if small is None:
            worst = tuple(float("-inf") if metric.higher else float("inf") for metric in task.metrics)
            entry.cut.append(worst)
            for rate in task.rates:
                entry.tuned.setdefault(rate, []).append(worst)
            continue
        case.settle(small)
        entry.macs.append(case.macs(small) / full)
        entry.cut.append(case.evaluate(small))
        for rate in task.rates:
            tuned = copy.deepcopy(small)
            case.tune(tuned, rate)
            entry.tuned.setdefault(rate, []).append(case.evaluate(tuned))


def finalists(task: Task, results: Results, names: list[str], count: int) -> set[str]:
    """The best methods for each number of the table."""
    chosen: set[str] = set()
    for share in task.shares:
        for index, metric in enumerate(task.metrics):
            for tuned in (False, True):

                def mean(
                    name: str, where: tuple[float, int, bool, Metric] = (share, index, tuned, metric)
                ) -> float:
                    at, number, after, better = where
                    return statistics.mean(results[name, at].values(number, after, better))

                chosen.update(sorted(names, key=mean, reverse=metric.higher)[:count])
    return chosen


def run(task: Task, seeds: int, screen: int, count: int) -> Results:
    """All methods on all seeds, as far as they are worth it."""
    from accuracy_peer import PeerMethod, peer_methods, prune_with_peer

    methods = {str(method): method for method in peer_methods()}
    results: Results = {}
    remaining = dict(methods)
    for seed in range(seeds):
        case = task.load(seed)
        before = ", ".join(
            f"{m.name} {v:.{m.digits}f}" for m, v in zip(task.metrics, case.evaluate(case.model), strict=True)
        )
        print(f"seed {seed}: the full model has {before}", flush=True)
        start = time.process_time()
        ir = scored(case)
        measure(task, case, OURS, lambda case, target, ir=ir: cut_by_us(ir, case, target), results)
        print(f"  {OURS}: {time.process_time() - start:.0f} s", flush=True)
        if seed == screen:
            kept = finalists(task, results, list(methods), count)
            remaining = {name: method for name, method in methods.items() if name in kept}
        for name, method in remaining.items():

            def cutter(case: Case, target: float, method: PeerMethod = method) -> nn.Module | None:
                return prune_with_peer(case, task, method, target)

            start = time.process_time()
            measure(task, case, name, cutter, results)
            print(f"  {name}: {time.process_time() - start:.0f} s", flush=True)
    return {key: entry for key, entry in results.items() if len(entry.cut) == seeds}


# -- table -----------------------------------------------------------------------------------------


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    mean = statistics.mean(values)
    return mean, statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def table(task: Task, results: Results) -> str:
    """The best of the peer's methods and ours, number by number."""
    lines = [
        f"### {task.name}",
        "",
        "| MACs | | metric | Secateur | best of Torch-Pruning | its method | ahead |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {name for name, _ in results if name != OURS}
    for share in task.shares:
        for tuned in (False, True):
            for index, metric in enumerate(task.metrics):
                ours = results[OURS, share].values(index, tuned, metric)
                peers = {n: results[n, share].values(index, tuned, metric) for n in names}
                pick = max if metric.higher else min
                best = pick(peers, key=lambda name, peers=peers: statistics.mean(peers[name]))
                (mean, error), (other, other_error) = spread(ours), spread(peers[best])
                gain = (mean - other) * (1 if metric.higher else -1)
                units = gain / math.hypot(error, other_error) if error or other_error else math.inf
                text = f"{mean:.{metric.digits}f} ± {error:.{metric.digits}f}"
                peer = f"{other:.{metric.digits}f} ± {other_error:.{metric.digits}f}"
                when = "fine-tuned" if tuned else "right after the cut"
                lines.append(
                    f"| {share} | {when} | {metric.name} | {text} | {peer} | {best} | {units:+.1f} |"
                )
    lines += ["", "| method | MACs left | CPU seconds a cut |", "|---|---|---|"]
    for name in sorted({name for name, _ in results}, key=lambda name: name != OURS):
        entries = [results[name, share] for share in task.shares]
        left = ", ".join(f"{statistics.mean(e.macs):.4f}" if e.macs else "none" for e in entries)
        seconds = sum(e.seconds for e in entries) / sum(len(e.cut) for e in entries)
        lines.append(f"| {name} | {left} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    known = tasks()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=[*known, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--screen", type=int, default=1, help="seeds on which every method runs")
    parser.add_argument("--finalists", type=int, default=2, help="methods kept for each number")
    parser.add_argument("--selectors", action="store_true", help="compare selectors at equal latency")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peer and of the data sets; ours are tested elsewhere
    torch.set_num_threads(1)
    print(f"secateur {secateur.__version__}, torch {torch.__version__}, one thread\n")
    for name in known if options.task == "all" else [options.task]:
        task = known[name]()
        if options.selectors:
            from accuracy_selectors import compare_selectors

            print(compare_selectors(task, options.seeds), flush=True)
            continue
        print(table(task, run(task, options.seeds, options.screen, options.finalists)), flush=True)


if __name__ == "__main__":
    main()
