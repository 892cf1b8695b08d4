"""What collecting loss-aware scores costs over a plain forward and backward.

    python benchmarks/collecting.py
    python benchmarks/collecting.py --only resnet18 --rounds 9
    python benchmarks/collecting.py --write docs/benchmarks-collecting.md

Time: rounds of ``BATCHES`` plain batches and as many through ``LossAwareCriterion``, in turn, in CPU seconds
of one thread; the ratio of the medians, everything after the model has been recorded included.
Memory: parameters, and the peak of the resident memory beyond what the process had before the batches;
each way in a process of its own. The model has no gradients before: those that a user has are put aside
while scores are collected, which takes their size. Targets: 1.15 and 1.2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processes import Record, peak_memory, run_all, version_line
from torch import nn

BATCHES = 4
HEAD = """# What collecting scores costs

Printed by `python benchmarks/collecting.py`: batches through `LossAwareCriterion` over plain ones, forward
and backward, as CPU seconds and peak memory; its module docstring says how.
"""
TARGETS = {"time": 1.15, "memory": 1.2}


def resnet18() -> tuple[nn.Module, torch.Tensor]:
    from torchvision.models import resnet18 as build

    return build(), torch.randn(8, 3, 160, 160)


def mobilenet_v2() -> tuple[nn.Module, torch.Tensor]:
    from torchvision.models import mobilenet_v2 as build

    return build(), torch.randn(8, 3, 160, 160)


def vit_tiny() -> tuple[nn.Module, torch.Tensor]:
    import timm

    return timm.create_model("vit_tiny_patch16_224"), torch.randn(8, 3, 224, 224)


def bert() -> tuple[nn.Module, torch.Tensor]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024
    )
    return BertForSequenceClassification(config), torch.randint(0, 8000, (16, 64))


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "vit_tiny": vit_tiny,
    "bert": bert,
}


def loss_of(output: Any) -> torch.Tensor:
    """A loss that depends on everything."""
    logits = output.logits if hasattr(output, "logits") else output
    return logits.float().square().mean()


def plain(model: nn.Module, x: torch.Tensor) -> None:
    """Batches as anybody runs them."""
    for _ in range(BATCHES):
        model.zero_grad()
        loss_of(model(x)).backward()


def collected(ir: Any, x: torch.Tensor, spent: list[float]) -> None:
    """The same batches through the criterion; ``spent`` gets the seconds after it has been entered."""
    import secateur

    with secateur.LossAwareCriterion(ir) as collect:
        start = time.process_time()
        for _ in range(BATCHES):
            ir.model.zero_grad()
            loss_of(collect(x)).backward()
    spent.append(time.process_time() - start)


def prepared(name: str) -> tuple[Any, torch.Tensor]:
    """The IR of a model, recorded and analysed, and its input."""
    import secateur

    torch.manual_seed(0)
    model, x = MODELS[name]()
    ir = secateur.PruningIR(model.eval())
    ir.create_snapshot("main", args=(x,))
    _ = ir.groups()
    return ir, x


def measure_time(name: str, rounds: int) -> Record:
    """Seconds of a plain round and of a collected one."""
    ir, x = prepared(name)
    plainly: list[float] = []
    collecting: list[float] = []
    for _ in range(rounds + 1):
        start = time.process_time()
        plain(ir.model, x)
        plainly.append(time.process_time() - start)
        collected(ir, x, collecting)
    # The first round warms up.
    return {"plain": statistics.median(plainly[1:]), "collected": statistics.median(collecting[1:])}


def measure_memory(name: str, way: str) -> Record:
    """Peak of the memory in MB, parameters included."""
    ir, x = prepared(name)
    own = sum(p.numel() * p.element_size() for p in ir.model.parameters()) / 2**20
    with peak_memory() as peak:
        if way == "plain":
            plain(ir.model, x)
        else:
            collected(ir, x, [])
    return {way: own + peak()}


def row(name: str, rounds: int, limit: float) -> str:
    """The line of the table for one model."""
    (seconds,) = run_all(measure_time, [(name, (name, rounds))], limit=limit)
    memory: Record = {}
    ways = [(name, (name, way)) for way in ("plain", "collected")]
    for record in run_all(measure_memory, ways, limit=limit):
        memory.update(record)
    failures = [r["message"] for r in (seconds, memory) if "failure" in r]
    if failures:
        return f"| {name} | {failures[0][:160]} | | | | | |"
    times, sizes = [(r["plain"], r["collected"]) for r in (seconds, memory)]
    return (
        f"| {name} | {times[0]:.3f} | {times[1]:.3f} | {times[1] / times[0]:.3f} "
        f"| {sizes[0]:.0f} | {sizes[1]:.0f} | {sizes[1] / sizes[0]:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one process")
    parser.add_argument("--write", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    targets = f"time {TARGETS['time']}, memory {TARGETS['memory']}"
    lines = [
        HEAD,
        f"{version_line()}; {options.rounds} rounds. Targets: {targets}.\n",
        "| model | plain [s] | collecting [s] | time | plain [MB] | collecting [MB] | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    for name in [options.only] if options.only else MODELS:
        lines.append(row(name, options.rounds, options.limit))
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
