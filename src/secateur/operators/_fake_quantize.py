"""Fake quantisation as one operator that survives export, so that deployment finds every place of it."""

from __future__ import annotations

import torch
from torch import Tensor


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None = None
) -> Tensor:
    """Round to the grid ``(q − zero_point) · scale`` of integers ``qmin ≤ q ≤ qmax``.

    ``q = round(x / scale) + zero_point``, ties to even. Run eagerly this is torch's own fake quantisation,
    whose gradient is that of the identity within the range and zero outside of it. Under ``torch.export`` it
    is the operator ``secateur::fake_quantize``, which :mod:`secateur.deploy` turns into real integers.

    Args:
        x: floats of any shape.
        scale: one positive number, shape () or (1,); or one for each position of ``axis``.
        zero_point: integers of the shape of ``scale``.
        qmin: the lowest integer.
        qmax: the highest integer.
        axis: dimension of ``x`` that has a scale for each position; None for one scale.

    Returns:
        Floats of the shape and dtype of ``x``.

    Example:
        >>> fake_quantize(torch.tensor([0.24, 0.26, 9.0]), torch.tensor(0.5), torch.tensor(0), -8, 7)
        tensor([0.0000, 0.5000, 3.5000])
    """
    if torch.compiler.is_exporting():
        return torch.ops.secateur.fake_quantize(x, scale, zero_point, qmin, qmax, axis)
    return _eager(x, scale, zero_point, qmin, qmax, axis)


def _eager(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    scale, zero_point = (
        scale.detach().to(torch.float32).flatten(),
        zero_point.detach().flatten().to(torch.int32),
    )
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, qmin, qmax)
    axis = axis % x.dim()
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, qmin, qmax)


@torch.library.custom_op("secateur::fake_quantize", mutates_args=())
def _operator(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None = None
) -> Tensor:
    return _eager(x, scale, zero_point, qmin, qmax, axis).clone()


@_operator.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None = None) -> Tensor:
    return torch.empty_like(x)
