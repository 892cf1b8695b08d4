"""Quantisation-aware training: ranges are watched and values rounded while the model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..._errors import QuantizationError
from ..config import Target, TargetKind
from ..sites import Sites
from ._grid import block_range
from ._quantizer import Quantizer
from ._reading import Quantized

if TYPE_CHECKING:
    from ..evaluators import Evaluator

DECAY = 0.99
"""Of the exponential mean of ranges, as in NNI."""


class Tracked(Quantized):
    """A target whose range is that of the weight, or the exponential mean of the batches of training.

    Attributes:
        awake: whether ranges are watched in training.
    """

    awake = True

    def watch(self, value: Tensor) -> None:
        """See :meth:`Quantized.watch`; what is no function of a norm, :meth:`refresh` has seen already."""
        seen = self.target.kind is TargetKind.PARAMETER and self.chain is None and self.known
        if (self.awake or self.watching) and not seen:
            self._take(value)

    def refresh(self, value: Tensor) -> None:
        """See :meth:`Quantized.refresh`."""
        self._take(value)

    def _take(self, value: Tensor) -> None:
        least, most = block_range(value, self.blocks(value))
        if self.tracked is not None and self.target.kind is not TargetKind.PARAMETER:
            self._check_shape(self.tracked[0], value)
            before = [end.to(least.device) for end in self.tracked]
            least = DECAY * before[0] + (1 - DECAY) * least
            most = DECAY * before[1] + (1 - DECAY) * most
        self.fit(least, most)


class TrainedQuantizer(Quantizer):
    """A quantiser for which the model is trained."""

    trains = True
    takes_sparse_gradients = False

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        if max_steps is None and max_epochs is None:
            raise QuantizationError(
                f"{type(self).__name__} needs compress(max_steps, max_epochs) to know how long to train"
            )
        if max_steps is not None and max_steps < self.needed_steps:
            raise QuantizationError(
                f"max_steps={max_steps} is over before {type(self).__name__} is done: train for at least "
                f"{self.needed_steps}"
            )

    def _finished(self) -> None:
        self.refresh()
        super()._finished()


class QATQuantizer(TrainedQuantizer):
    """Quantisation-aware training with ranges that are watched.

    The range of a weight is that of its values; of an input or output the exponential mean (decay 0.99) of
    the least and largest values of every batch in train mode. Gradients pass the rounding unchanged inside of
    the range, and are zero outside. Source: Jacob et al., "Quantization and training of neural networks for
    efficient integer-arithmetic-only inference" (CVPR 2018).

    Args:
        model: see :class:`Quantizer`.
        config_list: see :class:`Quantizer`.
        evaluator: trains; in a loop of one's own call :meth:`step` after every step of the optimizer.
        quant_start_step: steps before values are rounded; ranges are watched from the beginning.
        existed_wrappers: see :class:`Quantizer`.
        dummy_input: see :class:`Quantizer`.
        watch_start_step: steps before ranges are watched, at most ``quant_start_step``: what is watched long
            before values are rounded is forgotten by then, and takes time.

    Raises:
        QuantizationError: for a start before step 0, or ranges that are watched after values are rounded.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
        >>> net[0].weight.data = torch.tensor([[-1.0, 2.0], [3.0, 5.0]])
        >>> entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "uint8"}
        >>> quantizer = QATQuantizer(net, [{**entry, "quant_scheme": "affine"}])
        >>> found = quantizer.get_calibration_config()["0"]["weight"]
        >>> round(float(found["scale"]) * 255, 4), int(found["zero_point"])
        (6.0, 42)
        >>> bool((net[0].weight != net[0]._parameters["weight"]).any())
        True
    """

    takes_sparse_gradients = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        quant_start_step: int = 0,
        existed_wrappers: Sites | None = None,
        *,
        dummy_input: Any = None,
        watch_start_step: int = 0,
    ) -> None:
        if quant_start_step < 0:
            raise QuantizationError(f"quant_start_step is 0 or more, got {quant_start_step}")
        if not 0 <= watch_start_step <= quant_start_step:
            raise QuantizationError(
                f"watch_start_step is from 0 to quant_start_step={quant_start_step}, got {watch_start_step}"
            )
        self.quant_start_step, self.watch_start_step = quant_start_step, watch_start_step
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    def _reading(self, target: Target) -> Quantized:
        reading = Tracked(target)
        reading.on = reading.on and self.quant_start_step == 0
        reading.awake = self.watch_start_step == 0
        return reading

    @property
    def needed_steps(self) -> int:
        """See :meth:`Compressor.needed_steps`."""
        return max(0, self.quant_start_step - self.steps)

    @property
    def rounds_now(self) -> bool:
        """See :meth:`Quantizer.rounds_now`."""
        return self.steps >= self.quant_start_step

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Quantizer.step`."""
        super().step(grad_scale)
        self._wake()
        if self.steps == self.quant_start_step:
            for reading in self.readings.values():
                reading.on = reading.settings.apply_method != "bypass"

    def _wake(self) -> None:
        for reading in self.readings.values():
            assert isinstance(reading, Tracked)
            reading.awake = self.steps >= self.watch_start_step

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._wake()
