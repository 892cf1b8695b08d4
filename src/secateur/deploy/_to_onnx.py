"""The way to ONNX: export, check, run, compare, measure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import fx, nn

from ._calibrated import Calibration
from ._common import deployed
from ._integers import with_integer_kernels
from ._measure import Deployment
from ._onnx import OnnxModel, write_onnx
from ._report import DeployReport


def to_onnx(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    quantize: Calibration | None = None,
    original: nn.Module | None = None,
    samples: Iterable[Any] = (),
    opset: int | None = None,
    threads: int = 1,
    runs: int = 50,
) -> DeployReport:
    """Write a model as ONNX, run the file in ONNX Runtime, and compare it with the model.

    Where the model simulates quantisation, the file holds real integers: weights as int8, activations between
    ``QuantizeLinear`` and ``DequantizeLinear`` at the scales of the simulation, biases as int32. ONNX Runtime
    makes integer kernels of that, and :func:`to_integers` computes what they compute. BatchNorm is folded.
    Only integers of 8 bits or fewer are deployed.

    Args:
        model: any module that ``torch.export`` can follow, with simulated quantisation or without; left as it
            is.
        args: positional inputs; latency is measured at them.
        path: of the file that is written.
        kwargs: keyword inputs.
        dynamic_batch: whether the first dimension of the inputs may be any size.
        quantize: batches to calibrate on, if the model simulates nothing yet: weights and activations are
            then
            quantised to 8 bits where ONNX Runtime has integer kernels (:func:`int8_config_list`).
        original: the float model that all began with, deployed in the same way to compare size and speed.
        samples: more inputs to compare outputs at, as for criteria; without ``dynamic_batch`` of the same
            size.
        opset: of ONNX; by default that of the exporter.
        threads: of ONNX Runtime.
        runs: timed runs; those of the original are made in turn.

    Returns:
        A :class:`DeployReport`; its ``model`` runs the file.

    Raises:
        DependencyError: without onnx, onnxscript or onnxruntime: ``pip install "secateur[deploy]"``.
        DeploymentError: if the model cannot be exported or the runtime refuses it, or for more than 8 bits.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)).eval()
        >>> x = torch.randn(4, 3, 8, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = to_onnx(net, (x,), f"{folder}/net.onnx", runs=3)
        >>> report.agreement.top1, report.agreement.relative_error < 1e-5
        (1.0, True)
    """

    def write(
        program: fx.GraphModule, given: tuple[Any, ...], named: dict[str, Any], file: Path
    ) -> Deployment:
        write_onnx(program, given, named, file, dynamic_batch=dynamic_batch, opset=opset)
        runner = OnnxModel(file, threads)
        integers = with_integer_kernels(program)
        return Deployment(runner, runner.runtime, file, runner.kernels, integers)

    return deployed(
        write, model, args, path, kwargs, dynamic_batch, quantize, original, samples, threads, runs
    )
