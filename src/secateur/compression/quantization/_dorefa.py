"""DoReFa: weights through a tanh, activations between 0 and 1, gradients with noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import QuantizationError
from ..config import Target, TargetKind
from ..sites import block_rows
from ._fusing import Chain
from ._grid import LEAST, on_grid, scale_and_zero, stretched
from ._qat import Tracked, TrainedQuantizer
from ._reading import Quantized

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip


class TanhWeight(Quantized):
    """``tanh(w) / max |tanh(w)|`` on the grid that divides [-1, 1] evenly."""

    idempotent = False

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.keeps_zero = (self.high - self.low) % 2 == 0  # an even number of steps has one in the middle

    def scale_shape(self) -> tuple[int, ...]:
        """See :meth:`Quantized.scale_shape`; one scale, whatever the granularity."""
        return ()

    def refresh(self, value: Tensor) -> None:
        """See :meth:`Quantized.refresh`; its range is always that of a tanh."""
        if not self.known:
            one = torch.ones((), device=value.device)
            self.tracked = (-one, one)
            self.write(
                2 * one / (self.high - self.low), (0 * one + (self.high + self.low) // 2).to(torch.int32)
            )

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """See :meth:`Quantized.rounded`."""
        bent = torch.tanh(value.float())
        largest = block_rows(bent.abs(), self.blocks(value)).amax(1)
        counts = self.target.counts()
        bent = bent / stretched(largest.clamp(min=LEAST).reshape(counts), value.shape)
        if self.keeps_zero:
            return super().rounded(bent, training=training).to(value.dtype)
        steps = (bent / 2 + 0.5) * (self.high - self.low)
        steps = steps + (steps.round() - steps).detach()
        return (2 * steps / (self.high - self.low) - 1).to(value.dtype)


class BatchRange(Tracked):
    """An input on the grid of the range of its batch; in eval mode of the mean range of training."""

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """See :meth:`Quantized.rounded`."""
        if not training:
            return super().rounded(value, training=training)
        least, most = torch.aminmax(value.detach().float())
        return on_grid(value, *scale_and_zero(least, most, self.settings), self.low, self.high)


class UnitOutput(Quantized):
    """An output cut to [0, 1], on the grid of that range; its gradient can be quantised, with noise."""

    def __init__(self, target: Target, *, gradients: bool) -> None:
        super().__init__(target)
        self._gradients = gradients
        self._random = torch.Generator().manual_seed(0)

    def watch(self, value: Tensor) -> None:
        """See :meth:`Quantized.watch`; the range is known."""
        if not self.known:
            one = torch.ones((), device=value.device)
            self.tracked = (0 * one, one)
            self.write(one / (self.high - self.low), (0 * one + self.low).to(torch.int32))

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """See :meth:`Quantized.rounded`."""
        result = super().rounded(value, training=training)
        if self._gradients and training and result.requires_grad:
            result.register_hook(self._round_gradient)
        return result

    def _round_gradient(self, gradient: Tensor) -> Tensor:
        """Equation 12 of the paper, over all of the tensor but each sample by itself."""
        levels = 2**self.settings.bits - 1
        flat = gradient.flatten(1) if gradient.dim() > 1 else gradient.reshape(1, -1)
        largest = (2 * flat.abs().amax(1, keepdim=True)).clamp(min=LEAST)
        noise = (torch.rand(flat.shape, generator=self._random) - 0.5).to(flat) / levels
        steps = ((flat / largest + 0.5 + noise) * levels).round().clamp(0, levels)
        return (largest * (steps / levels - 0.5)).reshape(gradient.shape)


class DoReFaQuantizer(TrainedQuantizer):
    """Low bit widths for weights, activations and gradients.

    Weights are read as ``2 * round(n * (tanh(w) / (2 * max |tanh(w)|) + 1/2)) / n - 1`` for ``n`` steps of
    the integers, outputs as ``round(n * clamp(x, 0, 1)) / n``, inputs on the grid of the range of their batch
    (in eval mode of the mean range, so that an output does not depend on its batch). Gradients of outputs are
    rounded too, with noise that makes them right on the average. An ``intN`` has an even number of steps,
    so zero is one of its values, a ``uintN`` has those of the paper. Source: Zhou et al., "DoReFa-Net:
    training low bitwidth convolutional neural networks with low bitwidth gradients" (2016).

    Args:
        model: see :class:`Quantizer`.
        config_list: see :class:`Quantizer`; outputs are those of activations, or of modules that are fused
            with one.
        evaluator: trains.
        existed_wrappers: see :class:`Quantizer`.
        quantize_gradients: whether gradients of outputs are rounded, to as many bits as the outputs.
        dummy_input: see :class:`Quantizer`.

    Raises:
        QuantizationError: for the output of a module that is no activation.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Any,
        evaluator: Any = None,
        existed_wrappers: Any = None,
        *,
        quantize_gradients: bool = True,
        dummy_input: Any = None,
    ) -> None:
        self._gradients = quantize_gradients
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    def _arguments(self) -> dict[str, Any]:
        return {"quantize_gradients": self._gradients}

    def _reading(self, target: Target) -> Quantized:
        if target.kind is TargetKind.PARAMETER:
            return TanhWeight(target)
        if target.kind is TargetKind.INPUT:
            return BatchRange(target)
        return UnitOutput(target, gradients=self._gradients)

    def _check_chains(self, chains: dict[str, Chain]) -> None:
        for target in self.resolved.targets:
            chain = chains.get(target.module)
            last = chain.modules[-1] if chain else self.bound_model.get_submodule(target.module)
            if target.kind is TargetKind.OUTPUT and not isinstance(last, _ACTIVATIONS):
                raise QuantizationError(
                    f"{target.path}: DoReFaQuantizer cuts outputs to [0, 1], which only the output of an "
                    f"activation takes, and this is one of {type(last).__name__}. Choose the activation "
                    "behind it, or fuse it"
                )
