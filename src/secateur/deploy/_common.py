"""What all ways of deployment have in common."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import fx, nn

from ._calibrated import Calibration, calibrated
from ._measure import Deployment, measured
from ._program import export_inputs, program_of
from ._report import DeployReport

Write = Callable[[fx.GraphModule, tuple[Any, ...], dict[str, Any], Path], Deployment]
"""Writes a program and gives what runs the file."""


def deployed(
    write: Write,
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None,
    dynamic_batch: bool,
    quantize: Calibration | None,
    original: nn.Module | None,
    samples: Iterable[Any],
    threads: int,
    runs: int,
) -> DeployReport:
    """Calibrate, make the program, write it, run it, compare, measure."""
    inputs, file = dict(kwargs or {}), Path(path)
    if quantize is not None:
        model = calibrated(model, args, inputs, quantize)
    given, named = export_inputs(args, inputs) if dynamic_batch else (args, inputs)

    def deploy(module: nn.Module, target: Path) -> Deployment:
        return write(program_of(module, given, named, dynamic_batch=dynamic_batch), given, named, target)

    with tempfile.TemporaryDirectory() as folder:
        made = deploy(model, file)
        beside = None if original is None else deploy(original, Path(folder) / f"original{file.suffix}")
        return measured(made, model, args, inputs, beside=beside, samples=samples, threads=threads, runs=runs)
