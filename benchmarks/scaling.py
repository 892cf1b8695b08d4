"""How recording and analysis grow: residual networks of 50 to 800 blocks, DenseNets of growing depth.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --table docs/benchmarks-scaling.md --plot docs/images/scaling.svg

The time of an operator (capture, algebra, groups and replay, then one cut without verification) stays
flat if everything is linear. A DenseNet's operators carry more the deeper it is, since its layers read
what all before them made: there the number of *operands* is the fair measure, and is shown beside.
CPU seconds of one thread, the faster of two runs.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from models import randomise
from processes import Record, run_all, version_line
from torch import nn

BLOCKS = (50, 100, 200, 400, 800)
LAYERS = (16, 32, 64, 128)
WIDTH = 16
GROWTH = 4


class Residual(nn.Module):
    """``x + f(x)``, with two convolutions and their norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        return torch.relu(x + self.body(x))


class Dense(nn.Module):
    """One block of a DenseNet: every layer reads what all layers before it made."""

    def __init__(self, width: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1))
            for n in range(width, width + layers * growth, growth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C + layers x growth, H, W)."""
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def network(kind: str, depth: int) -> nn.Module:
    """A stem, ``depth`` blocks or dense layers, and a classifier."""
    body = [Residual(WIDTH) for _ in range(depth)] if kind == "residual" else [Dense(WIDTH, depth, GROWTH)]
    width = WIDTH if kind == "residual" else WIDTH + depth * GROWTH
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return randomise(nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), *body, *head)).eval()


def measure(kind: str, depth: int) -> Record:
    """Seconds of every stage. Runs in a process of its own."""
    model = network(kind, depth)
    return min((_once(model) for _ in range(2)), key=lambda record: record["capture"] + record["structure"])


def _once(model: nn.Module) -> Record:
    import secateur

    gc.collect()
    marks = list(_stages(secateur.PruningIR(model)))
    (_, start), *rest = marks
    record: Record = {}
    for name, now in rest:
        record[name], start = now - start, now
    ir = marks[0][0]
    graph = ir.snapshot().graph
    return record | {
        "operators": len(graph.nodes),
        "operands": sum(len(node.inputs) for node in graph.nodes),
        "groups": len(ir.groups()),
    }


def _stages(ir: Any) -> Iterator[tuple[Any, float]]:
    import secateur

    snapshot = ir.create_snapshot("main", (torch.randn(1, 3, 8, 8),))
    yield ir, time.process_time()
    _ = snapshot.graph
    yield "capture", time.process_time()
    _ = snapshot.analysis
    yield "algebra", time.process_time()
    ir.groups()
    yield "structure", time.process_time()
    labels = secateur.UniformLabelSelector(0.5).select(ir)
    ir.prune(labels=labels, verify=False)
    yield "cut", time.process_time()


# -- output ----------------------------------------------------------------------------------------

_STAGES = ("capture", "algebra", "structure", "cut")
_COLUMNS = (
    "network",
    "depth",
    "operators",
    "operands",
    "groups",
    *(f"{s} s" for s in _STAGES),
    "ms an operator",
    "us an operand",
)


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(record)) + " |" for record in records]
    return "\n".join(lines) + "\n"


def cells(record: Record) -> list[str]:
    """The row of one network."""
    kind, _, depth = record["name"].partition(" ")
    if "failure" in record:
        return [kind, depth, *[""] * (len(_COLUMNS) - 3), f"{record['failure']}: {record['message'][:120]}"]
    total = sum(record[stage] for stage in _STAGES)
    return [
        kind,
        depth,
        *(str(record[key]) for key in ("operators", "operands", "groups")),
        *(f"{record[stage]:.3f}" for stage in _STAGES),
        f"{1e3 * total / record['operators']:.3f}",
        f"{1e6 * total / record['operands']:.0f}",
    ]


def plot(records: list[Record], path: Path) -> None:
    """Time of an operator over the number of operators."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for kind, style in (("residual", "o-"), ("dense", "s--")):
        mine = [r for r in records if r["name"].startswith(kind) and "failure" not in r]
        times = [1e3 * sum(r[stage] for stage in _STAGES) / r["operators"] for r in mine]
        axes.plot([r["operators"] for r in mine], times, style, label=kind)
    axes.set(xscale="log", xlabel="operators", ylabel="ms an operator", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", type=int, nargs="*", default=BLOCKS, help="of the residual networks")
    parser.add_argument("--layers", type=int, nargs="*", default=LAYERS, help="of the DenseNets")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a network")
    parser.add_argument("--table", type=Path, help="write the table here, too")
    parser.add_argument("--plot", type=Path, help="write a plot here (needs matplotlib)")
    options = parser.parse_args()
    sizes = [("residual", n) for n in options.blocks] + [("dense", n) for n in options.layers]
    records = []
    for record in run_all(measure, [(f"{kind} {n}", (kind, n)) for kind, n in sizes], limit=options.limit):
        records.append(record)
        print("  ".join(cells(record)), flush=True)
    picture = ""
    if options.plot:
        plot(records, options.plot)
        picture = f"\n![Time of an operator over the number of operators](images/{options.plot.name})\n"
    if options.table:
        options.table.write_text(f"{version_line()}.\n\n{table(records)}{picture}")


if __name__ == "__main__":
    main()
