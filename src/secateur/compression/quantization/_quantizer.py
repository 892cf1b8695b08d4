"""What all quantisers share: targets that are read on a grid of integers, and their calibration config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..._errors import QuantizationError
from ...speedups import SpeedupReport, speedup
from ..base import Compressor
from ..config import QUANTIZATION, Target, TargetKind
from ..sites import Key, ParameterSite, Sites, key_of
from ._bias import output_means, rounded_layers
from ._calibration import CalibrationConfig, check_entry, entry_of, write_entry
from ._carry import carry_calibration, check_following, keep_constants
from ._folding import fold_chains
from ._fusing import Chain, Folded, find_chains
from ._grid import Grid
from ._reading import Quantized
from ._tables import check_tables

if TYPE_CHECKING:
    from collections.abc import Generator

    from ...report import PruneReport
    from ..evaluators import Evaluator


Masks = Mapping[str, Mapping[str, Tensor | None]]


class Quantizer(Compressor):
    """What all quantisers share.

    Quantisation is simulated: values stay floats, and are rounded to a grid of integers where they are read
    (weights) or pass (inputs and outputs). A mask of a pruner acts first, and zero is on the grid, so what is
    masked stays exactly zero. A subclass says how a target is read (:meth:`_reading`).

    Args:
        model: the model; it is quantised in place, and given back by :meth:`unwrap_model`.
        config_list: which tensors, to which integers; see ``docs/quantization.md``.
        evaluator: how to train and evaluate.
        existed_wrappers: see :class:`~secateur.compression.base.Compressor`.
        dummy_input: inputs to run the model at, for ``fuse_names="auto"``; by default the evaluator's.

    Raises:
        ConfigError: naming everything that is wrong with the list.
        QuantizationError: for what this quantiser cannot do. The model is as it was.
    """

    mode = QUANTIZATION
    granularity = "tensor"
    error = QuantizationError
    takes_sparse_gradients: ClassVar[bool] = True
    """Whether embeddings may have them: torch's own fake quantisation passes them on."""

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: Sites | None = None,
        *,
        dummy_input: Any = None,
    ) -> None:
        self.readings: dict[Key, Quantized] = {}
        self.chains: list[Chain] = []
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    # -- calibration -------------------------------------------------------------------------------

    def get_calibration_config(self) -> CalibrationConfig:
        """Scale, zero point, integers and range of every target, ``{module: {target: {...}}}``.

        The keys are ``scale``, ``zero_point``, ``quant_dtype``, ``quant_scheme``, ``quant_bits``,
        ``tracked_max`` and ``tracked_min``. Targets whose range is not known yet are left out.
        """
        found: CalibrationConfig = {}
        for (module, name), reading in self.readings.items():
            if reading.known:
                found.setdefault(module, {})[name] = entry_of(reading)
        return found

    def update_calibration_config(self, config: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Set scales and zero points, as :meth:`get_calibration_config` gives them.

        Raises:
            QuantizationError: for a target that there is not, other integers or another scheme than the
                configuration says, or scales of another shape; nothing is changed.
        """
        entries = [(m, n, entry) for m, targets in config.items() for n, entry in targets.items()]
        for module, name, entry in entries:
            check_entry(self.readings.get((module, _full(name))), module, name, entry, self.readings)
        for module, name, entry in entries:
            write_entry(self.readings[module, _full(name)], entry)

    def grids(self) -> dict[str, dict[str, Grid]]:
        """The grid of every target whose range is known, by module and target."""
        found: dict[str, dict[str, Grid]] = {}
        for (module, name), reading in self.readings.items():
            grid = reading.grid()
            if grid is not None:
                found.setdefault(module, {})[name] = grid
        return found

    def refresh(self, *, unknown: bool = False) -> None:
        """Make the ranges of the weights anew, from the weights as they are.

        Args:
            unknown: only of those that have none.
        """
        with torch.no_grad():
            for target in self.resolved.targets:
                reading = self.readings[key_of(target)]
                if target.kind is TargetKind.PARAMETER and not (unknown and reading.known):
                    site = self.sites[target]
                    assert isinstance(site, ParameterSite)
                    reading.refresh(reading.before(site.masked()))

    # -- after a cut -------------------------------------------------------------------------------

    def speedup(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        masks: Masks | None = None,
        **options: Any,
    ) -> tuple[Self, SpeedupReport]:
        """Take off what masks hide, and go on with the small model, quantised as it was.

        The model itself gets smaller; its weights are put on their grids, and scales of channels that go are
        taken off with them. The small model computes what the masked one did, both quantised. Constants that
        the speed-up folds into biases are as they were rounded: the outputs of layers at ``args`` keep their
        means.

        Args:
            args: positional inputs, for :func:`secateur.speedup`.
            kwargs: keyword inputs.
            masks: by default those of the pruners of this model.
            options: further arguments of :func:`secateur.speedup`.

        Returns:
            The quantiser of the small model, wrapped, and the report of the speed-up.

        Raises:
            QuantizationError: where scales cannot follow the cut.
            MaskError: if there are no masks that fit.
        """
        found = self.sites.masks() if masks is None else masks

        def run() -> None:
            with evaluating(self.bound_model):
                self.bound_model(*args, **(kwargs or {}))

        check_following(self, self.get_calibration_config())
        self.round_weights()
        wanted = output_means(rounded_layers(self), run)
        self.unwrap_model()
        report = speedup(self.bound_model, args, kwargs, found, **options)
        small = self.carry(report)
        if report.folded:
            keep_constants(small, wanted, report, run)
        return small, report

    def round_weights(self) -> None:
        """Put the weights on their grids for good, so that what is computed from them is computed from these.

        What the model computes stays the same; weights whose reading is not idempotent (DoReFa) are left
        alone.
        """
        with torch.no_grad():
            for target in self.resolved.targets:
                reading = self.readings[key_of(target)]
                if (
                    target.kind is TargetKind.PARAMETER
                    and reading.idempotent
                    and reading.on
                    and reading.known
                ):
                    site = self.sites[target]
                    assert isinstance(site, ParameterSite)
                    value = reading.rounded(reading.before(site.masked()), training=False)
                    site.parameter.copy_(reading.after(value))

    def carry(self, report: SpeedupReport | PruneReport) -> Self:
        """A quantiser for the model after a speed-up, with the scales of the channels that are left.

        Args:
            report: of the speed-up of the model (or of :meth:`PruningIR.prune`, in place), which this
                quantiser was unwrapped for.
        """
        config = carry_calibration(self, self.get_calibration_config(), report)
        return self._again(self.config_list, config)

    def fold(self) -> Self:
        """Fold every fused BatchNorm into its layer for good, masked weights included; in place.

        What the model computes in eval mode stays the same, to rounding. A norm gives way to ``nn.Identity``,
        and masks are part of the weights from then on.

        Returns:
            The quantiser of the model without these norms, wrapped, with the same scales.
        """
        config = self.get_calibration_config()
        return self._again(fold_chains(self), config)

    def _again(self, config_list: Sequence[Mapping[str, Any]], calibration: CalibrationConfig) -> Self:
        """A quantiser of the same kind for the model as it is now."""
        new = type(self)(
            self.bound_model, config_list, self.evaluator, dummy_input=self.dummy_input, **self._arguments()
        )
        new.update_calibration_config(calibration)
        return new

    def _arguments(self) -> dict[str, Any]:
        """What else its constructor takes, for :meth:`carry`."""
        return {}

    # -- the life of a compressor ------------------------------------------------------------------

    def _reading(self, target: Target) -> Quantized:
        """How a target is read."""
        raise NotImplementedError

    def _check(self) -> None:
        check_tables(self.bound_model, self.resolved.targets, sparse=self.takes_sparse_gradients)
        for target in self.resolved.targets:
            self._check_target(target)

    def _check_target(self, target: Target) -> None:
        """Refuse what this quantiser cannot do with a target."""

    def _add_sites(self) -> None:
        self.chains = find_chains(self.resolved, self.bound_model, self.inputs)
        by_first = {chain.paths[0]: chain for chain in self.chains}
        self._check_chains(by_first)
        self.readings = {key_of(target): self._reading(target) for target in self.resolved.targets}
        placed: list[Target] = []
        for target in self.resolved.targets:
            reading, chain = self.readings[key_of(target)], by_first.get(target.module)
            if chain is not None and target.name == "_output_0":
                chain.output = reading
                continue
            if chain is not None and chain.norm is not None and target.kind is TargetKind.PARAMETER:
                self._fuse(target, reading, chain)
            placed.append(target)
        self.sites.add(placed)
        self.sites.set_readings([(target, self.readings[key_of(target)]) for target in placed])
        self._fold_biases()
        self.sites.extras += self.chains

    def _check_chains(self, chains: dict[str, Chain]) -> None:
        """Refuse what it cannot do with fused modules, by the first of each chain."""

    def _fuse(self, target: Target, reading: Quantized, chain: Chain) -> None:
        if target.name != "weight":
            raise QuantizationError(
                f"{target.path} is made of the BatchNorm {chain.paths[1]!r} when it is fused, and cannot be "
                "a target of its own"
            )
        reading.chain = chain

    def _fold_biases(self) -> None:
        for chain in self.chains:
            bias = chain.modules[0]._parameters.get("bias")
            if chain.norm is not None and bias is not None:
                weight = self.resolved.target(chain.paths[0], "weight")
                target = replace(weight, name="bias", shape=tuple(bias.shape))
                self.sites.add([target])
                self.sites.set_readings([(target, Folded(chain))])

    def _wrapped(self) -> None:
        self.refresh(unknown=True)

    def _watch(self, stack: ExitStack) -> None:
        for reading in self.readings.values():
            stack.callback(setattr, reading, "watching", reading.watching)
            reading.watching = True

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Compressor.step`; the ranges of the weights follow the weights."""
        super().step(grad_scale)
        if self.rounds_now:
            self.refresh()

    @property
    def rounds_now(self) -> bool:
        """Whether values are rounded already, and not only from a later step on."""
        return True

    def _finished(self) -> None:
        self._require_known()

    def _require_known(self) -> None:
        unknown = [".".join(key) for key, reading in self.readings.items() if not reading.known]
        if unknown:
            raise QuantizationError(
                f"no value of {unknown[0]}{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''} was "
                "seen, so its range is not known: is the module used, and was the model in train mode?"
            )

    def _result(self) -> tuple[nn.Module, CalibrationConfig]:
        return self.bound_model, self.get_calibration_config()

    def _state(self) -> dict[str, Any]:
        return {"readings": {".".join(key): reading.state() for key, reading in self.readings.items()}}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        for key, reading in self.readings.items():
            reading.set_state(state["readings"][".".join(key)])


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """The model in eval mode without gradients while the body runs."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def _full(name: str) -> str:
    return f"{name}0" if name in ("_input_", "_output_") else name
