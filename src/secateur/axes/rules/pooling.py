"""Pooling and resampling: space changes, the other dimensions stay."""

from __future__ import annotations

from typing import Any

from .._flow import keeps
from .._operator import Operand, Operator
from .._table import aten, register_rule

SPACE = "a spatial dimension after pooling or resampling"


def _spatial(op: Operator, self: Operand, count: int) -> Any:
    lead = self[: len(self) - count]
    results = [[*lead, *(op.fixed(n, SPACE) for n in shape[-count:])] for shape in op.shapes]
    return results[0] if len(results) == 1 else results


def _register(count: int, *names: str) -> None:
    @register_rule(*aten(*names), flow=keeps)
    def rule(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
        return _spatial(op, self, count)


_register(
    1, "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "max_pool1d_with_indices",
    "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d",
)  # fmt: skip
_register(
    2, "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
    "max_pool2d_with_indices", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "fractional_max_pool2d",
    "max_unpool2d",
)  # fmt: skip
_register(
    3, "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d",
    "max_pool3d_with_indices", "upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d",
    "max_unpool3d",
)  # fmt: skip


@register_rule(*aten("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), flow=keeps)
def grid_sampler(op: Operator, input: Operand, grid: Operand, *modes: Any) -> Any:
    op.pin(input[2:], "it is sampled on a grid")
    op.pin(grid[-1], "coordinates of a sampling grid")
    op.unify(input[0], grid[0])
    return [*input[:2], *grid[1:-1]]
