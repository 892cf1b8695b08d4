"""Four models cut to a share of their own latency, and what the cut models really take.

    python benchmarks/latency.py
    python benchmarks/latency.py --only torchvision/resnet18 --tries 1 --clock cpu
    python benchmarks/latency.py --table docs/benchmarks-latency.md  # of what is in --out, too

One image of 224 x 224 on one thread. A model is bound to a ``LatencyTable``, which measures it; then
each target, a share of that time, is aimed at three times with ``KnapsackLabelSelector``, and each
result is measured anew, in turn with the whole model. ``off`` is how far its share of the whole model's
time is from the share that was asked for: the median of the tries, and the one that is the furthest
above. ``selection s`` is the slowest of the tries after the first one, which fills the table; ``table s``
is the first one. Promised: the median within 3 %, none above by more than 5 %, selection below 20 s.

``--clock cpu`` counts CPU time instead of wall time, for a machine that others use too. ``--out`` keeps
one JSON line for each model; what is there is not run again unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models import load
from processes import Record, append_line, read_lines, run_all, version_line

MODELS = (
    "torchvision/resnet18",
    "torchvision/resnet50",
    "torchvision/mobilenet_v2",
    "timm/vit_xsmall_patch16_clip_224",
)
SHARES = (0.75, 0.5, 0.3)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MEDIAN_OFF, MOST_ABOVE, SELECTION_SECONDS = 0.03, 0.05, 20


def measure(name: str, shares: list[float], tries: int, clock: str) -> Record:
    """All targets of one model, with one table. Runs in a process of its own."""
    import secateur

    loaded = load(name, side=224)
    ir = secateur.PruningIR(loaded.model)
    snapshot = ir.create_snapshot("main", loaded.args, loaded.kwargs)
    table = secateur.cost.LatencyTable(threads=1, clock=CLOCKS[clock])
    full = table.bind(snapshot).full
    points = [_point(ir, table, share, full, tries) for share in shares]
    return {"full": full, "entries": len(table.seconds), "points": points}


def _point(ir: Any, table: Any, share: float, full: float, tries: int) -> Record:
    import secateur

    offs, seconds, rounds, kept = [], [], [], []
    for _ in range(tries):
        selector = secateur.KnapsackLabelSelector(share * full, table, verbose=False)
        start = table.clock()
        labels = selector.select(ir)
        seconds.append(table.clock() - start)
        rounds.append(len(selector.rounds))
        kept.append(selector.rounds[-1].kept)
        small = ir.prune(labels=labels, verify=False).model
        offs.append(table.share(small, ir.model) / share - 1)
    return {
        "share": share,
        "offs": offs,
        "first": seconds[0],
        "selection": max(seconds[1:], default=seconds[0]),
        "rounds": max(rounds),
        "kept": kept[-1],
    }


# -- the table -------------------------------------------------------------------------------------

_COLUMNS = (
    "model",
    "whole ms",
    "asked",
    "target ms",
    "measured ms",
    "off, median",
    "off, highest",
    "rounds",
    "score kept",
    "table s",
    "selection s",
    "as promised",
)


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    for record in records:
        if "failure" in record:
            message = f"{record['failure']}: {record['message'][:160]}"
            lines.append(f"| {record['name']} |" + " |" * (len(_COLUMNS) - 2) + f" {message} |")
        else:
            lines += [f"| {' | '.join(cells(record, point))} |" for point in record["points"]]
    return "\n".join(lines) + "\n"


def cells(record: Record, point: Record) -> list[str]:
    """The row of one target."""
    off, highest = statistics.median(point["offs"]), max(point["offs"])
    target = record["full"] * point["share"] * 1e3
    return [
        record["name"],
        f"{record['full'] * 1e3:.2f}",
        f"{point['share']:.2f}",
        f"{target:.2f}",
        f"{target * (1 + off):.2f}",
        f"{off:+.1%}",
        f"{highest:+.1%}",
        str(point["rounds"]),
        f"{point['kept']:.1%}",
        f"{point['first']:.1f}",
        f"{point['selection']:.1f}",
        "yes" if kept_promise(point) else "no",
    ]


def kept_promise(point: Record) -> bool:
    """Whether a target was hit as near and as fast as promised."""
    return (
        abs(statistics.median(point["offs"])) <= MEDIAN_OFF
        and max(point["offs"]) <= MOST_ABOVE
        and point["selection"] < SELECTION_SECONDS
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Latency targets, and what cut models take.")
    parser.add_argument("--only", nargs="*", default=list(MODELS), help="names of models")
    parser.add_argument("--shares", nargs="*", type=float, default=list(SHARES))
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--limit", type=float, default=900, help="seconds for one model")
    parser.add_argument("--out", type=Path, default=Path("build/latency.jsonl"))
    parser.add_argument("--again", action="store_true", help="run what is in --out already, too")
    parser.add_argument("--table", type=Path, help="write the table to this file")
    given = parser.parse_args()
    done = {} if given.again else read_lines(given.out)
    names = [name for name in given.only if name not in done or "failure" in done[name]]
    tasks = [(name, (name, given.shares, given.tries, given.clock)) for name in names]
    start = time.perf_counter()
    for record in run_all(measure, tasks, limit=given.limit):
        append_line(given.out, record)
        print(table([record]), flush=True)
    found = read_lines(given.out)
    records = [found[name] for name in given.only]
    text = f"{version_line()}; {given.tries} tries, {given.clock} time.\n\n{table(records)}"
    print(f"{text}\n{time.perf_counter() - start:.0f} s")
    if given.table:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
