"""Prune models that nobody here wrote, and say for each what came of it.

    python benchmarks/zoo.py                      # all models; what is in --out already is not run again
    python benchmarks/zoo.py --only 'timm/*' --jobs 2
    python benchmarks/zoo.py --only 'timm/dla34' --again
    python benchmarks/zoo.py --table docs/zoo.md  # write the table of what is in --out

Random weights; normalisation statistics, affine parameters and everything that starts as a constant
are drawn at random first. Half of the labels of every group, drawn at random, are removed: once of
all groups, once of the exact ones alone. The error is the relative L2 distance of the outputs of
the small and the masked model. ``effect`` is how far masking moved the outputs of the original: an
error of zero says something only where that is not zero.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import random
import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from models import Loaded, load
from processes import Record, append_line, failure, peak_memory, read_lines, run_all, version_line
from zoo_models import ALL, LISTED

TOLERANCE = 1e-4


def measure(name: str) -> Record:
    """Everything about one model. Runs in a process of its own."""
    import secateur

    loaded = load(name)
    record: Record = {"name": name, "parameters": sum(p.numel() for p in loaded.model.parameters())}
    record["forward"] = _seconds(loaded.forward)
    try:
        ir = secateur.PruningIR(loaded.model)
        snapshot = ir.create_snapshot("main", loaded.args, loaded.kwargs)
        with peak_memory() as peak:
            groups = ir.groups()
            record |= {
                "operators": len(snapshot.graph.nodes),
                "opaque": dict(collections.Counter(snapshot.analysis.opaque.values())),
                "capture": snapshot.seconds["capture"],
                "analysis": snapshot.seconds["analysis"],
                "groups": len(groups),
                "exact_groups": sum(group.exact for group in groups),
                "inexact": dict(collections.Counter(_reason(g) for g in groups if not g.exact)),
                "reach": ir.reach(),
                "pinned": dict(collections.Counter(pin.reason for pin in ir.pinned()).most_common(12)),
            }
            record |= _cut(ir, loaded, groups, "all")
        record["memory"] = peak()
        record |= _cut(ir, loaded, [group for group in groups if group.exact], "exact")
    except Exception as error:
        record |= failure(error)
        record["trace"] = traceback.format_exc()[-3000:]
    return record


def _cut(ir: Any, loaded: Loaded, groups: Iterable[Any], kind: str) -> Record:
    """Remove half of every group, verified, and run the result."""
    import secateur

    draw = random.Random(0)
    labels = [label for group in groups for label in draw.sample(group.labels, group.size // 2)]
    try:
        small = ir.prune(labels=labels)
        report, error = small.report, small.report.verification.error
    except secateur.VerificationError as wrong:
        # Wrong outputs, and said so. How wrong?
        small = ir.prune(labels=labels, verify=False)
        report = small.report
        masked = ir.masked(labels=labels)
        error = secateur.verify(masked, small.model, loaded.args, loaded.kwargs).error
        return {f"{kind}_error": error, **failure(wrong)}
    record: Record = {f"{kind}_error": error, "kept_class": type(small.model) is type(loaded.model)}
    Loaded(small.model, loaded.args, loaded.kwargs).forward()
    if kind == "exact":
        masked = ir.masked(labels=labels)
        record["effect"] = _effect(loaded, masked)
        return record
    record["left"] = report.parameters[1] / max(1, report.parameters[0])
    record["zeroed"] = len(report.zeroed)
    record["surgery"] = sum(report.seconds[s] for s in ("select", "replay", "plan", "surgery"))
    return record


def _effect(loaded: Loaded, masked: Any) -> float | None:
    """How far masking moves the outputs, or None where the outputs have other shapes then."""
    import secateur

    try:
        return secateur.verify(loaded.model, masked, loaded.args, loaded.kwargs, draws=1).error
    except secateur.VerificationError:
        return None


def _seconds(call: Callable[[], Any]) -> float:
    """Wall time of the faster of two calls."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _reason(group: Any) -> str:
    return group.reasons[0].partition(" (in ")[0]


# -- the table -------------------------------------------------------------------------------------

_COLUMNS = (
    "model",
    "operators",
    "groups (exact)",
    "in reach",
    "left",
    "error, exact groups",
    "error, all groups",
    "effect",
    "forward s",
    "capture s",
    "analysis s",
    "surgery s",
    "peak MB",
    "failed",
)


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += ["| " + " | ".join(_cells(record)) + " |" for record in records]
    return "\n".join(lines) + "\n"


def _cells(record: Record) -> list[str]:
    def number(key: str, form: str) -> str:
        value = record.get(key)
        return "" if value is None else format(value, form)

    groups = f"{record['groups']} ({record['exact_groups']})" if "groups" in record else ""
    failed = ""
    if "failure" in record:
        first = record["message"].splitlines()[0] if record["message"] else ""
        failed = f"{record['failure']}: {first[:160]}".replace("|", "\\|")
    return [
        record["name"],
        number("operators", "d"),
        groups,
        number("reach", ".3f"),
        number("left", ".3f"),
        number("exact_error", ".1e"),
        number("all_error", ".1e"),
        number("effect", ".1e"),
        number("forward", ".3f"),
        number("capture", ".3f"),
        number("analysis", ".3f"),
        number("surgery", ".3f"),
        number("memory", ".0f"),
        failed,
    ]


def summary(records: list[Record]) -> str:
    """The figures that the table is judged by."""
    count = max(1, len(records))
    reach = [r["reach"] for r in records if "reach" in r] or [0.0]
    runs = sum("left" in r for r in records)
    equal = sum(r.get("exact_error", 1.0) <= TOLERANCE for r in records)
    wrong = [r["name"] for r in records if r.get("exact_error", 0.0) > TOLERANCE]
    captured = sum("operators" in r for r in records)
    return (
        f"{len(records)} models. Captured: {captured} ({captured / count:.1%}). "
        f"Half of every group removed, and the small model runs: {runs} ({runs / count:.1%}). "
        f"Equal to the masked model with exact groups cut (relative error up to {TOLERANCE:.0e}): "
        f"{equal} ({equal / count:.1%}). "
        f"In reach: {statistics.median(reach):.3f} of the parameters in the median, at least 0.8 on "
        f"{sum(r >= 0.8 for r in reach) / count:.1%} of the models. "
        f"Wrong outputs on exact groups: {', '.join(wrong) or 'none'}.\n"
    )


def _document(records: dict[str, Record]) -> str:
    text = "# The zoo\n\n" + (__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[2]
    text = f"{text}\nWritten by `python benchmarks/zoo.py --table docs/zoo.md`. {version_line()}.\n\n"
    for title, names in (
        ("Models of the list", LISTED),
        ("More models of the same libraries", ALL[len(LISTED) :]),
    ):
        found = [records[name] for name in names if name in records]
        if found:
            text += f"## {title}\n\n{summary(found)}\n{table(found)}\n"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names, as timm/*")
    parser.add_argument("--listed", action="store_true", help="only the models of the fixed list")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300, help="seconds for a model")
    parser.add_argument("--out", type=Path, default=Path("build/zoo.jsonl"))
    parser.add_argument("--again", action="store_true", help="run what is in --out already, too")
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument(
        "--table", type=Path, help="write the table of all records of --out here, run nothing"
    )
    options = parser.parse_args()
    records = read_lines(options.out)
    if options.table:
        options.table.write_text(_document(records))
        return
    # A pattern without a wildcard may name a model that is on no list.
    names = [
        n for n in (LISTED if options.listed else ALL) if any(fnmatch.fnmatch(n, p) for p in options.only)
    ]
    names += [name for name in options.only if "*" not in name and "/" in name and name not in names]
    done = {n for n, r in records.items() if not (options.failed and ("failure" in r or bad(r)))}
    todo = [name for name in names if options.again or name not in done]
    for record in run_all(
        measure, [(name, (name,)) for name in todo], jobs=options.jobs, limit=options.limit
    ):
        append_line(options.out, record)
        print(f"{record['wall']:6.1f} s  " + "  ".join(_cells(record)), flush=True)
    found = read_lines(options.out)
    print(summary([found[name] for name in names if name in found]))


def bad(record: Record) -> bool:
    """Whether something about a record is not as it should be."""
    return record.get("exact_error", 1.0) > TOLERANCE or record.get("reach", 0.0) < 0.8


if __name__ == "__main__":
    main()
