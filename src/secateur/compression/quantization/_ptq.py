"""Quantisation after training: ranges from a few batches, no gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..._errors import QuantizationError
from ...criteria import ToInputs, model_inputs
from ..config import Target, TargetKind
from ..sites import Sites
from ._bias import Run, correct_biases
from ._calibration import CalibrationConfig
from ._observers import Observer, observer_of, weight_range
from ._quantizer import Quantizer, evaluating
from ._reading import Quantized

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..evaluators import Evaluator


class Observed(Quantized):
    """A target whose range an observer finds."""

    def __init__(self, target: Target, observer: str, weight_observer: str) -> None:
        super().__init__(target)
        self._kind, self._weight_observer = observer_of(observer), weight_observer
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.observer: Observer = self._kind(self.settings)

    def watch(self, value: Tensor) -> None:
        """See :meth:`Quantized.watch`."""
        if self.target.kind is not TargetKind.PARAMETER:
            self.observer.add(value, self.blocks(value))

    def refresh(self, value: Tensor) -> None:
        """See :meth:`Quantized.refresh`."""
        self.fit(*weight_range(value, self.blocks(value), self._weight_observer, self.settings))

    def settle(self) -> None:
        """Make the range of what was seen."""
        seen = self.observer.range()
        if seen is not None:
            self.fit(*seen)


class PtqQuantizer(Quantizer):
    """Quantisation of a trained model, from the values that it has on a few batches.

    Ranges of inputs and outputs are watched, with nothing rounded, while the model runs on calibration data
    in eval mode: that of :meth:`calibrate`, or the evaluator's evaluation. Then they are fixed. Where
    :meth:`compress` is given a length, the evaluator trains first, with nothing rounded.

    Args:
        model: see :class:`Quantizer`.
        config_list: see :class:`Quantizer`.
        evaluator: evaluates; not needed for :meth:`calibrate`.
        is_bias_correction: whether biases are given what rounding takes from the means of the outputs, layer
            by
            layer. Source: Nagel et al., "Data-free quantization through weight equalization and bias
            correction" (ICCV 2019), section 4.2, with the means of the calibration data.
        existed_wrappers: see :class:`Quantizer`.
        observer: of inputs and outputs: ``"minmax"``, ``"histogram"`` (torch's ``HistogramObserver``),
            ``"percentile"`` (99.99 % of the values), or ``"mse"`` (least squared error); all but the first
            for one scale a tensor.
        weight_observer: of weights: ``"minmax"`` or ``"mse"``, for every scale.
        dummy_input: see :class:`Quantizer`.

    Raises:
        QuantizationError: for an unknown observer, or one that cannot give several scales.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> entry = {"op_types": ["Linear"], "quant_dtype": "uint8", "quant_scheme": "affine"}
        >>> quantizer = PtqQuantizer(net, [entry])
        >>> _, config = quantizer.calibrate([torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 1.0]])])
        >>> round(float(config["0"]["_input_0"]["scale"]) * 255, 4)
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        is_bias_correction: bool = False,
        existed_wrappers: Sites | None = None,
        *,
        observer: str = "minmax",
        weight_observer: str = "minmax",
        dummy_input: Any = None,
    ) -> None:
        observer_of(weight_observer, ("minmax", "mse"))
        self._observers = observer, weight_observer
        self.is_bias_correction = is_bias_correction
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    def calibrate(
        self, batches: Iterable[Any], sample_to_model_inputs: ToInputs | None = None
    ) -> tuple[nn.Module, CalibrationConfig]:
        """Find all ranges, with data of one's own, and round from then on.

        Args:
            batches: samples, as for criteria: a tensor, a tuple of which the model takes as many as it has
                arguments for, or a dict. They are read twice more for bias correction.
            sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.

        Returns:
            The model, quantised, and the calibration config.

        Raises:
            QuantizationError: if the data leaves a target without a value.
        """
        self.wrap_model()
        to_inputs = sample_to_model_inputs or (lambda sample: model_inputs(self.bound_model, sample))
        batches = batches if isinstance(batches, Sequence) or not self.is_bias_correction else [*batches]

        def run() -> None:
            for sample in batches:
                args, kwargs = to_inputs(sample)
                self.bound_model(*args, **kwargs)

        with evaluating(self.bound_model):
            self._settle(run)
        return self._result()

    # -- the life of a compressor ------------------------------------------------------------------

    def _reading(self, target: Target) -> Quantized:
        observer, weight_observer = self._observers
        name = target.settings.granularity.name
        if target.kind is not TargetKind.PARAMETER and name != "tensor" and not observer_of(observer).several:
            raise QuantizationError(
                f"{target.path} has granularity {name!r}, and the observer {observer!r} gives one scale to a "
                "tensor: take 'minmax', or granularity 'default'"
            )
        reading = Observed(target, observer, weight_observer)
        reading.on = False
        return reading

    def _arguments(self) -> dict[str, Any]:
        observer, weight_observer = self._observers
        return {
            "is_bias_correction": self.is_bias_correction,
            "observer": observer,
            "weight_observer": weight_observer,
        }

    def _training_is_wanted(self, max_steps: int | None, max_epochs: int | None) -> bool:
        return max_steps is not None or max_epochs is not None

    def _finished(self) -> None:
        self._without_training()

    def _without_training(self) -> None:
        evaluator = self.evaluator
        if evaluator is None or not evaluator.evaluates:
            self._settle_what_training_showed()
            return
        evaluator.bind_model(self.bound_model)
        try:
            with evaluating(self.bound_model):
                self._settle(evaluator.evaluate)
        finally:
            evaluator.unbind_model()

    def _settle_what_training_showed(self) -> None:
        watched = [r for r in self._observed() if r.target.kind is not TargetKind.PARAMETER]
        if self.is_bias_correction or (watched and all(r.observer.range() is None for r in watched)):
            raise QuantizationError(
                "PtqQuantizer watches the model run: call calibrate(batches), or give an evaluator that "
                "evaluates"
            )
        self._fix()

    def _observed(self) -> list[Observed]:
        return [reading for reading in self.readings.values() if isinstance(reading, Observed)]

    def _settle(self, run: Run) -> None:
        """Watch one run over the data, fix the ranges, and round."""
        for reading in self._observed():
            reading.forget()
            reading.on = False
        with ExitStack() as stack:
            self._watch(stack)
            run()
        self._fix()
        if self.is_bias_correction:
            correct_biases(self, run)

    def _fix(self) -> None:
        self.refresh()
        for reading in self._observed():
            reading.settle()
        self._require_known()
        self._switch(True)

    def _switch(self, on: bool) -> None:
        for reading in self._observed():
            reading.on = on and reading.settings.apply_method != "bypass"

    @contextmanager
    def exact(self) -> Generator[None]:
        """Nothing is rounded while the body runs."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def update_calibration_config(self, config: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """See :meth:`Quantizer.update_calibration_config`; values are rounded from then on."""
        super().update_calibration_config(config)
        if all(reading.known for reading in self.readings.values()):
            self._switch(True)


PTQQuantizer = PtqQuantizer
