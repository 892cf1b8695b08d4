"""Recovery without training: what a cut costs, and what comes back in closed form.

    python benchmarks/recovery.py --write docs/benchmarks-recovery.md    # all tasks, and the page
    python benchmarks/recovery.py --task digits --seeds 5

Tasks: ``digits`` (a residual network on scikit-learn's digits), ``photos`` (EfficientNet-Lite0 with its
ImageNet weights; half of the photographs are for calibration, the others for the test), ``sentences``
(all-MiniLM-L6-v2), ``pitch`` (CREPE's full model, cut to the MACs and to the latency of its authors' tiny
one) and ``cost`` (ResNet-50 with 1,024 images: time and memory). What a task
printed is kept in a folder, and measured again only if the task is named.

Labels are chosen by ``ReconstructionCriterion`` and ``KnapsackLabelSelector`` on MACs. Columns: the cut
alone; with the statistics of BatchNorm estimated again; recovered; and both fine-tuned with the same
budget (digits only), each at its best learning rate of the first seed. Means over seeds, with standard
errors.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from accuracy_case import Case, Task
from accuracy_ours import scored
from accuracy_runs import standard_error
from processes import version_line
from recovery_cost import cost_lines
from recovery_pitch import pitch_lines

from secateur import KnapsackLabelSelector
from secateur.cost import Macs

HEAD = """# Recovery without training

Printed by `python benchmarks/recovery.py`; its module docstring says what is measured and how.
"""
TUNED = ("cut and tuned", "recovered and tuned")
WAYS = ("cut", "BatchNorm re-estimated", "recovered", *TUNED)


def digits() -> Task:
    from accuracy_digits import Digits

    return Digits()


def photos() -> Task:
    from recovery_photos import WholePhotos

    return WholePhotos()


def sentences() -> Task:
    from recovery_sentences import ManySentences

    return ManySentences()


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "photos": photos, "sentences": sentences}
NAMES = (*TASKS, "pitch", "cost")
Values = dict[tuple[float, str], tuple[float, ...]]


def measure(task: Task, seed: int, rates: dict[tuple[float, str], float]) -> tuple[Values, list[str]]:
    """All ways of one seed. ``rates`` gets the best learning rates of the first seed."""
    case = task.load(seed)
    full, values = case.macs(case.model), {}
    values[1.0, "cut"] = case.evaluate(case.model)
    ir, notes = scored(case), []
    for share in task.shares:
        labels = KnapsackLabelSelector(share * full, Macs(), verbose=False).select(ir)
        small = ir.prune(labels=labels)
        plain = copy.deepcopy(small.model)
        values[share, "cut"] = case.evaluate(plain)
        if case.settle(plain):
            values[share, "BatchNorm re-estimated"] = case.evaluate(plain)
        start = time.process_time()
        report = small.recover(case.samples)
        seconds = time.process_time() - start
        values[share, "recovered"] = case.evaluate(small.model)
        for way, model in zip(TUNED if task.rates else (), (plain, small.model), strict=False):
            values[share, way] = tuned(case, task, model, rates, (share, way))
        notes.append(
            f"seed {seed}, {case.macs(small.model) / full:.3f} of the MACs: {seconds:.1f} CPU s; error of "
            f"the outputs on held-out examples {report.before:.3f} -> {report.after:.3f}"
        )
        print("  " + notes[-1], flush=True)
    return values, notes


def tuned(
    case: Case,
    task: Task,
    model: torch.nn.Module,
    rates: dict[tuple[float, str], float],
    key: tuple[float, str],
) -> tuple[float, ...]:
    """The metrics after fine-tuning at the best rate, which is searched for the first time."""
    found: dict[float, tuple[float, ...]] = {}
    for rate in (rates[key],) if key in rates else task.rates:
        other = copy.deepcopy(model)
        case.tune(other, rate)
        found[rate] = case.evaluate(other)
    sign = task.metrics[-1].sign
    rates.setdefault(key, max(found, key=lambda rate: sign * found[rate][-1]))
    return found[rates[key]]


def table(task: Task, runs: list[Values]) -> str:
    """Markdown, a line for each share and metric."""
    ways = [way for way in WAYS if (task.shares[0], way) in runs[0]]
    lines = ["| MACs left | metric | full model | " + " | ".join(ways) + " |"]
    lines.append("|---" * (3 + len(ways)) + "|")
    for share in task.shares:
        for index, metric in enumerate(task.metrics):
            cells = [_cell([run[1.0, "cut"][index] for run in runs], metric.digits)]
            cells += [_cell([run[share, way][index] for run in runs], metric.digits) for way in ways]
            lines.append(f"| {share} | {metric.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], digits: int) -> str:
    error = f" ± {standard_error(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"


def task_lines(name: str, seeds: int) -> Iterable[str]:
    """The section of one task."""
    task = TASKS[name]()
    rates: dict[tuple[float, str], float] = {}
    runs, notes = [], []
    for seed in range(seeds):
        values, own = measure(task, seed, rates)
        runs.append(values)
        notes += own
    yield f"## {task.name}\n"
    yield f"{task.data} {seeds} seed{'s' if seeds > 1 else ''}.\n"
    yield table(task, runs) + "\n"
    yield "\n".join(f"- {note}" for note in notes) + "\n"


def section(name: str, seeds: int) -> str:
    """What the page says of a task."""
    start = time.process_time()
    if name in TASKS:
        lines = list(task_lines(name, seeds or (5 if name == "digits" else 2)))
    else:
        lines = list(pitch_lines() if name == "pitch" else cost_lines())
    return "\n".join([*lines, f"`--task {name}`: {time.process_time() - start:.0f} CPU s.\n"])


def write_page(page: Path, kept: Path) -> None:
    """The page with the sections of all tasks that have been measured."""
    found = [path.read_text() for name in NAMES if (path := kept / f"{name}.md").exists()]
    page.write_text("\n".join([HEAD, f"{version_line()}.\n", *found]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=NAMES, help="only this one, and again if it has been measured")
    parser.add_argument("--seeds", type=int, default=0, help="default: 5 of digits, 2 of the others")
    parser.add_argument(
        "--kept", type=Path, default=Path("build/recovery"), help="folder of what was measured"
    )
    parser.add_argument("--write", type=Path, help="write the page to this file: all that was measured")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries that bring the data; ours are tested elsewhere
    torch.set_num_threads(1)
    given.kept.mkdir(parents=True, exist_ok=True)
    for name in [given.task] if given.task else NAMES:
        kept = given.kept / f"{name}.md"
        if given.task or not kept.exists():
            kept.write_text(section(name, given.seeds))
        print(kept.read_text(), flush=True)
    if given.write:
        write_page(given.write, given.kept)


if __name__ == "__main__":
    main()
