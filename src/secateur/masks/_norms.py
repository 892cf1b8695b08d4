"""Transfers of normalisation layers: where the scale is masked only the shift is left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._known import EXACTLY, UNKNOWN, Known, compress, constant, spread, unknown
from ._transfer import Results, Step, packet_of, transfers


def _channels(known: Known | None, width: int, ndim: int, default: float) -> Known:
    """An affine parameter as something to broadcast over (batch, channels, ...)."""
    if known is None:
        return constant(default, (1,) * ndim)
    shape = [1, width, *[1] * (ndim - 2)]
    numbers = known.numbers()
    masked = None if known.masked is None else known.masked.cpu().reshape(shape)
    return Known(numbers.value.reshape(shape), known.state.cpu().reshape(shape), masked)


def _affine(step: Step, source: Known, scale: Known, shift: Known, rate: Tensor | float, mean: Any) -> Known:
    """(source - mean) * rate * scale + shift, and just shift where scale is masked."""
    value, state = compress(source.numbers().value, source.state)
    value = (value - mean) * rate * scale.value + shift.value
    state = torch.minimum(torch.minimum(state, scale.state), shift.state)
    gone = scale.zeros()
    value, state = torch.where(gone, shift.value, value), torch.where(gone, shift.state, state)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


@transfers("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(step: Step) -> Results:
    """With the running statistics every channel is moved and scaled on its own."""
    source = step.operand("input")
    width, ndim = source.shape[1], len(source.shape)
    scale = _channels(step.known("weight"), width, ndim, 1.0)
    shift = _channels(step.known("bias"), width, ndim, 0.0)
    mean, variance = step.known("running_mean"), step.known("running_var")
    eps = float(step.arguments.get("eps", step.arguments.get("epsilon", 1e-5)))
    if mean is None or variance is None or step.arguments.get("training"):
        return _only_shift(step, source, scale, shift)
    mean, variance = (_channels(k, width, ndim, 0.0).value for k in (mean, variance))
    results = _affine(step, source, scale, shift, (variance + eps).rsqrt(), mean)
    return [results, *[None] * (len(step.shapes) - 1)]


def _only_shift(step: Step, source: Known, scale: Known, shift: Known) -> Results:
    nothing = Known(source.value, torch.full((), UNKNOWN, dtype=torch.uint8).expand(source.shape))
    return [_affine(step, nothing, scale, shift, 1.0, 0.0), *[None] * (len(step.shapes) - 1)]


@transfers("instance_norm", "group_norm", "native_group_norm")
def statistics_of_input(step: Step) -> Results:
    """Normalised by its own statistics: known where all that these are taken over is."""
    source = step.known("input") or step.operand("self")
    width, ndim = source.shape[1], len(source.shape)
    scale = _channels(step.known("weight"), width, ndim, 1.0)
    shift = _channels(step.known("bias"), width, ndim, 0.0)
    if packet_of(step.node.op) is not torch.ops.aten.instance_norm:
        groups = step.arguments.get("num_groups") or step.arguments["group"]
        return _affine(step, _centred(source, groups, float(step.arguments["eps"])), scale, shift, 1.0, 0.0)
    if step.arguments.get("use_input_stats", True):
        return _instances(step, source, scale, shift)
    return _only_shift(step, source, scale, shift)


def _centred(source: Known, groups: int, eps: float) -> Known:
    """Normalised within groups of channels: known where a whole group is, and it is alike all over."""
    value, state = compress(source.numbers().value, source.state)
    if any(n > 1 for n in value.shape[2:]):
        return unknown(source.shape)
    form = (value.shape[0], groups, source.shape[1] // groups)
    flat = [t.flatten(1).expand(-1, source.shape[1]).reshape(form) for t in (value, state)]
    mean, variance = flat[0].mean(2, keepdim=True), flat[0].var(2, keepdim=True, correction=0)
    whole = (flat[1] == EXACTLY).all(2, keepdim=True).expand(form)
    channels = (value.shape[0], source.shape[1], *[1] * (value.dim() - 2))
    normal = ((flat[0] - mean) * (variance + eps).rsqrt()).reshape(channels)
    state = torch.where(whole, EXACTLY, UNKNOWN).to(torch.uint8).reshape(channels)
    return Known(spread(normal, source.shape), spread(state, source.shape))


def _instances(step: Step, source: Known, scale: Known, shift: Known) -> Results:
    """A channel that is alike everywhere is its own mean: nothing of it is left but the shift."""
    alike = all(source.value.stride(d) == 0 or source.shape[d] == 1 for d in range(2, len(source.shape)))
    if not alike:
        return _only_shift(step, source, scale, shift)
    state = torch.where(source.state == EXACTLY, EXACTLY, UNKNOWN).to(torch.uint8)
    centred = Known(torch.zeros((), dtype=torch.float64).expand(source.shape), state)
    return _affine(step, centred, scale, shift, 1.0, 0.0)


@transfers("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(step: Step) -> Results:
    """Statistics mix all positions: unknown, unless the scale is masked."""
    shape = step.shapes[0]
    weight, bias = step.known("weight"), step.known("bias")
    if weight is None:
        return step.nothing
    shift = bias.numbers() if bias is not None else constant(0.0, weight.shape)
    state = torch.where(weight.zeros().cpu(), shift.state, UNKNOWN).to(torch.uint8)
    results = Known(spread(shift.value, shape), spread(state, shape))
    return [results, *[None] * (len(step.shapes) - 1)]


@transfers("embedding")
def embedding(step: Step) -> Results:
    """A column that is the same in every row is the same for every index."""
    weight = step.operand("weight")
    zeros = weight.zeros().all(0).cpu()
    state = torch.where(zeros, EXACTLY, UNKNOWN).to(torch.uint8)
    return Known(constant(0.0, step.shapes[0]).value, spread(state, step.shapes[0]))
