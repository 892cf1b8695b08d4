"""Learned step sizes: LSQ and LSQ+."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..config import Target, TargetKind
from ..sites import Key, Sites, block_rows
from ._grid import LEAST, block_range
from ._learned import Learned
from ._qat import TrainedQuantizer
from ._reading import Quantized

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class StepSize(Learned):
    """LSQ: a learned scale, at first ``2 * mean |x| / sqrt(high)``, and zero point 0."""

    def start(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Learned.start`."""
        scale = (2 * self.mean_size(value) / self.high**0.5).clamp(min=LEAST)
        return scale, torch.zeros_like(scale)


class StepSizeAndOffset(Learned):
    """LSQ+: a learned scale, and with the affine scheme a learned zero point; made of the range at first."""

    learns_zero = True

    def start(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Learned.start`."""
        least, most = block_range(value, self.blocks(value))
        least, most = least.clamp(max=0), most.clamp(min=0)
        if self.learns_zero:
            scale = ((most - least) / (self.high - self.low)).clamp(min=LEAST)
            return scale, self.low - least / scale
        if self.target.kind is TargetKind.PARAMETER:
            most = self._three_deviations(value)
        else:
            most = torch.maximum(-least, most)
        middle = (self.low + self.high + 1) // 2
        scale = (most / ((self.high - self.low) / 2)).clamp(min=LEAST)
        return scale, torch.full_like(scale, middle)

    def _three_deviations(self, value: Tensor) -> Tensor:
        """``max(|mean - 3 std|, |mean + 3 std|)`` of every block."""
        blocks = self.blocks(value)
        rows = block_rows(value, blocks)
        mean, deviation = rows.mean(1), rows.std(1, correction=0)
        most = torch.maximum((mean - 3 * deviation).abs(), (mean + 3 * deviation).abs())
        scale = self.scale
        assert scale is not None
        return most.reshape(scale.shape)


class _LearningQuantizer(TrainedQuantizer):
    """A quantiser whose scales are parameters of the model."""

    kind: ClassVar[type[Learned]]

    def _add_sites(self) -> None:
        self._shapes = self._look_at_shapes()
        super()._add_sites()

    def _look_at_shapes(self) -> dict[Target, tuple[int, ...] | None]:
        """Shapes of inputs and outputs, from one run of the model where one has several scales."""
        several = [
            t for t in self.resolved.targets if t.is_activation and t.settings.granularity.name != "tensor"
        ]
        if not several:
            return {}
        args, kwargs = self.inputs(f"{several[0].path} has a scale for each channel")
        sites = Sites(self.bound_model)
        sites.add(several)
        sites.wrap()
        try:
            self.track_forward(*args, **kwargs)
            return {target: sites.shape(target) for target in several}
        finally:
            sites.unwrap()

    def _reading(self, target: Target) -> Quantized:
        device = next((p.device for p in self.bound_model.parameters()), torch.device("cpu"))
        return self.kind(target, self._counts(target), device)

    def _counts(self, target: Target) -> tuple[int, ...]:
        """The shape of the scales of a target."""
        shape = self._shapes.get(target, target.shape)
        if shape is None or target.settings.granularity.name == "tensor":
            return ()
        counts = target.counts(shape)
        return () if all(size == 1 for size in counts) else counts

    def parameters(self) -> list[nn.Parameter]:
        """Scales and zero points that are trained.

        They are parameters of the model: an optimizer that is made after the quantiser has them, one that was
        made before gets them from the evaluator, or from ``add_param_group``.
        """
        return [parameter for reading in self._learned().values() for parameter in reading.parameters()]

    def before_training(self, evaluator: Evaluator) -> None:
        """See :meth:`Compressor.before_training`; the user's optimizer trains the scales too."""
        own: dict[str, list[Tensor]] = {}
        for (module, _), reading in self._learned().items():
            own.setdefault(module, []).extend(reading.parameters())
        evaluator.patch_optim_param_group(own)

    def _learned(self) -> dict[Key, Learned]:
        return {key: reading for key, reading in self.readings.items() if isinstance(reading, Learned)}


class LsqQuantizer(_LearningQuantizer):
    """Learned step size quantisation: the scale of every target is trained.

    ``q = round(clamp(x / s, low, high))``, read as ``q * s``; ``ds`` is ``q - x / s`` inside of the range and
    ``low`` or ``high`` outside, times ``1 / sqrt(n * high)`` for ``n`` elements. The scale starts at
    ``2 * mean |x| / sqrt(high)``: of the weight, or of the first batch in train mode. The zero point is 0,
    with the affine scheme too. Source: Esser et al., "Learned step size quantization" (ICLR 2020); NNI starts
    at 0.01.

    Args:
        model: see :class:`Quantizer`.
        config_list: see :class:`Quantizer`.
        evaluator: trains, the scales too.
        existed_wrappers: see :class:`Quantizer`.
        dummy_input: see :class:`Quantizer`; also needed for inputs and outputs with several scales.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> net[0].weight.data = torch.tensor([[1.0, -3.0]])
        >>> entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4"}
        >>> quantizer = LsqQuantizer(net, [entry])
        >>> round(net[0].weight_scale.item(), 4), net[0].weight_scale.requires_grad
        (1.5119, True)
    """

    kind = StepSize

    def _check_target(self, target: Target) -> None:
        if target.settings.quant_scheme == "affine":
            warnings.warn(
                f"{target.path}: LsqQuantizer has no zero point, so it is symmetric; "
                "LsqPlusQuantizer learns one",
                UserWarning,
                stacklevel=2,
            )


class LsqPlusQuantizer(_LearningQuantizer):
    """Learned scales and, with the affine scheme, learned zero points.

    As :class:`LsqQuantizer`, with ``q = round(clamp(x / s + z, low, high))`` read as ``(q - round(z)) * s``;
    ``dz`` is ``-s`` outside of the range and 0 inside. Scale and zero point start at the range of the weight
    or the first batch, those of a symmetric weight at three standard deviations. Source: Bhalgat et al.,
    "LSQ+: improving low-bit quantization through learnable offsets and better initialization" (CVPR
    workshops 2020). The offset of the paper is ``-s * z``; a rounded ``z`` is what integers need.

    Args: see :class:`LsqQuantizer`.
    """

    kind = StepSizeAndOffset
