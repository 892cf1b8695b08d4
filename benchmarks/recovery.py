"""Recovery without training: what a cut costs, and what comes back in closed form.

    python benchmarks/recovery.py                  # all tasks
    python benchmarks/recovery.py --task digits --seeds 5
    python benchmarks/recovery.py --write docs/benchmarks-recovery.md

Tasks: ``digits`` (a residual network on scikit-learn's digits), ``photos`` (EfficientNet-Lite0 with its
ImageNet weights; whole photographs are for calibration, others for the test), ``sentences``
(all-MiniLM-L6-v2, hidden layers only), ``pitch`` (CREPE's full model, cut to the MACs of its authors' tiny
one) and ``cost`` (ResNet-50 with 1,024 images: time and memory).

Labels are chosen by ``ReconstructionCriterion`` and ``KnapsackLabelSelector`` on MACs. Columns: the cut
alone; with the statistics of BatchNorm estimated again; recovered; and both fine-tuned with the same
budget, each at its best learning rate of the first seed. Means over seeds, with standard errors.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
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
WAYS = ("cut", "BatchNorm re-estimated", "recovered", "cut and tuned", "recovered and tuned")


def digits() -> Task:
    from accuracy_digits import Digits

    return Digits()


def photos() -> Task:
    import accuracy_photos

    accuracy_photos.SIDE, accuracy_photos.CALIBRATION = 224, 192

    class WholePhotos(accuracy_photos.Photos):
        """No picture is both for calibration and for the test."""

        shares = (0.9, 0.8)

        def parts(self, pictures: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
            return pictures[::2], pictures[1::2]

    return WholePhotos()


def sentences() -> Task:
    import accuracy_sentences

    accuracy_sentences.CALIBRATION = 1024

    class HiddenLayers(accuracy_sentences.Sentences):
        """Only the hidden layers are cut: heads that are gone, recovery cannot bring back."""

        shares = (0.7, 0.5)

        def load(self, seed: int) -> Case:
            case = super().load(seed)
            heads = (name for name, _ in case.model.named_modules() if name.endswith("attention.self"))
            return replace(case, ignored=tuple(heads))

    return HiddenLayers()


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "photos": photos, "sentences": sentences}
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
        case.settle(plain)
        values[share, "BatchNorm re-estimated"] = case.evaluate(plain)
        start = time.process_time()
        report = small.recover(case.samples)
        seconds = time.process_time() - start
        values[share, "recovered"] = case.evaluate(small.model)
        for way, model in (("cut and tuned", plain), ("recovered and tuned", small.model)):
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
    lines = ["| MACs left | metric | full model | " + " | ".join(WAYS) + " |"]
    lines.append("|---" * (3 + len(WAYS)) + "|")
    for share in task.shares:
        for index, metric in enumerate(task.metrics):
            cells = [_cell([run[1.0, "cut"][index] for run in runs], metric.digits)]
            cells += [_cell([run[share, way][index] for run in runs], metric.digits) for way in WAYS]
            lines.append(f"| {share} | {metric.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {standard_error(values):.{digits}f}"


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
    yield f"{seeds} seeds.\n"
    yield table(task, runs) + "\n"
    yield "\n".join(f"- {note}" for note in notes) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=[*TASKS, "pitch", "cost", "all"], default="all")
    parser.add_argument("--seeds", type=int, default=0, help="default: 5 of digits, 2 of the others")
    parser.add_argument("--write", type=Path, help="write the page to this file too")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries that bring the data; ours are tested elsewhere
    torch.set_num_threads(1)
    parts = [HEAD, f"{version_line()}, one thread.\n"]
    for name in [*TASKS, "pitch", "cost"] if given.task == "all" else [given.task]:
        if name in TASKS:
            lines = list(task_lines(name, given.seeds or (5 if name == "digits" else 2)))
        else:
            lines = list(pitch_lines() if name == "pitch" else cost_lines())
        parts += lines
        print("\n".join(lines), flush=True)
    if given.write:
        given.write.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
