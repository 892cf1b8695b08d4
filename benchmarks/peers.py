"""Secateur and Torch-Pruning 1.6.1 side by side: same models, same ratio, same run.

    python benchmarks/peers.py
    python benchmarks/peers.py --only torchvision/resnet50 --repeats 1 --table docs/benchmarks-peers.md

Timed for Torch-Pruning: building its ``MagnitudePruner`` and one step. For Secateur: capture, analysis,
selection and surgery, with ``verify=False`` as Torch-Pruning has nothing of the kind. Half of all
channels by L2 magnitude, on a copy of the model that the tool may change. CPU seconds of one thread, in a
process that has imported everything: the first cut there, and the median of five more. A process serves
one tool and one model; the tools take turns. Peak memory is that of the process during its first cut,
beyond what it held with the model loaded.

The error is each tool's pruned model against its own masked model: the original in which everything
that was taken out is zero. To know what Torch-Pruning took out, whatever it calls it, it prunes a
second model in which every weight is its own position.

Torch-Pruning is given what its documentation asks for: the layers that make the output are ignored,
ViT gets ``round_to`` and its ``hidden_dim`` set afterwards; of a model with grouped queries, the layers
that make queries and keys are given with their heads.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from models import Loaded, load
from processes import Record, Target, failure, peak_memory, run_all, version_line
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


def ours(name: str, side: int, repeats: int) -> Record:
    """Cuts by Secateur."""
    loaded = load(name, side=side)
    return _measured(loaded, _prune, repeats) | (_our_error(name, side) if not repeats else {})


def theirs(name: str, side: int, repeats: int) -> Record:
    """Cuts by Torch-Pruning."""
    loaded = load(name, side=side)
    return _measured(loaded, _prune_theirs, repeats) | (_their_error(name, side) if not repeats else {})


def _measured(loaded: Loaded, prune: Callable[[Loaded], Callable[[], None]], repeats: int) -> Record:
    """Time, memory and share removed of a first cut; with ``repeats``, the median of so many more."""
    loaded.forward()
    total = _count(loaded.model)
    copies = [replace(loaded, model=copy.deepcopy(loaded.model)) for _ in range(repeats)]
    with peak_memory() as peak:
        first = _seconds(prune(loaded))
    record: Record = {"first": first, "memory": peak(), "removed": 1 - _count(loaded.model) / total}
    if repeats:
        record["seconds"] = statistics.median(_seconds(prune(each)) for each in copies)
    return record


def _seconds(call: Callable[[], None]) -> float:
    gc.collect()  # of what came before
    start = time.process_time()
    call()
    return time.process_time() - start


def _prune(loaded: Loaded) -> Callable[[], None]:
    import secateur

    def cut() -> None:
        ir = secateur.PruningIR(loaded.model)
        ir.create_snapshot("main", loaded.args, loaded.kwargs)
        labels = secateur.UniformLabelSelector(RATIO).select(ir)
        ir.prune(labels=labels, inplace=True, verify=False)

    return cut


def _our_error(name: str, side: int) -> Record:
    import secateur

    loaded = load(name, side=side)
    ir = secateur.PruningIR(loaded.model)
    ir.create_snapshot("main", loaded.args, loaded.kwargs)
    labels = secateur.UniformLabelSelector(RATIO).select(ir)
    masked = ir.masked(labels=labels)
    ir.prune(labels=labels, inplace=True, verify=False)
    return _compare(loaded, masked)


def _prune_theirs(loaded: Loaded) -> Callable[[], None]:
    import torch_pruning

    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    heads = _heads(loaded)

    def cut() -> None:
        _pruner(loaded, importance, heads).step()

    return cut


def _pruner(loaded: Loaded, importance: Any, heads: list[nn.Module]) -> Any:
    import torch_pruning

    options: dict[str, Any] = {}
    if hasattr(loaded.model, "hidden_dim"):
        encoder: Any = loaded.model.encoder
        options["round_to"] = encoder.layers[0].num_heads
    inputs: Any = dict(loaded.kwargs) if loaded.kwargs else loaded.args
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


def _as_documented(model: Any) -> None:
    """What Torch-Pruning's examples set by hand after a cut."""
    if hasattr(model, "hidden_dim"):
        model.hidden_dim = model.conv_proj.out_channels


def _their_error(name: str, side: int) -> Record:
    try:
        return _error_by_positions(name, side)
    except Exception as error:
        return failure(error)


def _error_by_positions(name: str, side: int) -> Record:
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
        pruner.step()
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
    "first cut, Secateur s",
    "Torch-Pruning s",
    "Secateur MB",
    "Torch-Pruning MB",
    "removed by Secateur",
    "by Torch-Pruning",
    "error of Secateur",
    "of Torch-Pruning",
    "failed",
)


def cells(name: str, us: Record, them: Record) -> list[str]:
    """The row of one model."""
    faster = f"{them['seconds'] / us['seconds']:.1f}" if "seconds" in us and "seconds" in them else ""
    both = (("Secateur", us), ("Torch-Pruning", them))
    failed = [f"{who}: {r['failure']}: {r['message'][:100]}" for who, r in both if "failure" in r]
    row = [name]
    forms = {"seconds": ".3f", "first": ".3f", "memory": ".0f", "removed": ".3f", "error": ".1e"}
    for key, form in forms.items():
        row += [format(record[key], form) if key in record else "" for record in (us, them)]
        if key == "seconds":
            row.append(faster)
    return [*row, "; ".join(failed).replace("\n", " ").replace("|", "\\|")]


def table(rows: Iterable[list[str]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def measure(name: str, side: int, repeats: int, limit: float) -> tuple[Record, Record]:
    """Both tools: one cut and its error, then, if that succeeds within the limit, the cuts that are timed."""
    us, them = (_first(target, name, side, limit) for target in (ours, theirs))
    for target, record in ((ours, us), (theirs, them)):
        if "first" in record:
            task = [(name, (name, side, repeats))]
            more = next(iter(run_all(target, task, limit=limit * repeats)))
            record |= {key: more[key] for key in ("seconds", "first") if key in more}
    return us, them


def _first(target: Target, name: str, side: int, limit: float) -> Record:
    return next(iter(run_all(target, [(name, (name, side, 0))], limit=limit)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[*MODELS, *HANGS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=224, help="of images")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a cut and its error")
    parser.add_argument("--table", type=Path, help="write the table here, too")
    options = parser.parse_args()
    rows, ratios = [], []
    for name in options.only:
        us, them = measure(name, options.side, options.repeats, options.limit)
        rows.append(cells(name, us, them))
        if name in MODELS and "seconds" in them and "seconds" in us:
            ratios.append(them["seconds"] / us["seconds"])
        print("  ".join(rows[-1]), flush=True)
    summary = ""
    if ratios:
        summary = (
            f"Over the {len(ratios)} models that both can do: {statistics.median(ratios):.1f} times faster "
            f"in the median, {min(ratios):.1f} times at least. Time limit for a cut and its error: "
            f"{options.limit:.0f} s.\n"
        )
    print(summary)
    if options.table:
        options.table.write_text(f"{version_line()}.\n\n{table(rows)}\n{summary}")


if __name__ == "__main__":
    main()
