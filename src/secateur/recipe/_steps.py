"""The steps: each takes a model and gives one, through the library's own functions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import CompressionError
from .._prune import prune
from ..compression.distillation import LogitsDistillation
from ..compression.pruning import AGPPruner, FPGMPruner, L1NormPruner, L2NormPruner, LevelPruner
from ..compression.quantization import LsqQuantizer, PtqQuantizer, QATQuantizer, Quantizer
from ..criteria import model_inputs
from ..deploy import (
    DeployReport,
    int8_config_list,
    to_executorch,
    to_onnx,
    to_openvino,
    to_pt2,
    to_torch_int8,
)
from ..speedups import speedup
from ._context import Context
from ._names import resolve
from ._schema import Call, ConfigList, Deploy, Distill, Fuse, Prune, Quantize, Section, Train, Training
from ._state import Ranges

PRUNERS = {"l1": L1NormPruner, "l2": L2NormPruner, "fpgm": FPGMPruner, "level": LevelPruner}
RUNTIMES: dict[str, tuple[Callable[..., DeployReport], str]] = {
    "onnx": (to_onnx, "model.onnx"),
    "pt2": (to_pt2, "model.pt2"),
    "openvino": (to_openvino, "model.xml"),
    "torch_int8": (to_torch_int8, "model.pt2"),
    "executorch": (to_executorch, "model.pte"),
}
Loss = Callable[[Any, Any], Tensor]


@dataclass
class Result:
    """What a step gives.

    Attributes:
        model: plain, with nothing simulated.
        ranges: of quantisation, where the model is to be simulated with them.
        notes: what the step says of itself.
        deployed: the report of a deployment.
    """

    model: nn.Module
    ranges: Ranges = field(default_factory=dict)
    notes: str = ""
    deployed: DeployReport | None = None


def take(step: Section, model: nn.Module, ranges: Ranges, context: Context) -> Result:
    """Carry out a step on a model, which it may change."""
    match step:
        case Prune():
            return _prune(step, model, context)
        case Train():
            return _train(step, model, context, loss=_labels(step.loss))
        case Fuse():
            return _fuse(step, model, context)
        case Distill():
            return _train(step, model, context, loss=_answers(step, context))
        case Quantize():
            return _quantize(step, model, context)
        case Deploy():
            return _deploy(step, model, ranges, context)
        case _:
            raise TypeError(f"{type(step).__name__} is no step")


def simulated(model: nn.Module, ranges: Ranges, context: Context) -> nn.Module:
    """The model with the quantisation of the recipe simulated at known ranges, in eval mode; itself if there
    are none."""
    if not ranges:
        return model
    step = next(step for step in context.recipe.steps if isinstance(step, (Quantize, Fuse)))
    quantizer = _quantizer(step, model, context)
    quantizer.update_calibration_config(ranges)
    quantizer.wrap_model()
    return quantizer.bound_model.eval()


# -- pruning ---------------------------------------------------------------------------------------


def _prune(step: Prune, model: nn.Module, context: Context) -> Result:
    args, kwargs = context.inputs
    if step.config_list is not None:
        pruner = PRUNERS[step.pruner](model, step.config_list)
        _, masks = pruner.compress()
        pruner.unwrap_model()
        report = speedup(model, args, kwargs, masks)
        return Result(model, notes=str(report))
    small, pruned = prune(
        model,
        args,
        kwargs,
        ratio=step.ratio,
        target_latency=step.target_latency,
        round_to=step.round_to,
        ignore=step.ignore,
        recover=context.batches("calibrate") if step.recover else None,
    )
    return Result(small, notes=str(pruned))


# -- training --------------------------------------------------------------------------------------


def _labels(loss: Call) -> Loss:
    return partial(resolve(loss), **loss.arguments)


def _answers(step: Distill, context: Context) -> Loss:
    """Distillation from the original, plus what the labels say if the step has a loss."""
    teacher = copy.deepcopy(context.original)
    distillation = LogitsDistillation(teacher, method=step.method, temperature=step.temperature)
    labels = None if step.loss is None else _labels(step.loss)

    def loss(output: Any, batch: Any) -> Tensor:
        found = distillation(output, batch)
        return found if labels is None else found + labels(output, batch)

    return loss


def _train(
    step: Training,
    model: nn.Module,
    context: Context,
    *,
    loss: Loss,
    after: Callable[[], None] = lambda: None,
) -> Result:
    optimizer = context.optimizer(model, step)
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train(step.mode == "train")
    total, count = 0.0, 0
    for epoch in range(step.epochs):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - epoch / step.epochs)
        for batch in context.batches("train"):
            args, kwargs = model_inputs(model, batch)
            value = loss(model(*args, **kwargs), batch)
            if not bool(value.isfinite()):
                raise CompressionError(
                    f"the loss is {value.item()} after {count} steps: lower the learning rate"
                )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            after()
            total, count = total + value.item(), count + 1
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
    return Result(model, notes=f"mean loss {total / max(count, 1):.4g} over {count} steps")


# -- quantisation ----------------------------------------------------------------------------------


def _integers(step: Quantize | Fuse, model: nn.Module, context: Context) -> ConfigList:
    args, kwargs = context.inputs
    return int8_config_list(model, args, kwargs) if step.config_list == "int8" else step.config_list


def _quantizer(step: Quantize | Fuse, model: nn.Module, context: Context) -> Quantizer:
    args, kwargs = context.inputs
    config, dummy = _integers(step, model, context), kwargs or args
    if isinstance(step, Fuse):
        return QATQuantizer(model, config, dummy_input=dummy)
    if step.method == "ptq":
        return PtqQuantizer(
            model, config, is_bias_correction=step.bias_correction, observer=step.observer, dummy_input=dummy
        )
    kind = QATQuantizer if step.method == "qat" else LsqQuantizer
    return kind(model, config, dummy_input=dummy)


def _quantize(step: Quantize, model: nn.Module, context: Context) -> Result:
    quantizer = _quantizer(step, model, context)
    notes = "calibrated"
    if isinstance(quantizer, PtqQuantizer):
        batches = list(context.batches("calibrate"))
        with torch.no_grad():
            quantizer.calibrate(batches)
    else:
        loss = _answers(Distill(), context) if step.loss is None else _labels(step.loss)
        notes = _train(step, model, context, loss=loss, after=quantizer.step).notes
        quantizer.refresh()
    ranges = quantizer.get_calibration_config()
    quantizer.unwrap_model()
    return Result(model.eval(), ranges, notes)


def _fuse(step: Fuse, model: nn.Module, context: Context) -> Result:
    """One training: masks grow in its first half, the original is learned from, the end of it is rounded."""
    args, kwargs = context.inputs
    config = _integers(step, model, context)
    steps = step.epochs * sum(1 for _ in context.batches("train"))
    start = int(steps * step.round_from)
    options: dict[str, Any] = {
        "quant_start_step": start,
        "watch_start_step": start - start // 10,
        "dummy_input": kwargs or args,
    }
    if step.prune:
        pruner = AGPPruner(PRUNERS[step.pruner](model, step.prune), max(1, steps // 8), total_times=4)
        quantizer = QATQuantizer.from_compressor(pruner, config, **options)
    else:
        quantizer = QATQuantizer(model, config, **options)

    def after() -> None:
        for compressor in quantizer.fused_compressors:
            compressor.step()

    notes = _train(step, model, context, loss=_answers(step, context), after=after).notes
    quantizer.refresh()
    if step.prune:
        quantizer, report = quantizer.speedup(args, kwargs)
        notes = f"{notes}\n{report}"
    ranges = quantizer.get_calibration_config()
    quantizer.unwrap_model()
    return Result(quantizer.bound_model.eval(), ranges, notes)


# -- deployment ------------------------------------------------------------------------------------


def _deploy(step: Deploy, model: nn.Module, ranges: Ranges, context: Context) -> Result:
    args, kwargs = context.inputs
    deploy, name = RUNTIMES[step.to]
    simulation = simulated(copy.deepcopy(model), ranges, context)
    bound = {} if step.max_batch is None else {"max_batch": step.max_batch}
    report = deploy(
        simulation,
        args,
        context.folder / (step.file or name),
        kwargs,
        dynamic_batch=step.dynamic_batch,
        original=context.original,
        runs=step.runs,
        **bound,
    )
    return Result(model, ranges, notes=str(report), deployed=report)
