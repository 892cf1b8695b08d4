"""Tables of ``accuracy.py``."""

from __future__ import annotations

import math
import statistics

from accuracy_case import Metric
from accuracy_runs import CUT, OURS, Results, standard_error


def accuracy_table(results: Results, methods: list[str], seeds: int) -> str:
    """Ours and the best of the peer's methods, number by number, then what every method costs."""
    task = results.task
    lines = [
        f"### {task.name}",
        "",
        task.data,
        "",
        "| MACs | | metric | Secateur | best of Torch-Pruning | its method | ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    for share in task.shares:
        for tuned in (False, True):
            for index, metric in enumerate(task.metrics):
                lines.append(_row(results, methods, seeds, share, index, metric, tuned=tuned))
    lines += ["", "| method | MACs left | seconds a cut | seconds of tuning |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_costs(results, method, seeds) for method in methods)]) + "\n"


def _row(
    results: Results, methods: list[str], seeds: int, share: float, index: int, metric: Metric, *, tuned: bool
) -> str:
    columns = {m: results.over_seeds(m, seeds, share, index, tuned=tuned) for m in methods}
    complete = {m: values for m, values in columns.items() if values and all(map(math.isfinite, values))}
    ours = complete.pop(OURS)
    best = max(complete, key=lambda method: metric.sign * statistics.mean(complete[method]))
    theirs = complete[best]
    # Both sides have the same model and the same data on each seed.
    gains = [metric.sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
    gain, error = statistics.mean(gains), standard_error(gains)
    ahead = f"{gain / error:+.1f} standard errors" if error else f"{gain:+.{metric.digits}f}"
    when = "fine-tuned" if tuned else "after the cut"
    return (
        f"| {share} | {when} | {metric.name} | {_mean(ours, metric)} | {_mean(theirs, metric)} | {best} "
        f"| {ahead} |"
    )


def _mean(values: list[float], metric: Metric) -> str:
    return f"{statistics.mean(values):.{metric.digits}f} ± {standard_error(values):.{metric.digits}f}"


def _costs(results: Results, method: str, seeds: int) -> str:
    shares = results.task.shares
    cuts = [results.get(method, seed, share) for share in shares for seed in range(seeds)]
    tunes = [
        results.get(method, seed, share, results.best_rate(method, share))
        for share in shares
        for seed in range(seeds)
    ]
    left = ", ".join(
        f"{statistics.mean(run.macs for run in cuts if run and run.share == share):.4f}" for share in shares
    )
    cut = statistics.mean(run.seconds for run in cuts if run and run.rate == CUT)
    tune = statistics.mean(run.seconds for run in tunes if run)
    return f"| {method} | {left} | {cut:.1f} | {tune:.1f} |"
