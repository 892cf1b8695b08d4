"""Secateur and Torch-Pruning 1.6.1 side by side: same models, same ratio, same run.

    python benchmarks/peers.py
    python benchmarks/peers.py --only torchvision/resnet50 --repeats 1 --table docs/benchmarks.md

Timed for Torch-Pruning: building its ``MagnitudePruner`` and one step. For Secateur: capture, analysis,
selection and surgery, with ``verify=False`` as Torch-Pruning has nothing of the kind. Half of all
channels by L2 magnitude. CPU seconds of one thread, median; every repetition is a process of its
own, the two tools in turn. Peak memory is that of the process, beyond what it held with the model
loaded.

The error is each tool's pruned model against its own masked model: the original in which everything
that was taken out is zero. To know what Torch-Pruning took out, whatever it calls it, it prunes a
second model in which every weight is its own position.

Torch-Pruning is given what its documentation asks for: the layers that make the output are ignored,
ViT gets ``round_to`` and its ``hidden_dim`` set afterwards.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from models import Loaded, load
from processes import Record, failure, peak_memory, run_all, version_line
from torch import nn

MODELS = [
    "torchvision/resnet50",
    "torchvision/densenet121",
    "torchvision/vit_b_16",
    "torchvision/mobilenet_v3_large",
    "torchvision/regnet_y_800mf",
    "timm/nasnetalarge",
    "timm/hrnet_w18_ssld",
    "torchvision/densenet201",
]
HANGS = ["torchvision/swin_t", "torchvision/maxvit_t", "transformers/llama"]
RATIO = 0.5


def ours(name: str, side: int, check: bool) -> Record:
    """One cut by Secateur."""
    import secateur

    loaded = load(name, side=side)
    loaded.forward()
    total = _count(loaded.model)
    reference: Any = copy.deepcopy(loaded.model) if check else None
    with peak_memory() as peak:
        start = time.process_time()
        ir = secateur.PruningIR(loaded.model)
        ir.create_snapshot("main", loaded.args, loaded.kwargs)
        labels = secateur.UniformLabelSelector(RATIO).select(ir)
        ir.prune(labels=labels, inplace=True, verify=False)
        seconds = time.process_time() - start
    record: Record = {"seconds": seconds, "memory": peak(), "removed": 1 - _count(loaded.model) / total}
    if check:
        whole = secateur.PruningIR(reference)
        whole.create_snapshot("main", loaded.args, loaded.kwargs)
        masked = whole.masked(labels=secateur.UniformLabelSelector(RATIO).select(whole))
        record |= _compare(loaded, masked)
    return record


def theirs(name: str, side: int, check: bool) -> Record:
    """One cut by Torch-Pruning."""
    import torch_pruning

    loaded = load(name, side=side)
    loaded.forward()
    total = _count(loaded.model)
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    heads = _heads(loaded)
    with peak_memory() as peak:
        start = time.process_time()
        _step(_pruner(loaded, importance, heads))
        seconds = time.process_time() - start
    _as_documented(loaded.model)
    record: Record = {"seconds": seconds, "memory": peak(), "removed": 1 - _count(loaded.model) / total}
    if check:
        try:
            record |= _their_error(name, side)
        except Exception as error:
            record |= failure(error)
    return record


def _pruner(loaded: Loaded, importance: Any, heads: list[nn.Module]) -> Any:
    import torch_pruning

    options: dict[str, Any] = {}
    if hasattr(loaded.model, "hidden_dim"):
        options["round_to"] = loaded.model.encoder.layers[0].num_heads
    inputs = dict(loaded.kwargs) if loaded.kwargs else loaded.args
    return torch_pruning.pruner.MagnitudePruner(
        loaded.model,
        inputs,
        importance=importance,
        pruning_ratio=RATIO,
        ignored_layers=heads,
        # Its defaults are shared by all pruners of a process.
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
        **options,
    )


def _heads(loaded: Loaded) -> list[nn.Module]:
    """Linear layers as wide as the model's output, which may not be pruned."""
    output = loaded.forward()
    classes = (output if isinstance(output, torch.Tensor) else output[0]).shape[-1]
    return [m for m in loaded.model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]


def _step(pruner: Any) -> None:
    pruner.step()


def _as_documented(model: Any) -> None:
    """What Torch-Pruning's examples set by hand after a cut."""
    if hasattr(model, "hidden_dim"):
        model.hidden_dim = model.conv_proj.out_channels


def _their_error(name: str, side: int) -> Record:
    """Random choices, the same for the model and for its twin whose weights are positions."""
    import torch_pruning

    loaded, twin = load(name, side=side), load(name, side=side)
    original = copy.deepcopy(loaded.model)
    random = torch_pruning.importance.RandomImportance()
    pruners = [_pruner(one, random, _heads(one)) for one in (loaded, twin)]
    for parameter in twin.model.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
    for pruner in pruners:
        torch.manual_seed(0)
        _step(pruner)
    kept = dict(twin.model.named_parameters())
    with torch.no_grad():
        for parameter_name, parameter in original.named_parameters():
            mask = torch.zeros(parameter.numel())
            if parameter_name in kept:
                mask[kept[parameter_name].flatten().long()] = 1
            parameter.mul_(mask.reshape(parameter.shape))
    _as_documented(loaded.model)
    return _compare(Loaded(loaded.model.eval(), loaded.args, loaded.kwargs), original)


def _compare(loaded: Loaded, masked: nn.Module) -> Record:
    import secateur

    report = secateur.verify(masked.eval(), loaded.model, loaded.args, loaded.kwargs)
    return {"error": report.error}


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -- the table -------------------------------------------------------------------------------------

_COLUMNS = (
    "model",
    "Secateur s",
    "Torch-Pruning s",
    "times faster",
    "Secateur MB",
    "Torch-Pruning MB",
    "removed by Secateur",
    "by Torch-Pruning",
    "error of Secateur",
    "of Torch-Pruning",
    "failed",
)


def merge(records: Iterable[Record]) -> Record:
    """Medians over the repetitions of one tool on one model."""
    merged: Record = {}
    for record in records:
        for key, value in record.items():
            merged.setdefault(key, []).append(value)
    return {k: statistics.median(v) if k in ("seconds", "memory") else v[0] for k, v in merged.items()}


def cells(name: str, us: Record, them: Record) -> list[str]:
    """The row of one model."""

    def number(record: Record, key: str, form: str) -> str:
        return format(record[key], form) if key in record else ""

    faster = f"{them['seconds'] / us['seconds']:.1f}" if "seconds" in us and "seconds" in them else ""
    both = (("Secateur", us), ("Torch-Pruning", them))
    failed = [f"{who}: {r['failure']}: {r['message'][:100]}" for who, r in both if "failure" in r]
    row = [name, number(us, "seconds", ".2f"), number(them, "seconds", ".2f"), faster]
    for key, form in (("memory", ".0f"), ("removed", ".3f"), ("error", ".1e")):
        row += [number(us, key, form), number(them, key, form)]
    return [*row, "; ".join(failed).replace("\n", " ").replace("|", "\\|")]


def table(rows: Iterable[list[str]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def measure(name: str, side: int, repeats: int, limit: float) -> tuple[Record, Record]:
    """Both tools in turn; a tool that failed is not asked again."""
    found: dict[str, list[Record]] = {"ours": [], "theirs": []}
    for repeat in range(repeats):
        for tool, target in (("ours", ours), ("theirs", theirs)):
            if repeat and "seconds" not in found[tool][-1]:
                continue
            found[tool] += run_all(target, [(name, (name, side, repeat == 0))], limit=limit)
    return merge(found["ours"]), merge(found["theirs"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[*MODELS, *HANGS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=224, help="of images")
    parser.add_argument("--limit", type=float, default=240, help="seconds for a cut")
    parser.add_argument("--table", type=Path, help="write the table here, too")
    options = parser.parse_args()
    rows, ratios = [], []
    for name in options.only:
        us, them = measure(name, options.side, options.repeats, options.limit)
        rows.append(cells(name, us, them))
        if "error" in them and "seconds" in us:
            ratios.append(them["seconds"] / us["seconds"])
        print("  ".join(rows[-1]), flush=True)
    median = (
        f"Median over the models that both can do: {statistics.median(ratios):.1f} times faster.\n"
        if ratios
        else ""
    )
    print(median)
    if options.table:
        options.table.write_text(f"{version_line()}.\n\n{table(rows)}\n{median}")


if __name__ == "__main__":
    main()
