"""A table of operator times on this device, from which the latency of a model is predicted."""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._errors import MeasurementError
from ._device import describe_device
from ._latency import Clock, Latency, measure_latency, paired_ratios, threads_set_to
from ._predicted import PredictedLatency
from ._timing import OperatorCall, time_call

if TYPE_CHECKING:
    from .._snapshot import Snapshot

FORMAT = 1


class LatencyTable:
    """Measured times of operators at many widths, filled as they are asked for.

    An operator's time depends on the sizes of a few axes. It is measured on a grid of sizes (operators
    with weights of one axis alone, such as depthwise convolutions, at every multiple), and interpolated
    between them; a model's latency is the sum over its operators, times the ratio
    of the whole model's measured latency to that sum. What is measured once is remembered under the
    operator's shapes, so equal layers, other models and later selections find it.

    Given to a selector as its ``latency_calculation_function``, the table predicts, and calling it on
    a model measures that model: the selector corrects the prediction by what it measures.

    Args:
        args: positional inputs to measure models at; None for those of the snapshot.
        kwargs: keyword inputs.
        threads: intra-op threads while measuring (default: as they are).
        levels: sizes an axis is measured at, from full down to one part in ``levels``.
        multiple: sizes on the grid are rounded up to multiples of it, which vector units like.
        runs: runs of a whole model, at least; the median counts.
        precision: of the median of a whole model, as a share: more runs until it is reached,
        seconds: but no longer than this for one model.
        clock: what tells the time, see :func:`measure_latency`.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.Linear(512, 64)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(256, 64),))
        >>> table = LatencyTable(runs=3)
        >>> predict = table.bind(ir.snapshot())
        >>> predict({}) > predict({"0": 64})
        True
    """

    def __init__(
        self,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        threads: int | None = None,
        levels: int = 8,
        multiple: int = 8,
        runs: int = 5,
        precision: float = 0.003,
        seconds: float = 1.0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.args, self.kwargs = args, kwargs
        self.threads, self.runs, self.clock = threads, runs, clock
        self.precision, self.seconds_each = precision, seconds
        self.levels, self.multiple = levels, multiple
        self.seconds: dict[str, float] = {}
        self.device = describe_device(threads=threads)
        self.measured = 0
        self._own_inputs = args is not None
        self._bound: PredictedLatency | None = None

    # -- whole models ------------------------------------------------------------------------------

    def __call__(self, model: nn.Module) -> float:
        """Measured seconds of one forward of a model (the median).

        Raises:
            MeasurementError: if the table was not given inputs and has not been bound to a model.
        """
        return self.measure({"model": model})["model"].median

    def measure(self, models: Mapping[str, nn.Module]) -> dict[str, Latency]:
        """Measured latencies of models, run in turn, with their spread.

        Raises:
            MeasurementError: if the table was not given inputs and has not been bound to a model.
        """
        if self.args is None:
            raise MeasurementError("the table has no inputs to run a model at: LatencyTable(args=(x,))")
        return measure_latency(
            models,
            self.args,
            self.kwargs,
            threads=self.threads,
            runs=self.runs,
            precision=self.precision,
            seconds=self.seconds_each,
            clock=self.clock,
        )

    def share(self, model: nn.Module, whole: nn.Module) -> float:
        """What share of the time of ``whole`` a model takes: the median over runs in turn."""
        both = self.measure({"whole": whole, "model": model})
        return statistics.median(paired_ratios(both["model"].times, both["whole"].times))

    def bind(self, snapshot: Snapshot) -> PredictedLatency:
        """The predicted latency of one model as a function of widths.

        The model is measured when it is first bound; bound again right after, it is not.
        """
        model = snapshot.model
        if self._bound is None or self._bound.structure is not snapshot.structure:
            if not self._own_inputs:
                self.args, self.kwargs = snapshot.args, snapshot.kwargs
            self._bound = PredictedLatency(
                self, snapshot.structure, self(model), lambda other: self.share(other, model)
            )
        return self._bound

    # -- operators ---------------------------------------------------------------------------------

    def time(self, call: OperatorCall, sizes: Mapping[Any, int]) -> float:
        """Seconds of an operator at these sizes, measured if they are new."""
        key = call.describe(sizes)
        found = self.seconds.get(key)
        if found is None:
            self.measured += 1
            with torch.no_grad(), torch.random.fork_rng(devices=[]), threads_set_to(self.threads):
                found = self.seconds[key] = time_call(call.prepare(sizes), clock=self.clock)
        return found

    def grid(self, size: int, *, fine: bool = False) -> list[int]:
        """The sizes at which an axis of ``size`` is measured, ascending; ``fine``: every multiple."""
        if fine:
            return sorted({*range(self.multiple, size, self.multiple), size})
        wanted = (-(-size * part // self.levels) for part in range(1, self.levels + 1))
        return sorted({min(size, -(-n // self.multiple) * self.multiple) for n in wanted})

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, with the description of the device."""
        content = {
            "format": FORMAT,
            "device": self.device,
            "levels": self.levels,
            "multiple": self.multiple,
            "seconds": self.seconds,
        }
        Path(path).write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> LatencyTable:
        """Read a table that :meth:`save` wrote; ``settings`` are those of the constructor.

        Warns:
            UserWarning: if it was measured on another device, or with other settings.

        Raises:
            MeasurementError: if the file is no such table.
        """
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"a table of format {content['format']}, and {FORMAT} is known")
            seconds = {str(key): float(value) for key, value in content["seconds"].items()}
            settings = {"levels": int(content["levels"]), "multiple": int(content["multiple"])} | settings
            device = dict(content["device"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MeasurementError(f"{path} is no latency table ({type(error).__name__}: {error})") from error
        table = cls(**settings)
        table.seconds = seconds
        differences = [
            f"{name}: {device.get(name)} there, {value} here"
            for name, value in table.device.items()
            if device.get(name) != value
        ]
        if differences:
            warnings.warn(f"{path} was measured elsewhere ({'; '.join(differences)})", stacklevel=2)
        return table
