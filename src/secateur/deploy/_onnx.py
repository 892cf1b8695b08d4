"""ONNX: a checked file with real integers, and ONNX Runtime as a module."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from .._errors import DeploymentError
from ._extras import needed
from ._program import batch_shapes

_WARNINGS_OFF = 3


def write_onnx(
    program: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool,
    opset: int | None = None,
) -> None:
    """Write a program to a file, and have ``onnx.checker`` look at it.

    Raises:
        DependencyError: if onnx or onnxscript is not installed.
        DeploymentError: if an operator has no counterpart in ONNX, or the checker complains.
    """
    checker = needed("onnx.checker", "deploy", "to_onnx")
    needed("onnxscript", "deploy", "to_onnx")
    shapes = batch_shapes((args, dict(kwargs))) if dynamic_batch else None
    try:
        exported = torch.onnx.export(
            program,
            args,
            kwargs=dict(kwargs),
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            custom_translation_table=_translations(),
            verbose=False,
        )
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise DeploymentError(
            f"the model cannot be written as ONNX ({type(error).__name__}: {first})"
        ) from error
    assert exported is not None
    _strip(exported.model)
    exported.save(os.fspath(path))
    try:
        checker.check_model(os.fspath(path), full_check=True)
    except checker.ValidationError as error:
        raise DeploymentError(f"{path} is not valid ONNX: {error}") from error


def _strip(model: Any) -> None:
    """Take out the exporter's notes on every node (stack traces, scopes): they can outweigh small weights."""
    for value in (*model.graph.all_nodes(), *model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        for output in getattr(value, "outputs", ()):
            output.metadata_props.clear()


def _translations() -> dict[Any, Any]:
    """How our operators are written: one scale for all has no axis, and the axis given is then ignored."""
    from onnxscript import opset18 as op

    def quantize(x: Any, scale: Any, zero_point: Any, axis: int | None = None) -> Any:
        return op.QuantizeLinear(x, scale, zero_point, axis=1 if axis is None else axis)

    def dequantize(q: Any, scale: Any, zero_point: Any, axis: int | None = None) -> Any:
        return op.DequantizeLinear(q, scale, zero_point, axis=1 if axis is None else axis)

    def global_average(x: Any) -> Any:
        return op.GlobalAveragePool(x)

    operators = torch.ops.secateur
    return {
        operators.quantize.default: quantize,
        operators.dequantize.default: dequantize,
        operators.global_average.default: global_average,
    }


class OnnxModel(nn.Module):
    """An ONNX file, run by ONNX Runtime on the CPU; called with tensors like the model that it was made from.

    Args:
        path: the file.
        threads: how many threads an operator may use.

    Attributes:
        kernels: how often each operator runs, after ONNX Runtime's fusions.

    Raises:
        DependencyError: if onnxruntime is not installed.
        DeploymentError: if it cannot load the file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        super().__init__()
        runtime = needed("onnxruntime", "deploy", "running ONNX")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = _WARNINGS_OFF
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(optimized)
            try:
                self.session = runtime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])
            except Exception as error:
                raise DeploymentError(f"ONNX Runtime cannot load {path}: {error}") from error
            self.kernels = _kernels(optimized)
        self.path, self.runtime = Path(path), f"ONNX Runtime {runtime.__version__}"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs: a tensor, or a tuple of several."""
        tensors = iter([leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)])
        names = [given.name for given in self.session.get_inputs()]
        feed = {name: (kwargs[name] if name in kwargs else next(tensors)).numpy() for name in names}
        made = tuple(torch.from_numpy(array) for array in self.session.run(None, feed))
        return made[0] if len(made) == 1 else made


def _kernels(path: Path) -> Mapping[str, int]:
    onnx = needed("onnx", "deploy", "running ONNX")
    graph = onnx.load(path, load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node))
