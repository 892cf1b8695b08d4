"""Targets whose scale, and zero point, are trained with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Target, TargetKind
from ..sites import block_rows
from ._grid import LEAST, Grid, on_grid, straight_through
from ._reading import Quantized


class Learned(Quantized):
    """A target whose scale is a parameter of its module.

    Before the first value was seen the scale is NaN, and the target is read as it is. A subclass says what a
    first value makes of the scale (:meth:`start`).

    Attributes:
        started: whether the scale has a value.
    """

    learns_zero = False
    """Whether the zero point is trained too."""

    def __init__(self, target: Target, counts: tuple[int, ...], device: torch.device) -> None:
        super().__init__(target)
        self.started = False
        self.learns_zero = type(self).learns_zero and target.settings.quant_scheme == "affine"
        zero = torch.zeros(counts, dtype=torch.float32 if self.learns_zero else torch.int32, device=device)
        self._kept = (
            nn.Parameter(torch.full(counts, torch.nan, device=device)),
            nn.Parameter(zero) if self.learns_zero else zero,
        )

    def _register(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        super()._register(module, name, value)
        if isinstance(value, nn.Parameter):
            del module._buffers[name]
            module.register_parameter(name, value)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [value for value in (self.scale, self.zero_point) if isinstance(value, nn.Parameter)]

    @property
    def known(self) -> bool:
        """See :meth:`Quantized.known`."""
        return self.started

    def write(self, scale: Tensor, zero_point: Tensor) -> None:
        """See :meth:`Quantized.write`; the parameters stay the same objects."""
        own = self.scale, self.zero_point
        assert own[0] is not None
        assert own[1] is not None
        with torch.no_grad():
            own[0].copy_(scale)
            own[1].copy_(zero_point)
        self.started = bool(scale.isfinite().all())

    def watch(self, value: Tensor) -> None:
        """The first value says what the scale is at first."""
        if not self.started:
            with torch.no_grad():
                self.write(*self.start(value.detach().float()))

    def refresh(self, value: Tensor) -> None:
        """See :meth:`Quantized.refresh`; a scale stays above zero."""
        scale = self.scale
        assert scale is not None
        self.watch(value)
        with torch.no_grad():
            scale.clamp_(min=LEAST)

    def start(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point for a first value."""
        raise NotImplementedError

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """See :meth:`Quantized.rounded`; with gradients for scale and zero point in training."""
        scale, zero_point = self.scale, self.zero_point
        assert scale is not None
        assert zero_point is not None
        self._check_shape(scale, value)
        scale = _at_least(scale)
        if not (training and torch.is_grad_enabled()):
            return on_grid(value, scale.detach(), _whole(zero_point), self.low, self.high)
        share = self._gradient_scale(value, scale)
        if self.learns_zero:
            zero_point = _straight(_scaled_gradient(zero_point, share), zero_point.round())
        exact = value if value.dtype is torch.float64 else value.float()
        scale = _scaled_gradient(scale, share)
        return straight_through(exact, scale, zero_point, self.low, self.high).to(value.dtype)

    def _gradient_scale(self, value: Tensor, scale: Tensor) -> float:
        """``1 / sqrt(elements * high)``: of a block of a weight, or of what one sample has of it."""
        elements = value.numel()
        if self.target.kind is not TargetKind.PARAMETER:
            elements //= max(1, value.shape[0])
        return (max(1, elements // scale.numel()) * self.high) ** -0.5

    def grid(self) -> Grid | None:
        """See :meth:`Quantized.grid`."""
        grid = super().grid()
        if grid is None:
            return None
        return Grid(_at_least(grid.scale), *list(vars(grid).values())[1:])

    def mean_size(self, value: Tensor) -> Tensor:
        """The mean of ``|x|`` over every block, shaped like the scales."""
        scale = self.scale
        assert scale is not None
        return block_rows(value.abs(), self.blocks(value)).mean(1).reshape(scale.shape)

    def state(self) -> dict[str, Any]:
        """See :meth:`Quantized.state`."""
        return super().state() | {"started": self.started}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Quantized.set_state`."""
        super().set_state(state)
        self.started = bool(state["started"])


def _at_least(scale: Tensor) -> Tensor:
    return _straight(scale, scale.clamp(min=LEAST))


def _whole(zero_point: Tensor) -> Tensor:
    return zero_point.detach().round().to(torch.int32)


def _straight(tensor: Tensor, value: Tensor) -> Tensor:
    """``value``, with the gradient of ``tensor``."""
    return tensor + (value - tensor).detach()


def _scaled_gradient(tensor: Tensor, share: float) -> Tensor:
    """The tensor, with ``share`` of its gradient."""
    return _straight(tensor * share, tensor.detach())
