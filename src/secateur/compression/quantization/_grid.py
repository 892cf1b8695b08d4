"""Grids of integers: their scales and zero points, and how floats are put on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...operators import fake_quantize
from ..config import QuantizationSettings
from ..sites import block_counts, block_rows, spread

LEAST = torch.finfo(torch.float32).eps
"""Of a scale, so that a tensor of zeros has one."""


@dataclass(frozen=True)
class Grid:
    """What one target is rounded to: ``(q - zero_point) * scale`` for integers ``low <= q <= high``.

    Attributes:
        scale: of shape () for a whole tensor; otherwise as many dimensions as the target, with one number for
            every block, such as ``(16, 1, 1, 1)`` for output channels.
        zero_point: int32, of the same shape.
        low: the lowest integer.
        high: the highest integer.
        dtype: the name of the integers, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    dtype: str
    scheme: str

    @property
    def axis(self) -> int | None:
        """The dimension that has a scale for each position; None if there is one scale for all.

        Raises:
            ValueError: for blocks that are not the positions of one dimension.
        """
        long = [dim for dim, size in enumerate(self.scale.shape) if size > 1]
        if len(long) > 1:
            raise ValueError(f"scales of shape {tuple(self.scale.shape)} are not along one dimension")
        return long[0] if long else None

    def apply(self, tensor: Tensor) -> Tensor:
        """The tensor, rounded to the grid; its gradient is zero outside of the range."""
        return on_grid(tensor, self.scale, self.zero_point, self.low, self.high)


def on_grid(tensor: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The tensor, rounded to a grid, in its own dtype; half precision is rounded in float32.

    The gradient is that of the identity inside of the range and zero outside of it.

    >>> on_grid(torch.tensor([0.3, 0.8, 9.0]), torch.tensor(0.5), torch.tensor(0), -3, 3)
    tensor([0.5000, 1.0000, 1.5000])
    """
    given, tensor = tensor.dtype, tensor if tensor.dtype is torch.float64 else tensor.float()
    long = [dim for dim, size in enumerate(scale.shape) if size > 1]
    if not long:
        rounded = fake_quantize(tensor, scale, zero_point, low, high)
    elif len(long) == 1 and scale.shape[long[0]] == tensor.shape[long[0]]:
        rounded = fake_quantize(tensor, scale, zero_point, low, high, long[0])
    else:
        rounded = straight_through(tensor, scale, zero_point, low, high)
    return rounded.to(given)


def straight_through(tensor: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The same for any blocks, and with gradients for scale and zero point, straight through the rounding."""
    scale, zero_point = stretched(scale, tensor.shape), stretched(zero_point, tensor.shape)
    steps = (tensor / scale + zero_point).clamp(low, high)
    return (steps + (steps.round() - steps).detach() - zero_point) * scale


def stretched(values: Tensor, shape: Sequence[int]) -> Tensor:
    """One value a block, over a tensor of that shape; as it is where it can be broadcast."""
    if all(size in (1, whole) for size, whole in zip(values.shape, shape, strict=bool(values.dim()))):
        return values
    blocks = [whole // size for whole, size in zip(shape, values.shape, strict=True)]
    return spread(values.flatten(), shape, blocks)


def block_range(tensor: Tensor, blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The least and the largest element of every block, shaped like the scales of :class:`Grid`."""
    tensor = tensor.detach().float()
    if tuple(blocks) == tuple(tensor.shape):
        least, most = torch.aminmax(tensor)
        return least, most
    least, most = torch.aminmax(block_rows(tensor, blocks), dim=1)
    counts = block_counts(tensor.shape, blocks)
    return least.reshape(counts), most.reshape(counts)


def scale_and_zero(least: Tensor, most: Tensor, settings: QuantizationSettings) -> tuple[Tensor, Tensor]:
    """The scale and zero point with which a range, widened to contain 0, is the range of the integers.

    Symmetric: ``scale = max |x| / ((high - low) / 2)``, and zero is the middle. Affine: ``scale = (max - min)
    / (high - low)``, ``zero_point = low - round(min / scale)``.

    >>> settings = QuantizationSettings("uint8", "affine")
    >>> scale, zero_point = scale_and_zero(torch.tensor(-1.0), torch.tensor(5.0), settings)
    >>> round(float(scale) * 255, 4), int(zero_point)
    (6.0, 42)
    """
    low, high = settings.limits
    least, most = least.clamp(max=0), most.clamp(min=0)
    if settings.quant_scheme == "symmetric":
        scale = (torch.maximum(-least, most) / ((high - low) / 2)).clamp(min=LEAST)
        return scale, torch.full_like(scale, (low + high + 1) // 2, dtype=torch.int32)
    scale = ((most - least) / (high - low)).clamp(min=LEAST)
    return scale, (low - torch.round(least / scale)).clamp(low, high).to(torch.int32)
