"""Integer kernels in PyTorch: the arithmetic of ONNX Runtime's on x86, integer for integer.

Sums of products are exact; what becomes of a sum is rounded in float32, in the order in which the kernels do.
Layouts of integers are uint8 for activations, int8 for weights and int32 for biases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_EXACT_IN_FLOAT32 = 2**24
_BYTE = 255


class IntegerLayer(nn.Module):
    """A convolution or linear layer of integers: int32 sums, multiplied by one factor a channel, rounded.

    Args:
        operator: ``operator(x, weight, None, *rest)`` in floats.
        rest: what it takes beside input, weight and bias.
        weight: int8, output channels first.
        weight_zero: its zero point, shape () or (channels,).
        bias: int32 of shape (channels,), at the scale of the products; None for none.
        factor: float32, from sums to steps of the output, shape () or (channels,); from sums to floats where
            ``zero`` is None.
        source_zero: zero point of the input.
        zero: zero point of the output; None if the output is of floats.
        channels: the dimension of the output that has them.
    """

    def __init__(
        self,
        operator: Callable[..., Tensor],
        rest: tuple[Any, ...],
        weight: Tensor,
        weight_zero: Tensor,
        bias: Tensor | None,
        factor: Tensor,
        source_zero: int,
        zero: int | None,
        channels: int,
    ) -> None:
        super().__init__()
        rows = weight_zero.reshape(-1, *[1] * (weight.dim() - 1)).to(torch.int64)
        steps = weight.to(torch.int64) - rows
        # Float32 holds every sum if none can be longer than its mantissa, and is faster than float64.
        longest = int(steps.abs().flatten(1).sum(1).max()) * _BYTE
        dtype = torch.float32 if longest < _EXACT_IN_FLOAT32 else torch.float64
        self.operator, self.rest, self.channels = operator, rest, channels
        self.source_zero, self.zero = source_zero, zero
        self.weight = nn.Buffer(steps.to(dtype))
        self.bias = None if bias is None else nn.Buffer(bias)
        self.factor = nn.Buffer(factor)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 to uint8, or to float32."""
        steps = x.to(self.weight.dtype) - self.source_zero
        sums = self.operator(steps, self.weight, None, *self.rest).to(torch.int32)
        if self.bias is not None:
            sums += self._along(self.bias, sums)
        made = sums.float() * self._along(self.factor, sums)
        return made if self.zero is None else _byte(made.round_() + self.zero)

    def _along(self, values: Tensor, sums: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (sums.dim() - 1 - self.channels)) if values.dim() else values


class IntegerSum(nn.Module):
    """The sum of two tensors of integers: ``a · (sₐ/s) + (b · (s_b/s) + c)``, each step rounded to float32.

    With the zero points, ``c = z - (zₐ · (sₐ/s) + z_b · (s_b/s))``. A product and what is added to it are one
    step, but for that of ``z_b``.

    Args:
        scales: of both operands and of the result, float32 of shape ().
        zeros: their zero points.
    """

    def __init__(self, scales: tuple[Tensor, Tensor, Tensor], zeros: tuple[int, int, int]) -> None:
        super().__init__()
        one, other = scales[0] / scales[2], scales[1] / scales[2]
        zero = _multiplied_and_added(torch.tensor(zeros[0]), one, other * zeros[1])
        self.one, self.other, self.constant = nn.Buffer(one), nn.Buffer(other), nn.Buffer(zeros[2] - zero)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two times uint8 to uint8."""
        inner = _multiplied_and_added(b, self.other, self.constant)
        return _byte(_multiplied_and_added(a, self.one, inner).round_())


class IntegerMean(nn.Module):
    """The mean over all positions of an image: int32 sums, times one factor, rounded.

    Args:
        scales: of input and result, float32 of shape ().
        zeros: their zero points.
    """

    def __init__(self, scales: tuple[Tensor, Tensor], zeros: tuple[int, int]) -> None:
        super().__init__()
        self.zeros = zeros
        self.source_scale, self.scale = nn.Buffer(scales[0]), nn.Buffer(scales[1])

    def forward(self, x: Tensor) -> Tensor:
        """uint8 of shape (batch, channels, *positions) to uint8 with one position."""
        dims = tuple(range(2, x.dim()))
        positions = x[0, 0].numel()
        sums = x.sum(dims, keepdim=True, dtype=torch.int32) - self.zeros[0] * positions
        factor = self.source_scale / (self.scale * positions)
        return _byte((sums.float() * factor).round_() + self.zeros[1])


def _multiplied_and_added(steps: Tensor, factor: Tensor, more: Tensor) -> Tensor:
    """``steps · factor + more`` with one rounding: the product of 8 and 24 bits is exact in float64."""
    return (steps.double() * factor.double() + more.double()).float()


def _byte(steps: Tensor) -> Tensor:
    return steps.clamp_(0, _BYTE).to(torch.uint8)
