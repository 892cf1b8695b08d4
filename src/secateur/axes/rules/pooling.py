"""Pooling and resampling: space changes, the other dimensions stay."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import adds, keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule

SPACE = "a spatial dimension of pooling or resampling"


def spatial(op: Operator, input: Operand, count: int) -> Any:
    """The last ``count`` dimensions are resampled; a second result holds the places of maxima."""
    op.pin(input[len(input) - count :], SPACE)
    lead = input[: len(input) - count]
    results = [[*lead, *(op.fixed(n, SPACE) for n in shape[-count:])] for shape in op.shapes]
    for dim in lead if len(results) > 1 else ():
        op.inexact_if_used(1, dim, "indices of maxima are something else where all values are zero")
    return results[0] if len(results) == 1 else results


def _register(count: int, *names: str) -> None:
    @register_rule(*aten(*names), flow=keeps)
    def rule(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
        return spatial(op, self, count)


_register(
    1, "max_pool1d", "avg_pool1d", "adaptive_max_pool1d", "max_pool1d_with_indices",
    "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d",
)  # fmt: skip
_register(
    2, "max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "max_pool2d_with_indices",
    "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
    "_upsample_lanczos2d_aa",
)  # fmt: skip
_register(
    3, "max_pool3d", "avg_pool3d", "adaptive_max_pool3d", "max_pool3d_with_indices",
    "upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d",
)  # fmt: skip


@register_rule(
    *aten(
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "_adaptive_avg_pool3d",
    ),
    flow=keeps,
)  # fmt: skip
def adaptive_avg_pool(op: Operator, self: Operand, output_size: Sequence[int]) -> Any:
    dims = list(self)
    for position in range(-len(output_size), 0):
        size = op.shape[position]
        if size == 1:
            op.inexact(dims[position], "a mean is taken over it")
        else:
            op.pin(dims[position], SPACE)
        dims[position] = op.fixed(size, SPACE)
    return dims


@register_rule(*aten("max_unpool2d", "max_unpool3d"), flow=adds("self"))
def max_unpool(op: Operator, self: Operand, indices: Operand, output_size: Sequence[int], *args: Any) -> Any:
    lead = len(self) - len(output_size)
    for own, other in zip(self[:lead], indices[:lead], strict=True):
        op.unify(own, other)
    op.pin(indices[lead:], SPACE)
    return spatial(op, self, len(output_size))


@register_rule(*aten("fractional_max_pool2d", "fractional_max_pool3d"), flow=adds("self"))
def fractional_max_pool(
    op: Operator, self: Operand, kernel_size: Any, output_size: Sequence[int], samples: Operand
) -> Any:
    lead = len(self) - len(output_size)
    for own, other in zip(self[:lead][::-1], samples[:2][::-1], strict=False):
        op.unify(own, other)
    op.pin(samples[2], SPACE)
    return spatial(op, self, len(output_size))


@register_rule(*aten("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), flow=adds("input"))
def grid_sampler(op: Operator, input: Operand, grid: Operand, *modes: Any) -> Any:
    op.pin(input[2:], "it is sampled on a grid")
    op.pin(grid[-1], "coordinates of a sampling grid")
    op.unify(input[0], grid[0])
    return [*input[:2], *grid[1:-1]]


BOXES = "boxes and their coordinates"


@register_rule("torchvision::roi_align", "torchvision::roi_pool", flow=adds("input"))
def roi_align(op: Operator, input: Operand, rois: Operand, *args: Any) -> Any:
    op.pin([input[0], *input[2:], *rois], BOXES)
    results = [[op.fixed(s[0], BOXES), input[1], *(op.fixed(n, SPACE) for n in s[2:])] for s in op.shapes]
    if len(results) > 1:
        op.inexact_if_used(1, input[1], "indices of maxima are something else where all are zero")
    return results if len(results) > 1 else results[0]


@register_rule("torchvision::ps_roi_align", "torchvision::ps_roi_pool", flow=adds("input"))
def ps_roi_align(op: Operator, input: Operand, rois: Operand, *args: Any) -> Any:
    op.pin([input[0], *input[2:], *rois], BOXES)
    rows, columns = op.shape[2:]
    channels, *places = op.split(input[1], op.shape[1], rows, columns)
    op.pin(places, SPACE)
    results = [[op.fixed(s[0], BOXES), channels, *(op.fixed(n, SPACE) for n in s[2:])] for s in op.shapes]
    op.inexact_if_used(1, channels, "it names the channel that a value came from")
    return results


@register_rule("torchvision::nms")
def nms(op: Operator, dets: Operand, scores: Operand, iou_threshold: float) -> Any:
    op.pin([*dets, *scores], BOXES)
    return [op.fixed(op.shape[0], "data decides how many positions it has")]
