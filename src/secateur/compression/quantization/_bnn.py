"""Binarised networks: everything is a sign."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Target, TargetKind
from ._qat import TrainedQuantizer
from ._reading import Quantized


class Sign(Quantized):
    """A target that is read as +1 or -1, zero as +1; its gradient is zero where ``|x| > 1``."""

    keeps_zero = False

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.low, self.high = -1, 1

    def scale_shape(self) -> tuple[int, ...]:
        """See :meth:`Quantized.scale_shape`; one scale, whatever the granularity."""
        return ()

    def watch(self, value: Tensor) -> None:
        """See :meth:`Quantized.watch`; the scale is 1."""
        if not self.known:
            one = torch.ones((), device=value.device)
            self.tracked = (-one, one)
            self.write(one, torch.zeros((), dtype=torch.int32, device=value.device))

    def refresh(self, value: Tensor) -> None:
        """See :meth:`Quantized.refresh`."""
        self.watch(value)

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """See :meth:`Quantized.rounded`."""
        inside = value.clamp(-1, 1)
        return inside + (torch.where(value >= 0, 1.0, -1.0).to(value.dtype) - inside).detach()


class BNNQuantizer(TrainedQuantizer):
    """Weights, inputs and outputs become signs; what is masked stays zero.

    Gradients pass a sign where ``|x| <= 1``, and are zero elsewhere. Weights are cut to [-1, 1] after every
    step of the optimizer. The integers, scheme and granularity of the configuration do not matter. Source:
    Courbariaux et al., "Binarized neural networks" (NIPS 2016).

    Args: see :class:`Quantizer`.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False))
        >>> net[0].weight.data = torch.tensor([[0.3, 0.0, -2.0]])
        >>> entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}
        >>> quantizer = BNNQuantizer(net, [entry])
        >>> net[0].weight.detach()
        tensor([[ 1.,  1., -1.]])
    """

    def _reading(self, target: Target) -> Quantized:
        return Sign(target)

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Quantizer.step`."""
        with torch.no_grad():
            for target in self.resolved.targets:
                if target.kind is TargetKind.PARAMETER:
                    module = self.bound_model.get_submodule(target.module)
                    parameter = module._parameters[target.name]
                    assert parameter is not None
                    parameter.clamp_(-1, 1)
        super().step(grad_scale)
