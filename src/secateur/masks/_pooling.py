"""Transfers of pooling, resampling and reductions: the mean of a constant is the constant."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from ._known import NEARLY, Known, compress, spread, uniform, unknown
from ._transfer import Results, Step, packet_of, transfers

_SPATIAL = {f"{n}d": n for n in (1, 2, 3)}


def _count(name: str) -> int:
    return next(n for suffix, n in _SPATIAL.items() if suffix in name)


@transfers(
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa",
    "upsample_trilinear3d", "upsample_bicubic2d",
)  # fmt: skip
def resample(step: Step) -> Results:
    """Weighted means and maxima over space: constants stay, but for zeros that a pool counts in."""
    name = packet_of(step.node.op)._qualified_op_name
    spatial = range(-_count(name), 0)
    known = uniform(next(k for k in (step.known("self"), step.known("input")) if k), list(spatial))
    value, state = compress(known.numbers().value, known.state)
    padding = step.arguments.get("padding", 0)
    padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
    if "avg_pool" in name and padded and step.arguments.get("count_include_pad", True):
        state = torch.where(value != 0, state.clamp_max(NEARLY), state)
    rest = [unknown(shape) for shape in step.shapes[1:]]  # indices
    return [Known(spread(value, step.shapes[0]), spread(state, step.shapes[0])), *rest]


@transfers("mean", "sum", "amax", "amin")
def reduction(step: Step) -> Results:
    """Over dimensions that are alike, and over others where all positions are known."""
    source = step.operand("self").without_chance().numbers()
    value, state = compress(source.value, source.state)
    dims = _dims(step.arguments.get("dim"), value.dim())
    keepdim = bool(step.arguments.get("keepdim", False))
    if not dims:
        return source
    operator = getattr(torch, packet_of(step.node.op)._qualified_op_name.partition("::")[2])
    copies = prod(source.shape[d] for d in dims if value.shape[d] == 1)
    value = operator(value, dims, keepdim)
    if operator is torch.sum:
        value = value * copies
    state = state.amin(dims, keepdim)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


def _dims(dim: Any, width: int) -> list[int]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return list(range(width))
    return [d % max(width, 1) for d in ([dim] if isinstance(dim, int) else dim)] if width else []
