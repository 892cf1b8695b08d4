"""ExecuTorch: a ``.pte`` file whose integer kernels are XNNPACK's, and its runtime as a module."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._errors import DeploymentError
from ..capture import map_tensors
from ._calibrated import Calibration
from ._common import deployed
from ._extras import needed
from ._integers import with_integer_kernels
from ._measure import Deployment
from ._program import batch_of, batch_shapes
from ._pt2e import decompose
from ._report import DeployReport
from ._xnnpack import suit_xnnpack

_CONVERTS = re.compile(r"quantize_|qparams")
_TAKEN_IN = {"relu", "hardtanh"}
_TAKES_IN = {"convolution", "linear", "addmm", "mm", "add"}
_LEAST_BATCH = 64
"""What memory is planned for where nobody says how large a batch may be."""


def to_executorch(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    max_batch: int | None = None,
    quantize: Calibration | None = None,
    original: nn.Module | None = None,
    samples: Iterable[Any] = (),
    threads: int = 1,
    runs: int = 50,
) -> DeployReport:
    """Write a model for ExecuTorch (``.pte``), run it there with XNNPACK's kernels, and compare.

    Where the model simulates quantisation, XNNPACK computes with integers: activations of int8 (the grids of
    the simulation, shifted by 128), weights of int8, biases of int32. A linear layer may give floats; the
    weights of a convolution whose output nobody quantises, and weights with another zero than 0, are stored
    as floats.

    ``kernels`` of the report counts the operators by who computes them: ``xnnpack.int8.`` and
    ``xnnpack.float.``, with the activation that a kernel takes in counted as part of it, and ``portable.``,
    which are ExecuTorch's own.

    Args:
        model: as for :func:`to_onnx`.
        args: as there.
        path: of the file.
        kwargs: as there.
        dynamic_batch: whether the first dimension of the inputs may be any size up to ``max_batch``.
        max_batch: the largest batch: ExecuTorch plans memory beforehand. By default that of ``args``, and at
            least 64.
        quantize: as for :func:`to_onnx`.
        original: as there.
        samples: as there.
        threads: of ExecuTorch, which has one pool of threads for the process; it is left at this size.
        runs: as for :func:`to_onnx`.

    Returns:
        A :class:`DeployReport`; its ``model`` runs the file.

    Raises:
        DependencyError: without ExecuTorch: ``pip install "secateur[executorch]"``.
        DeploymentError: if the model cannot be exported or the runtime refuses it, for more than 8 bits, and
            for a batch above ``max_batch``.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = to_executorch(net, (x,), f"{folder}/net.pte", quantize=[x], runs=2)
        >>> report.kernels
        {'xnnpack.int8.convolution': 2}
    """
    version = needed("executorch.version", "executorch", "to_executorch").__version__.partition("+")[0]
    largest = _largest(args, dict(kwargs or {}), max_batch) if dynamic_batch else None

    def write(
        program: fx.GraphModule, given: tuple[Any, ...], named: dict[str, Any], file: Path
    ) -> Deployment:
        integers = with_integer_kernels(program)
        kernels = write_executorch(program, given, named, file, largest)
        return Deployment(ExecutorchModel(file, threads), f"ExecuTorch {version}", file, kernels, integers)

    return deployed(
        write, model, args, path, kwargs, dynamic_batch, quantize, original, samples, threads, runs
    )


def _largest(args: tuple[Any, ...], kwargs: dict[str, Any], max_batch: int | None) -> int:
    batch = batch_of((args, kwargs)) or 1
    if max_batch is not None and not 1 < max_batch >= batch:
        raise DeploymentError(
            f"max_batch has to be 2 or more, and the batch of args ({batch}); got {max_batch}"
        )
    return max(batch, _LEAST_BATCH) if max_batch is None else max_batch


def write_executorch(
    program: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    path: Path,
    max_batch: int | None,
) -> Mapping[str, int]:
    """Write a program, which is changed, to a file; gives how often each operator runs.

    Raises:
        DeploymentError: if ExecuTorch has no kernel for an operator, or cannot lower the program.
    """
    exir = needed("executorch.exir", "executorch", "to_executorch")
    needed("torchao.quantization.pt2e", "executorch", "to_executorch")  # operators quantized_decomposed
    needed("executorch.kernels.quantized", "executorch", "to_executorch")  # and their kernels
    partition = needed(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch", "to_executorch"
    )
    decompose(program, torch.int8)
    suit_xnnpack(program)
    shapes = None
    if max_batch is not None:
        shapes = _bounded(batch_shapes((args, kwargs)), max_batch)
        args, kwargs = _at_batch((args, kwargs), max_batch)
    try:
        exported = torch.export.export(program, args, kwargs, dynamic_shapes=shapes, strict=False)
        edge = exir.to_edge_transform_and_lower(exported, partitioner=[partition.XnnpackPartitioner()])
        kernels = _kernels(edge.exported_program().graph_module)
        made = edge.to_executorch()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise DeploymentError(
            f"the model cannot be written for ExecuTorch ({type(error).__name__}: {first})"
        ) from error
    path.write_bytes(made.buffer)
    return kernels


def _bounded(shapes: Any, max_batch: int) -> Any:
    batch = torch.export.Dim("batch", min=1, max=max_batch)
    return tree_map(lambda size: batch if size is torch.export.Dim.DYNAMIC else size, shapes)


def _at_batch(inputs: Any, batch: int) -> Any:
    """Inputs of that batch: a size that an operator asks for in between must not become the upper bound."""
    own = batch_of(inputs)

    def grown(x: Tensor) -> Tensor:
        return x[torch.arange(batch) % own] if own and x.dim() and len(x) == own else x

    return map_tensors(inputs, grown)


def _kernels(lowered: fx.GraphModule) -> Mapping[str, int]:
    """How often each operator runs, by who computes it."""
    counts = Counter(f"portable.{name}" for name in map(_operator, lowered.graph.nodes) if name)
    for part in lowered.children():
        program = getattr(part, "original_module", None)  # what was delegated
        if program is not None:
            counts.update(filter(None, map(_delegated, program.graph.nodes)))
    return dict(counts)


def _operator(node: fx.Node) -> str:
    """The operator's name without its overload; empty for what only handles shapes and results."""
    edge = hasattr(node.target, "to_out_variant")  # of ExecuTorch's dialect
    return node.target.__name__.split(".")[-2] if edge else ""  # type: ignore[union-attr]


def _delegated(node: fx.Node) -> str:
    """XNNPACK's kernel for an operator; empty for one that is a part of another's kernel."""
    name = _operator(node)
    source = _operator(node.all_input_nodes[0]) if node.all_input_nodes else ""
    if not name or _CONVERTS.search(name) or (name in _TAKEN_IN and source in _TAKES_IN):
        return ""
    utils = needed("executorch.backends.xnnpack.utils.quant_utils", "executorch", "to_executorch")
    integers = any(utils.is_tagged_as_implicit_q_dq(source) for source in node.all_input_nodes)
    return f"xnnpack.{'int8' if integers else 'float'}.{name}"


class ExecutorchModel(nn.Module):
    """A ``.pte`` file, run by ExecuTorch; called with tensors in the order of its inputs.

    ExecuTorch has one pool of threads for the process. A model that finds it at another size sets it to its
    own, and models of this class are loaded again then; methods that other code has loaded must not run after
    that.

    Args:
        path: the file.
        threads: how many threads an operator may use.

    Raises:
        DependencyError: without ExecuTorch.
        DeploymentError: if it cannot load the file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        super().__init__()
        self._runtime = needed("executorch.runtime", "executorch", "ExecutorchModel").Runtime.get()
        needed("executorch.kernels.quantized", "executorch", "ExecutorchModel")
        self.path, self.threads = Path(path), threads
        self._method, self._changes = self._load(), _POOL.changes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs: a tensor, or a tuple of several.

        Raises:
            DeploymentError: if the inputs do not fit, such as a batch above the largest.
        """
        tensors = [leaf.contiguous() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        _POOL.resize(self.threads)
        if self._changes != _POOL.changes:
            self._method, self._changes = self._load(), _POOL.changes
        try:
            made = tuple(self._method.execute(tensors))
        except RuntimeError as error:
            known = self._method.metadata
            planned = [tuple(known.input_tensor_meta(index).sizes()) for index in range(known.num_inputs())]
            shapes = [tuple(tensor.shape) for tensor in tensors]
            raise DeploymentError(
                f"ExecuTorch cannot run {self.path.name} on inputs of shapes {shapes}; the largest that "
                f"it was written for are {planned} ({error})"
            ) from error
        return made[0] if len(made) == 1 else made

    def _load(self) -> Any:
        _POOL.resize(self.threads)
        try:
            return self._runtime.load_program(self.path).load_method("forward")
        except RuntimeError as error:
            raise DeploymentError(f"ExecuTorch cannot load {self.path}: {error}") from error


class _Pool:
    """ExecuTorch's threads; a method that was loaded before a change of their number holds the old pool."""

    changes = 0

    def resize(self, threads: int) -> None:
        """Have that many threads."""
        library = needed("executorch.extension.pybindings.portable_lib", "executorch", "ExecutorchModel")
        if library._threadpool_get_thread_count() != threads:
            library._unsafe_reset_threadpool(threads)
            self.changes += 1


_POOL = _Pool()
