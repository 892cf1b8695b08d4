"""Prune models that nobody here wrote, and say for each what came of it.

    python benchmarks/zoo.py --jobs 2             # the list
    python benchmarks/zoo.py --more --jobs 2      # and as many again of the same libraries
    python benchmarks/zoo.py --draw 120 --seed 1  # models drawn by chance among all others
    python benchmarks/zoo.py --only 'timm/dla34' --again
    python benchmarks/zoo.py --table docs/zoo.md  # write the tables of what has been recorded, run nothing

A run that was stopped goes on where it was: records of the same sources are not made again, those of
other sources are (``--stale`` keeps them). Records are in build/zoo.jsonl and build/zoo-drawn.jsonl.

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
from processes import (
    Record,
    append_line,
    code_version,
    failure,
    peak_memory,
    read_lines,
    run_all,
    version_line,
)
from zoo_drawn import draw
from zoo_models import ALL, LISTED

TOLERANCE = 1e-4
RECORDS, DRAWN = Path("build/zoo.jsonl"), Path("build/zoo-drawn.jsonl")


def measure(name: str) -> Record:
    """Everything about one model. Runs in a process of its own."""
    import secateur

    try:
        loaded = load(name)
        loaded.forward()
    except Exception as error:
        # Nobody's failure: sizes or inputs that were guessed do not fit this model.
        return {"name": name, "unbuilt": f"{type(error).__name__}: {error}"[:300]}
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
        record["rounding"] = report.verification.rounding
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
    failed = record.get("unbuilt", "").replace("|", "\\|")
    if record.get("rounding"):
        failed = f"a last bit of the parameters moves outputs by {record['rounding']:.0e}"
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
    unbuilt = sum("unbuilt" in r for r in records)
    records = [r for r in records if "unbuilt" not in r]
    count = max(1, len(records))
    reach = [r["reach"] for r in records if "reach" in r] or [0.0]
    runs = sum("left" in r for r in records)
    equal = sum(r.get("exact_error", 1.0) <= _within(r) for r in records)
    wrong = [r["name"] for r in records if r.get("exact_error", 0.0) > _within(r)]
    captured = sum("operators" in r for r in records)
    guessed = f" {unbuilt} more could not be built or run with guessed sizes and inputs." if unbuilt else ""
    return (
        f"{len(records)} models.{guessed} Captured: {captured} ({captured / count:.1%}). "
        f"Half of every group removed, and the small model runs: {runs} ({runs / count:.1%}). "
        f"Equal to the masked model with exact groups cut (relative error up to {TOLERANCE:.0e}): "
        f"{equal} ({equal / count:.1%}). "
        f"In reach: {statistics.median(reach):.3f} of the parameters in the median, at least 0.8 on "
        f"{sum(r >= 0.8 for r in reach) / count:.1%} of the models. "
        f"Wrong outputs on exact groups: {', '.join(wrong) or 'none'}.\n"
    )


def _within(record: Record) -> float:
    """The error that counts as equal: more where a last bit of the parameters changes as much."""
    return max(TOLERANCE, 10 * record.get("rounding", 0.0))


def _document(records: dict[str, Record], drawn: dict[str, Record]) -> str:
    text = "# The zoo\n\n" + (__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[2]
    text = f"{text}\nWritten by `python benchmarks/zoo.py --table docs/zoo.md`. {version_line()}.\n\n"
    run = "python benchmarks/zoo.py"
    for title, command, found in (
        ("Models of the list", f"{run} --jobs 2", [records[n] for n in LISTED if n in records]),
        (
            "More models of the same libraries",
            f"{run} --more --jobs 2",
            [records[n] for n in ALL[len(LISTED) :] if n in records],
        ),
        ("Models drawn by chance, on neither list", f"{run} --draw 120 --seed 1", list(drawn.values())),
    ):
        if found:
            rows = [record for record in found if "unbuilt" not in record]
            text += f"## {title}\n\n`{command}`\n\n{summary(found)}\n{table(rows)}\n"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names, as timm/*")
    parser.add_argument("--more", action="store_true", help="also the models that the issue does not name")
    parser.add_argument("--draw", type=int, default=0, help="so many models by chance, of those on no list")
    parser.add_argument("--seed", type=int, default=1, help="of --draw")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300, help="seconds for a model")
    parser.add_argument("--out", type=Path, help=f"default: {RECORDS}, with --draw {DRAWN}")
    parser.add_argument("--again", action="store_true", help="run what is in --out already, too")
    parser.add_argument("--stale", action="store_true", help="keep records of other sources")
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument("--table", type=Path, help="write the tables of all records here, run nothing")
    options = parser.parse_args()
    out = options.out or (DRAWN if options.draw else RECORDS)
    records = read_lines(out)
    if options.table:
        options.table.write_text(_document(records, read_lines(DRAWN)))
        return
    version = code_version()
    names = _names(options)
    done = {
        name
        for name, record in records.items()
        if (options.stale or record.get("code") == version) and not (options.failed and bad(record))
    }
    todo = [name for name in names if options.again or name not in done]
    tasks = [(name, (name,)) for name in todo]
    for record in run_all(measure, tasks, jobs=options.jobs, limit=options.limit):
        append_line(out, {**record, "code": version})
        print(f"{record['wall']:6.1f} s  " + "  ".join(_cells(record)), flush=True)
    found = read_lines(out)
    print(summary([found[name] for name in names if name in found]))


def _names(options: Any) -> list[str]:
    if options.draw:
        return draw(options.draw, options.seed)
    known = ALL if options.more or options.only != ["*"] else LISTED
    names = [name for name in known if any(fnmatch.fnmatch(name, p) for p in options.only)]
    # A pattern without a wildcard may name a model that is on no list.
    return names + [name for name in options.only if "*" not in name and name not in names]


def bad(record: Record) -> bool:
    """Whether something about a record is not as it should be."""
    if "unbuilt" in record:
        return False
    wrong = record.get("exact_error", 1.0) > _within(record) or record.get("reach", 0.0) < 0.8
    return wrong or "failure" in record


if __name__ == "__main__":
    main()
