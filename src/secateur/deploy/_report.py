"""What a deployed model is: its size, its speed, and how far it is from the model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..cost import Latency
from ._compare import Agreement


@dataclass(frozen=True)
class DeployReport:
    """The result of a deployment.

    Attributes:
        runtime: what runs the model, such as ``"ONNX Runtime 1.31.1"``.
        path: the file.
        bytes: its size.
        latency: seconds of one forward at the given inputs on ``threads`` threads.
        threads: of both latencies.
        agreement: how far outputs are from those of the simulation: with the arithmetic of integer kernels
            (:func:`to_integers`) where the runtime has such, otherwise in floats.
        float_agreement: how far they are from those of the model that was given, simulated in floats.
        kernels: how often each operator runs, after the runtime's own fusions; empty where it does not tell.
        original_bytes: size of the float original, deployed in the same way; None where none was given.
        original_latency: its latency, measured in turn with the other.
        model: the deployed model as a module, to be called with tensors.
    """

    runtime: str
    path: Path
    bytes: int
    latency: Latency
    threads: int
    agreement: Agreement
    float_agreement: Agreement
    kernels: Mapping[str, int] = field(default_factory=dict)
    original_bytes: int | None = None
    original_latency: Latency | None = None
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def smaller(self) -> float | None:
        """How many times smaller than the original the file is."""
        return self.original_bytes / self.bytes if self.original_bytes else None

    @property
    def faster(self) -> float | None:
        """How many times faster than the original it runs, by medians."""
        return self.original_latency.median / self.latency.median if self.original_latency else None

    def __str__(self) -> str:
        size, speed = f"{self.bytes / 1e3:.1f} kB", str(self.latency)
        if self.smaller is not None and self.faster is not None:
            assert self.original_bytes is not None
            size += (
                f", {self.smaller:.1f} times smaller than the original ({self.original_bytes / 1e3:.1f} kB)"
            )
            speed += f", {self.faster:.1f} times faster than the original ({self.original_latency})"
        lines = [
            f"{self.path.name}, for {self.runtime}",
            f"size:    {size}",
            f"latency: {speed}, threads: {self.threads}",
            f"against the simulation: {self.agreement}",
        ]
        if self.float_agreement != self.agreement:
            lines.append(f"against the simulation in floats: {self.float_agreement}")
        if self.kernels:
            names = sorted(self.kernels.items(), key=lambda item: (-item[1], item[0]))
            lines.append("kernels: " + ", ".join(f"{count} {name}" for name, count in names))
        return "\n".join(lines)
