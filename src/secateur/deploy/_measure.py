"""Measuring a deployment: size, speed in turn with the original's, and agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..cost import measure_latency
from ..criteria import model_inputs
from ._compare import agreement
from ._report import DeployReport


@dataclass(frozen=True)
class Deployment:
    """A deployed model: the module that runs it, in what, and its file.

    ``integers`` is the simulation with integer arithmetic, for a runtime that computes with integers.
    """

    model: nn.Module
    runtime: str
    path: Path
    kernels: Mapping[str, int] = field(default_factory=dict)
    integers: nn.Module | None = None

    @property
    def bytes(self) -> int:
        """Size of the file, and of those beside it that hold its weights."""
        data = self.path.with_name(f"{self.path.name}.data")
        weights = self.path.with_suffix(".bin")
        files = [self.path, data, *([weights] if self.path.suffix == ".xml" else [])]
        return sum(file.stat().st_size for file in files if file.exists())


def measured(
    made: Deployment,
    reference: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    beside: Deployment | None,
    samples: Iterable[Any],
    threads: int,
    runs: int,
) -> DeployReport:
    """Compare a deployment with the model that it was made from, and time it in turn with the original."""
    inputs = [(args, dict(kwargs)), *(model_inputs(reference, sample) for sample in samples)]
    in_floats = agreement(reference, made.model, inputs)
    exact = in_floats if made.integers is None else agreement(made.integers, made.model, inputs)
    timed = {"made": made.model} if beside is None else {"made": made.model, "original": beside.model}
    latency = measure_latency(timed, args, dict(kwargs), threads=threads, runs=runs)
    return DeployReport(
        runtime=made.runtime,
        path=made.path,
        bytes=made.bytes,
        latency=latency["made"],
        threads=threads,
        agreement=exact,
        float_agreement=in_floats,
        kernels=made.kernels,
        original_bytes=None if beside is None else beside.bytes,
        original_latency=latency.get("original"),
        model=made.model,
    )
