"""Masks in, small model out, on the 30 torchvision models that NNI 3.0 was measured on.

    python benchmarks/speedup_zoo.py --table docs/speedup-zoo.md    # what is in --out is not run again
    python benchmarks/speedup_zoo.py --only 'resnet*' --again

L1 masks at 0.5 on every convolution (and linear layer of the transformers) but the last layer, weight
and bias; random weights, affine parameters and BatchNorm statistics; images of 128 x 128 where the
model takes any. ``as given``: every layer is masked on its own, so layers that are coupled disagree.
``grouped``: layers of one group are masked alike, by the sum of their scores. The error is the
relative L2 distance between the outputs of the small model and of the masked model (masks multiplied
into a copy of the original), on inputs that the speed-up has not seen. Seconds and memory are those of
``speedup(verify=False)``, checking of the masks and the report included.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import statistics
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from models import randomise
from processes import Record, append_line, failure, read_lines, run_all, version_line
from spine import memory_peaks
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

TRANSFORMERS = ("convnext_tiny", "swin_t", "maxvit_t", "vit_b_16")
NAMES = [
    *[
        "alexnet",
        "vgg11",
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        "densenet121",
        "squeezenet1_0",
        "squeezenet1_1",
    ],
    *[
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mobilenet_v3_large",
        "mnasnet1_0",
        "shufflenet_v2_x1_0",
        "googlenet",
    ],
    *["inception_v3", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"],
    *["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"],
    *["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"],
    *["convnext_tiny", "swin_t", "maxvit_t", "vgg16_bn", "wide_resnet50_2", "fcn_resnet50", "vit_b_16"],
]
SIDES = {"inception_v3": 160, "maxvit_t": 224, "ssdlite320_mobilenet_v3_large": 320}
HEADS = {
    "squeezenet1_0": ["classifier.1"],
    "squeezenet1_1": ["classifier.1"],
    "convnext_tiny": ["classifier.2"],
    "swin_t": ["head"],
    "maxvit_t": ["classifier.5"],
    "vit_b_16": ["heads.head"],
    "fcn_resnet50": ["classifier.4"],
    "deeplabv3_mobilenet_v3_large": ["classifier.4"],
    "lraspp_mobilenet_v3_large": ["classifier.low_classifier", "classifier.high_classifier"],
}
DETECTORS = ("rcnn", "ssd")
MASKS = ("as given", "grouped")
MODES = ("keep", "fold")


def build(name: str, seed: int = 0) -> nn.Module:
    """The model with nothing special in its values."""
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    if any(part in name for part in ("deeplab", "fcn_", "lraspp", *DETECTORS)):
        options["weights_backbone"] = None
    if any(part in name for part in DETECTORS):
        options["box_score_thresh" if "rcnn" in name else "score_thresh"] = 0.0
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": True, "aux_logits": False}
    if name == "vit_b_16":
        options["image_size"] = 128
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomise(models.get_model(name, **options).eval(), seed)


def inputs(name: str, seed: int, batch: int = 8) -> tuple[Any, ...]:
    """Arguments of one call."""
    draw = torch.Generator().manual_seed(seed)
    if any(part in name for part in DETECTORS):
        return ([torch.rand(3, 320, 320, generator=draw)],)
    side = SIDES.get(name, 128)
    return (torch.randn(batch, 3, side, side, generator=draw),)


def masked_layers(name: str, model: nn.Module) -> dict[str, nn.Module]:
    """The layers that get masks: all but those that make the outputs."""
    kinds = (nn.Conv2d, nn.Linear) if name in TRANSFORMERS else (nn.Conv2d,)
    layers = {path: module for path, module in model.named_modules() if type(module) in kinds}
    return {path: module for path, module in layers.items() if path not in HEADS.get(name, ())}


def l1(module: Any) -> Tensor:
    """L1 norm of every output channel."""
    return module.weight.detach().abs().flatten(1).sum(1)


def mask_of(module: Any, gone: Tensor) -> dict[str, Tensor]:
    """Masks of weight and bias that hide some output channels."""
    keep = torch.ones(module.weight.shape[0])
    keep[gone] = 0
    masks = {"weight": keep.reshape(-1, *[1] * (module.weight.dim() - 1)).expand_as(module.weight).clone()}
    return masks if module.bias is None else masks | {"bias": keep}


def as_given(layers: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """Half of the channels of every layer, each on its own."""
    return {p: mask_of(m, l1(m).argsort()[: len(l1(m)) // 2]) for p, m in layers.items()}


def grouped(
    model: nn.Module, layers: Mapping[str, nn.Module], args: Any, ratio: float = 0.5
) -> dict[str, dict[str, Tensor]]:
    """A share of the labels of every group, by the sum of the scores of its layers."""
    import secateur
    from secateur.axes import labels_at

    ir = secateur.PruningIR(model)
    snapshot = ir.create_snapshot("main", args)
    groups = {group.axis: group for group in ir.groups()}
    dims = {
        name: snapshot.analysis.dims_of(v.id)[0] for v in snapshot.graph.values if v.shape for name in v.names
    }
    scores = {axis: torch.zeros(axis.size) for axis in groups}
    found = {}
    for path, module in layers.items():
        dim = dims.get(f"{path}.weight")
        axes = [] if dim is None else [a for a in snapshot.analysis.algebra.leaves(dim) if a in groups]
        if axes:
            axis = axes[0]
            found[path] = axis, torch.from_numpy(labels_at(dim, axis))
            own = found[path][1]
            norm = l1(module) / l1(module).mean()
            scores[axis].index_add_(0, own[own >= 0], norm[own >= 0])
    masks = {}
    for path, (axis, labels) in found.items():
        gone = scores[axis].argsort()[: int(axis.size * ratio)]
        masks[path] = mask_of(layers[path], torch.isin(labels, gone))
    return masks


def masked_copy(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]]) -> nn.Module:
    """What a user would compare with: the masks multiplied into the parameters."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for path, targets in masks.items():
            for target, mask in targets.items():
                getattr(model.get_submodule(path), target).mul_(mask)
    return model


def error(masked: nn.Module, small: nn.Module, name: str) -> float:
    """Mean relative error over three inputs; detectors choose what the masked model chose."""
    import secateur
    from secateur.verification import Observer, Recorded

    graph = secateur.PruningIR(masked).create_snapshot("main", inputs(name, 0)).graph
    errors = []
    for draw in range(3):
        observer = Observer([Recorded(inputs(name, 100 + draw), {}, graph)], draws=1)
        observer.reference(masked)
        errors.append(observer.compare(small).error)
    return statistics.fmean(errors)


def measure(name: str) -> Record:
    """Both kinds of masks and both modes on one model. Runs in a process of its own."""
    model = build(name)
    args = inputs(name, 0)
    layers = masked_layers(name, model)
    with torch.no_grad():
        model(*args)
        start = time.process_time()
        model(*args)
        forward = time.process_time() - start
    record: Record = {"name": name, "forward": forward, **memory(model, as_given(layers), args)}
    for kind in MASKS:
        masks = as_given(layers) if kind == "as given" else grouped(model, layers, args)
        reference = masked_copy(model, masks)
        for mode in MODES:
            record |= {
                f"{kind}, {mode}, {k}": v for k, v in run(name, reference, model, masks, mode, args).items()
            }
    return record


def memory(model: nn.Module, masks: Any, args: Any) -> Record:
    """Most bytes of a forward and of a speed-up, parameters included, by torch's own allocator."""
    import secateur

    small = copy.deepcopy(model)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with record_function("measured: forward"), torch.no_grad():
            model(*args)
        with record_function("measured: speedup"):
            secateur.speedup(small, args, masks=masks, verify=False)
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    forward, speedup = memory_peaks(profiled, ("measured: forward", "measured: speedup"))
    return {"forward_memory": own + forward, "memory": own + speedup}


def run(name: str, reference: nn.Module, model: nn.Module, masks: Any, mode: str, args: Any) -> Record:
    """One speed-up, verified, and one for the clock."""
    import secateur

    small, other = copy.deepcopy(model), copy.deepcopy(model)
    before = sum(p.numel() for p in model.parameters())
    try:
        report = secateur.speedup(small, args, masks=masks, on_inexact=mode)
        start = time.process_time()
        secateur.speedup(other, args, masks=masks, on_inexact=mode, verify=False)
        seconds = time.process_time() - start
    except Exception as problem:  # a model that fails is a result
        return failure(problem)
    return {
        "parameters": report.parameters[1] / before,
        "macs": report.macs[1] / max(1, report.macs[0]),
        "reported": report.error,
        "measured": error(reference, small, name),
        "seconds": seconds,
        "operators": report.operators,
    }


def table(records: Iterable[Record]) -> str:
    """Markdown."""
    lines = ["# Speed-up of 30 torchvision models", ""]
    lines += ["`python benchmarks/speedup_zoo.py` prints this; what is measured, and how, is said there.", ""]
    lines += [f"Measured with {version_line()}.", ""]
    records = sorted(records, key=lambda record: NAMES.index(record["name"]))
    for kind in MASKS:
        lines += [
            f"## Masks {kind}",
            "",
            "| model | parameters left, keep | error, keep | parameters left, fold | error, fold "
            "| as reported | CPU s | 3 forwards + 1 ms an operator | memory / forward's |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(record, kind) for record in records]
        lines += ["", _summary(records, kind), ""]
    return "\n".join(lines)


def _line(record: Record, kind: str) -> str:
    own = {mode: _own(record, kind, mode) for mode in MODES}
    cells = [record["name"]]
    for mode in MODES:
        found = own[mode]
        if "failure" in found or "failure" in record:
            cells += ["", str(found.get("failure", record.get("failure")))]
        else:
            cells += [f"{found['parameters']:.1%}", f"{found['measured']:.1e}"]
    fold = own["fold"]
    if "reported" in fold:
        bound = 3 * record["forward"] + fold["operators"] / 1000
        cells += [f"{fold['reported']:.1e}", f"{fold['seconds']:.2f}", f"{bound:.2f}"]
        cells += [f"{record['memory'] / record['forward_memory']:.1f}"]
    return "| " + " | ".join(cells) + " |"


def _own(record: Record, kind: str, mode: str) -> Record:
    prefix = f"{kind}, {mode}, "
    return {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}


def _summary(records: list[Record], kind: str) -> str:
    keep = [_own(record, kind, "keep") for record in records]
    fold = [_own(record, kind, "fold") for record in records]
    ran = sum("measured" in a and "measured" in b for a, b in zip(keep, fold, strict=True))
    equal = sum(own.get("measured", 1.0) < 1e-4 for own in keep)
    told = [abs(o["reported"] / o["measured"] - 1) for o in fold if o.get("measured", 0) > 1e-4]
    close = sum(difference <= 0.1 for difference in told)
    both = [(record, own) for record, own in zip(records, fold, strict=True) if "seconds" in own]
    quick = sum(o["seconds"] <= 3 * r["forward"] + o["operators"] / 1000 for r, o in both)
    small = sum(r["memory"] <= 2 * r["forward_memory"] for r, _ in both)
    return (
        f"{ran} of {len(records)} run. keep: {equal} of {len(records)} below 1e-4. "
        f"fold: of {len(told)} with an error above 1e-4, {close} report it to within 10 %. "
        f"{quick} within 3 forwards and 1 ms an operator, {small} within twice the forward's memory."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="names, as a shell pattern")
    parser.add_argument("--out", type=Path, default=Path("build/speedup_zoo.jsonl"))
    parser.add_argument("--again", action="store_true", help="run what is in --out already")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="seconds for one model")
    parser.add_argument("--table", type=Path, help="write the table of all that is in --out there as well")
    given = parser.parse_args()
    done = {} if given.again else read_lines(given.out)
    names = [n for n in NAMES if fnmatch.fnmatch(n, given.only) and n not in done]
    for record in run_all(measure, [(n, (n,)) for n in names], jobs=given.jobs, limit=given.limit):
        append_line(given.out, record)
        print(f"{record['name']}: {record.get('failure', 'done')}", flush=True)
    text = table(read_lines(given.out).values())
    if given.table is not None:
        given.table.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
