"""Twenty models, and the figures of time and memory that the library promises for them.

    python benchmarks/spine.py
    python benchmarks/spine.py --only torchvision/resnet50 --table docs/benchmarks-spine.md

For each model: half of every group removed, the relative error with the exact groups cut, the share
of parameters in reach; the CPU time of capture, algebra and groups against what is allowed (two forwards
and 0.3 ms an operator); and the peak memory of ``prune(inplace=True, verify=False)`` beyond the
model, against what is allowed (one forward's activations and the largest group's tensors).

Memory is counted by torch's own CPU allocator, as its profiler reports it, from before the model is
built: every byte of every tensor, and nothing of Python's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from models import Loaded, load
from processes import Record, run_all, version_line
from torch.profiler import ProfilerActivity, profile, record_function

MODELS = [
    *(
        f"torchvision/{name}"
        for name in (
            "resnet18",
            "resnet50",
            "vgg16_bn",
            "densenet121",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "shufflenet_v2_x1_0",
            "regnet_y_800mf",
            "efficientnet_v2_s",
            "googlenet",
            "squeezenet1_1",
            "swin_t",
            "vit_b_16",
            "ssdlite320_mobilenet_v3_large",
        )
    ),
    "timm/convnext_atto",
    "timm/ghostnet_050",
    "timm/vit_xsmall_patch16_clip_224",
    "transformers/bert",
    "transformers/gpt2",
    "transformers/llama",
]
OPERATOR_SECONDS = 0.3e-3
REPEATS = 3


def measure(name: str, side: int) -> Record:
    """All figures of one model. Runs in a process of its own."""
    record = _memory(name, side)
    loaded = load(name, side=side)
    forward = _median(_timed(loaded.forward) for _ in range(REPEATS))
    ir = _recorded(loaded)
    operators = len(ir.snapshot().graph.nodes)
    structure = _median(_timed(lambda: _recorded(loaded)) for _ in range(REPEATS))
    half = ir.prune(labels=_half(ir.groups()))
    exact = ir.prune(labels=_half([group for group in ir.groups() if group.exact]))
    return record | {
        "operators": operators,
        "groups": len(ir.groups()),
        "reach": ir.reach(),
        "left": half.report.parameters[1] / half.report.parameters[0],
        "exact_error": exact.report.verification.error,
        "forward": forward,
        "structure": structure,
        "allowed": 2 * forward + OPERATOR_SECONDS * operators,
    }


def _recorded(loaded: Loaded) -> Any:
    import secateur

    ir = secateur.PruningIR(loaded.model)
    ir.create_snapshot("main", loaded.args, loaded.kwargs)
    ir.groups()
    return ir


def _half(groups: Iterable[Any]) -> list[Any]:
    return [label for group in groups for label in group.labels[: group.size // 2]]


def _timed(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


# -- memory ----------------------------------------------------------------------------------------


def _memory(name: str, side: int) -> Record:
    """Bytes beyond the model: of one forward, of the largest group's tensors, of capture and cut."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loaded = load(name, side=side)
        with record_function("measured: forward"):
            loaded.forward()
        with record_function("measured: prune"):
            ir = _recorded(loaded)
            largest = _largest_group(ir)
            ir.prune(labels=_half(ir.groups()), inplace=True, verify=False)
    peaks = memory_peaks(profiled, ("measured: forward", "measured: prune"))
    return {"forward_peak": peaks[0], "prune_peak": peaks[1], "largest_group": largest}


def _largest_group(ir: Any) -> int:
    """Bytes of all tensors that the largest group reaches."""
    values = {name: value for value in ir.snapshot().graph.values for name in value.names}
    reached = [{member.parameter for member in group.members} for group in ir.groups()]
    return max((sum(_bytes(values[name]) for name in names) for names in reached), default=0)


def _bytes(value: Any) -> int:
    return torch.Size(value.shape).numel() * value.dtype.itemsize


def memory_peaks(profiled: Any, spans: Iterable[str]) -> list[int]:
    """Most bytes that were alive within each span, beyond those at its beginning."""
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    found = []
    for span in spans:
        frame = next(event for event in events if event.name() == span)
        start, end = frame.start_ns(), frame.start_ns() + frame.duration_ns()
        alive = peak = 0
        for event in events:
            if event.name() == "[memory]" and start <= event.start_ns() <= end:
                alive += event.nbytes()
                peak = max(peak, alive)
        found.append(peak)
    return found


# -- the table -------------------------------------------------------------------------------------

_COLUMNS = (
    "model",
    "operators",
    "groups",
    "in reach",
    "left",
    "error, exact groups",
    "forward s",
    "capture to groups s",
    "of what is allowed",
    "peak MB beyond the model",
    "of what is allowed",
    "failed",
)


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(record)) + " |" for record in records]
    return "\n".join(lines) + "\n"


def cells(record: Record) -> list[str]:
    """The row of one model."""
    if "failure" in record:
        return [
            record["name"],
            *[""] * (len(_COLUMNS) - 2),
            f"{record['failure']}: {record['message'][:160]}",
        ]
    allowed = record["forward_peak"] + record["largest_group"]
    return [
        record["name"],
        str(record["operators"]),
        str(record["groups"]),
        f"{record['reach']:.3f}",
        f"{record['left']:.3f}",
        f"{record['exact_error']:.1e}",
        f"{record['forward']:.3f}",
        f"{record['structure']:.3f}",
        f"{record['structure'] / record['allowed']:.2f}",
        f"{record['prune_peak'] / 2**20:.1f}",
        f"{record['prune_peak'] / max(1, allowed):.2f}",
        "",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=MODELS)
    parser.add_argument("--side", type=int, default=224, help="of images")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a model")
    parser.add_argument("--table", type=Path, help="write the table here, too")
    options = parser.parse_args()
    tasks = [(name, (name, options.side)) for name in options.only]
    records = []
    for record in run_all(measure, tasks, limit=options.limit):
        records.append(record)
        print("  ".join(cells(record)), flush=True)
    if options.table:
        options.table.write_text(f"{version_line()}.\n\n{table(records)}")


if __name__ == "__main__":
    main()
