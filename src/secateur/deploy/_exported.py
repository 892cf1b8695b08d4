"""``torch.export``'s own file, and OpenVINO: the same program for other runtimes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from .._errors import DeploymentError
from ._calibrated import Calibration
from ._common import deployed
from ._extras import needed
from ._measure import Deployment
from ._onnx import write_onnx
from ._program import batch_shapes
from ._report import DeployReport


def to_pt2(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    quantize: Calibration | None = None,
    original: nn.Module | None = None,
    samples: Iterable[Any] = (),
    threads: int = 1,
    runs: int = 50,
) -> DeployReport:
    """Write a model as a ``.pt2`` file of ``torch.export``, with weights as int8 where that was simulated.

    ``torch.export.load(path).module()`` runs it, after ``import secateur.operators``, which brings the
    operators that make floats of integers. PyTorch computes in floats, so the file is small, and not faster.

    Arguments, result and errors are those of :func:`to_onnx`.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = to_pt2(net, (torch.ones(2, 4),), f"{folder}/net.pt2", runs=3)
        >>> report.agreement.max_error
        0.0
    """

    def write(
        program: fx.GraphModule, given: tuple[Any, ...], named: dict[str, Any], file: Path
    ) -> Deployment:
        save_program(program, given, named, file, dynamic_batch=dynamic_batch)
        return Deployment(Flat(torch.export.load(file).module()), pytorch(), file)

    return deployed(
        write, model, args, path, kwargs, dynamic_batch, quantize, original, samples, threads, runs
    )


def save_program(
    program: fx.GraphModule,
    given: tuple[Any, ...],
    named: dict[str, Any],
    file: Path,
    *,
    dynamic_batch: bool,
) -> None:
    """Write a program as a ``.pt2`` file."""
    shapes = batch_shapes((given, named)) if dynamic_batch else None
    saved = torch.export.export(program, given, named, dynamic_shapes=shapes, strict=False)
    torch.export.save(saved, file)


def pytorch() -> str:
    """PyTorch with its version, for reports."""
    return f"PyTorch {torch.__version__.partition('+')[0]}"


def to_openvino(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    quantize: Calibration | None = None,
    original: nn.Module | None = None,
    samples: Iterable[Any] = (),
    threads: int = 1,
    runs: int = 50,
) -> DeployReport:
    """Write a model for OpenVINO (``.xml`` and ``.bin``), run it there on the CPU, and compare.

    It goes by way of ONNX: arguments, result and errors are those of :func:`to_onnx`, and what is missing is
    brought by ``pip install "secateur[deploy,openvino]"``.
    """
    openvino = needed("openvino", "openvino", "to_openvino")

    def write(
        program: fx.GraphModule, given: tuple[Any, ...], named: dict[str, Any], file: Path
    ) -> Deployment:
        with tempfile.TemporaryDirectory() as folder:
            onnx = Path(folder) / "model.onnx"
            write_onnx(program, given, named, onnx, dynamic_batch=dynamic_batch)
            converted = openvino.convert_model(str(onnx))
        openvino.save_model(converted, str(file), compress_to_fp16=False)
        runner = OpenVinoModel(openvino, file, threads)
        return Deployment(runner, f"OpenVINO {openvino.__version__.partition('-')[0]}", file)

    if Path(path).suffix != ".xml":
        raise DeploymentError(f"OpenVINO reads .xml files, got {os.fspath(path)!r}")
    return deployed(
        write, model, args, path, kwargs, dynamic_batch, quantize, original, samples, threads, runs
    )


class OpenVinoModel(nn.Module):
    """A file that OpenVINO runs on the CPU; called with tensors in the order of its inputs."""

    def __init__(self, openvino: Any, path: Path, threads: int) -> None:
        super().__init__()
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = openvino.Core().compile_model(str(path), "CPU", config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs: a tensor, or a tuple of several."""
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = self.compiled([tensor.numpy() for tensor in tensors])
        outputs = tuple(torch.from_numpy(made[index].copy()) for index in range(len(self.compiled.outputs)))
        return outputs[0] if len(outputs) == 1 else outputs


class Flat(nn.Module):
    """A model whose outputs are a tensor, or a tuple of several."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.run = model.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = tree_leaves(self.run(*args, **kwargs))
        made = tuple(leaf.detach() for leaf in leaves if isinstance(leaf, Tensor))
        return made[0] if len(made) == 1 else made
