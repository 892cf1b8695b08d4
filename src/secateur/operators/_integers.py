"""Integers and back: the operators that a program for deployment is made of."""

from __future__ import annotations

import torch
from torch import Tensor

LIMITS = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int32: (-(2**31), 2**31 - 1)}
"""Lowest and highest value of the integer types that are deployed."""


@torch.library.custom_op("secateur::quantize", mutates_args=())
def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    """``round(x / scale) + zero_point``, ties to even, clamped to the integer type of ``zero_point``.

    Args:
        x: floats of any shape.
        scale: shape (), or (channels,) along ``axis``.
        zero_point: integers of that shape; their dtype is that of the result.
        axis: dimension of ``x`` that has a scale for each position; None for one scale.

    Example:
        >>> quantize(torch.tensor([-1.0, 0.3]), torch.tensor(0.5), torch.tensor(1, dtype=torch.uint8))
        tensor([0, 2], dtype=torch.uint8)
    """
    low, high = LIMITS[zero_point.dtype]
    steps = torch.round(x / along(scale, x, axis)) + along(zero_point, x, axis)
    return steps.clamp(low, high).to(zero_point.dtype)


@torch.library.custom_op("secateur::dequantize", mutates_args=())
def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    """``(q - zero_point) * scale``.

    Args:
        q: integers of any shape.
        scale: shape (), or (channels,) along ``axis``; its dtype is that of the result.
        zero_point: integers of that shape.
        axis: dimension of ``q`` that has a scale for each position; None for one scale.

    Example:
        >>> q = torch.tensor([0, 2], dtype=torch.uint8)
        >>> dequantize(q, torch.tensor(0.5), torch.tensor(1, dtype=torch.uint8))
        tensor([-0.5000,  0.5000])
    """
    steps = q.to(torch.int64) - along(zero_point, q, axis).to(torch.int64)
    return steps.to(scale.dtype) * along(scale, q, axis)


@torch.library.custom_op("secateur::global_average", mutates_args=())
def global_average(x: Tensor) -> Tensor:
    """The mean over all positions of an image, (batch, channels, *positions) to (batch, channels, 1, ...).

    Example:
        >>> global_average(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 1, 1])
    """
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def along(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """One value for each position of ``axis``, shaped to be broadcast against ``x``.

    >>> along(torch.ones(3), torch.ones(2, 3, 4), 1).shape
    torch.Size([3, 1])
    """
    return values if axis is None else values.reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))


@quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    return torch.empty_like(x, dtype=zero_point.dtype)


@dequantize.register_fake
def _(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)


@global_average.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:2], *[1] * (x.dim() - 2)))


QUANTIZE = torch.ops.secateur.quantize.default
"""As nodes of a graph call them: :func:`quantize`, :func:`dequantize` and :func:`global_average`."""
DEQUANTIZE = torch.ops.secateur.dequantize.default
AVERAGE = torch.ops.secateur.global_average.default
