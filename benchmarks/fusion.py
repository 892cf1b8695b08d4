"""Pruned, quantised and distilled in one run, against one after another; then deployed and measured.

    python benchmarks/fusion.py                                     # everything, about 25 minutes
    python benchmarks/fusion.py --task digits
    python benchmarks/fusion.py --table docs/benchmarks-fusion.md   # from the records, no run

Tasks: ``digits`` (a residual network on scikit-learn's digits), ``photos`` (EfficientNet-Lite0 with its
ImageNet weights) and ``sentences`` (all-MiniLM-L6-v2). The cut is the same for all ways:
``ReconstructionCriterion`` (multiples of 16 channels stay; an equal share of every group, of
EfficientNet-Lite0 what saves most time of integer kernels) and recovery without training. One after another
is a third of the steps with the user's own loss, a third with the original as teacher, a third of
quantisation-aware training; in one run is the teacher from the first step, and values are rounded in the last
sixth. Teachers are asked once for each batch; beside them the user's own loss counts half, on the digits
ten times as much as the teacher, which knows no more there than the labels say.

Cut, budget, rate and share of rounded steps of photographs and sentences were chosen without a look at the
test data, on parts of what is for training: the upper three fifths of each left half of a photograph against
the lower ones, sentences of neither part. Both kinds of training have one rate there; EfficientNet-Lite0 is
trained with its norms folded, all-MiniLM-L6-v2 without dropout, by all ways alike. Of the digits, weights and
rates were chosen on halves drawn with seeds that are not in the table, each kind of training its best of
three rates; the pictures are the same 1,797, so they are test data of the table's seeds too.

Records are kept line by line in ``build/fusion.jsonl``, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from fusion_cases import CASES, Case
from fusion_ways import WAYS, timed
from processes import append_line, read_lines, version_line

from secateur.deploy import DeployReport, to_onnx

Record = dict[str, Any]
RECORDS = Path("build/fusion.jsonl")
HEAD = """# Fused compression, deployed

Printed by `python benchmarks/fusion.py --table docs/benchmarks-fusion.md`; its module docstring says what is
measured and how.

- **quality**: of the deployed file in ONNX Runtime, on data that is not trained on.
- **kB**, **ms**: of the ONNX file, on one thread, the median of runs in turn with those of the float
  original; **smaller** and **faster** are against it.
- **training**: what the way takes on one thread, in seconds of the processor, without the cut.
- **same top-1**, **within one step**: the file against the simulation in PyTorch, with integer arithmetic
  (`secateur.deploy.to_integers`): rows whose largest value is at the same place, and values that are no
  further apart than one step of 8 bits.
- **in floats**: the same two against the simulation in floats that was trained; see
  [deployment](deploy.md#the-simulation-integer-for-integer) for why it differs in deep networks.
"""
SEEDS = {"digits": 10, "photos": 1, "sentences": 1}
NUMBERS = (
    "seconds",
    "simulated",
    "quality",
    "bytes",
    "smaller",
    "ms",
    "faster",
    "top1",
    "near",
    "float_top1",
    "float_near",
)
COLUMNS = (
    "way",
    "quality",
    "kB",
    "smaller",
    "ms",
    "faster",
    "training [s]",
    "same top-1",
    "within one step",
    "in floats",
)


def measure(case: Case, way: str) -> Record:
    """One line of the table."""
    model, seconds = timed(WAYS[way], case)
    simulated = case.quality(model)
    with tempfile.TemporaryDirectory() as folder:
        report = to_onnx(
            model,
            case.args,
            Path(folder) / "model.onnx",
            case.kwargs,
            original=case.model,
            samples=case.test,
            runs=200,
        )
        deployed = case.quality(deployable(report))
    return {
        "seconds": seconds,
        "simulated": simulated,
        "quality": deployed,
        "bytes": report.bytes,
        "smaller": report.smaller,
        "ms": 1e3 * report.latency.median,
        "faster": report.faster,
        "top1": report.agreement.top1,
        "near": report.agreement.within_one_step,
        "float_top1": report.float_agreement.top1,
        "float_near": report.float_agreement.within_one_step,
    }


def deployable(report: DeployReport) -> torch.nn.Module:
    """The deployed model; every deployment has one."""
    if report.model is None:
        raise RuntimeError(f"{report.path} was not loaded")
    return report.model


def run_task(key: str, records: dict[str, Record]) -> None:
    """Every line of a task that has no record yet gets one."""
    for seed in range(SEEDS[key]):
        missing = [way for way in WAYS if record_name(key, seed, way) not in records]
        if not missing:
            continue
        case = CASES[key](seed)
        about = {
            "case": case.name,
            "metric": case.quality_name,
            "steps": case.steps,
            "cut": case.quality(case.cut),
            "parameters": [parameters(case.model), parameters(case.cut)],
            "versions": version_line(),
        }
        for way in missing:
            record = {"name": record_name(key, seed, way), **about, **measure(case, way)}
            append_line(RECORDS, record)
            print(f"{key}, seed {seed}: " + " | ".join(cells(way, record)), flush=True)


def record_name(key: str, seed: int, way: str) -> str:
    return f"{key}, seed {seed}, {way}"


def lines_of(key: str, records: dict[str, Record]) -> dict[str, Record]:
    """The means over the seeds, by way; of ways that all seeds have a record of."""
    found: dict[str, Record] = {}
    for way in WAYS:
        names = [record_name(key, seed, way) for seed in range(SEEDS[key])]
        runs = [records[name] for name in names if name in records]
        if len(runs) == len(names):
            means = {field: mean(run[field] for run in runs) for field in (*NUMBERS, "cut")}
            qualities = [run["quality"] for run in runs]
            found[way] = {**runs[0], **means, "seeds": len(runs), "qualities": qualities}
    return found


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def cells(way: str, line: Record) -> list[str]:
    return [
        way,
        f"{line['quality']:.1f}",
        f"{line['bytes'] / 1e3:.0f}",
        f"{line['smaller']:.1f}×",
        f"{line['ms']:.3f}",
        f"{line['faster']:.1f}×",
        f"{line['seconds']:.1f}",
        f"{line['top1']:.2%}",
        f"{line['near']:.2%}",
        f"{line['float_top1']:.1%}, {line['float_near']:.1%}",
    ]


def table(lines: dict[str, Record]) -> str:
    """Markdown for a task."""
    about = next(iter(lines.values()))
    whole, cut = about["parameters"]
    runs = f"means of {about['seeds']} seeds" if about["seeds"] > 1 else "one seed"
    rows = [
        f"## {about['case']}",
        "",
        f"Quality: {about['metric']}, in per cent, {runs}. Of {whole:,} parameters {cut:,} are left, at "
        f"{about['cut']:.1f} before any training; {about['steps']} steps of training.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(cells(way, line)) + " |" for way, line in lines.items()),
    ]
    return "\n".join(rows)


def goals(key: str, lines: dict[str, Record]) -> str:
    """What is asked for, and whether it is reached; of sentences, neither speed nor size."""
    apart, once, half = (lines[way] for way in [*WAYS][-3:])
    faster, smaller = (min(way[field] for way in (once, half)) for field in ("faster", "smaller"))
    top1, near = (min(line[field] for line in lines.values()) for field in ("top1", "near"))
    sizes = [
        (f"{faster:.1f} times faster than the float original (3)", faster >= 3),
        (f"{smaller:.1f} times smaller (8)", smaller >= 8),
    ]
    checks = [
        *(sizes if key != "sentences" else []),
        (f"the same top-1 as the simulation: {top1:.2%} (99.5 %)", top1 >= 0.995),
        (f"within one step of it: {near:.2%} (99 %)", near >= 0.99),
        _against("in one run", once, apart),
        _against("in one run of half the budget", half, apart),
    ]
    return "\n".join(f"- {text}: {'reached' if good else 'not reached'}" for text, good in checks)


def _against(name: str, run: Record, apart: Record) -> tuple[str, bool]:
    """A run against the steps one after another: not worse, and in less time."""
    text = (
        f"{name} {run['quality']:.1f} after {run['seconds']:.1f} s, one after another {apart['quality']:.1f} "
        f"after {apart['seconds']:.1f} s{_difference(run, apart)} (not worse, in less time)"
    )
    return text, run["quality"] >= apart["quality"] and run["seconds"] < apart["seconds"]


def _difference(run: Record, apart: Record) -> str:
    """Of two ways' qualities, with its standard error over the seeds; nothing for one seed."""
    apiece = [a - b for a, b in zip(run["qualities"], apart["qualities"], strict=True)]
    if len(apiece) == 1:
        return ""
    return f", {mean(apiece):+.2f} with a standard error of {stdev(apiece) / len(apiece) ** 0.5:.2f}"


def page(records: dict[str, Record]) -> str:
    parts = [HEAD.strip()]
    for key in CASES:
        lines = lines_of(key, records)
        if lines:
            missing = [way for way in WAYS if way not in lines]
            parts += [
                table(lines),
                goals(key, lines) if not missing else f"Not measured yet: {'; '.join(missing)}.",
            ]
    parts.append("\n".join(sorted({record["versions"] for record in records.values()})))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--task", choices=CASES, action="append", help="only these; others as recorded")
    parser.add_argument("--again", action="store_true", help="forget what is recorded of these tasks")
    parser.add_argument("--table", type=Path, help="write the page, from the records alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for key in [] if options.table else options.task or CASES:
        known = read_lines(RECORDS)
        run_task(key, {} if options.again else known)
    text = page(read_lines(RECORDS))
    print(text)
    if options.table is not None:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
