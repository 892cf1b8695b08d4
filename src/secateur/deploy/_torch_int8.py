"""PyTorch's own integer kernels, by way of PT2E and torchao."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ._calibrated import Calibration
from ._common import deployed
from ._constants import drop_unread
from ._exported import Flat, pytorch, save_program
from ._extras import needed
from ._measure import Deployment
from ._moves import is_move
from ._pt2e import QuantizedGraph, decompose
from ._report import DeployReport

_FLOATS = {torch.ops.aten.max_pool1d.default}
"""What moves values of floats alone."""


def to_torch_int8(
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
    """Write a model in the form of PyTorch's PT2E quantisation, and run it with PyTorch's integer kernels.

    The ``.pt2`` file holds int8 weights and the operators ``quantized_decomposed``, which torchao, inductor
    and other backends of PyTorch recognise; it needs torchao to be loaded, nothing of this package. On x86
    processors torchao puts oneDNN's integer kernels in their place, without a compiler: that is what
    :class:`TorchInt8Model` runs, and what is measured.

    Arguments, result and errors are those of :func:`to_onnx`; ``pip install "secateur[quant]"`` brings what
    is needed.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = to_torch_int8(net, (x,), f"{folder}/net.pt2", quantize=[x], runs=2)
        >>> report.kernels["onednn.qconv_pointwise"]
        2
    """
    torchao = needed("torchao", "quant", "to_torch_int8")
    needed("torchao.quantization.pt2e", "quant", "to_torch_int8")  # brings the operators

    def write(
        program: fx.GraphModule, given: tuple[Any, ...], named: dict[str, Any], file: Path
    ) -> Deployment:
        decompose(program)
        _suit_onednn(program)
        save_program(program, given, named, file, dynamic_batch=dynamic_batch)
        runner = TorchInt8Model(file)
        runtime = f"{pytorch()}, torchao {torchao.__version__}"
        return Deployment(runner, runtime, file, runner.kernels(*given, **named))

    return deployed(
        write, model, args, path, kwargs, dynamic_batch, quantize, original, samples, threads, runs
    )


class TorchInt8Model(nn.Module):
    """A file of :func:`to_torch_int8`, run with oneDNN's integer kernels.

    Kernels are put in for the shapes of the inputs, the first time that these come, which takes seconds.

    Args:
        path: the file.

    Raises:
        DependencyError: without torchao.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._lower = _lowering()
        self._path = os.fspath(path)
        self._lowered: dict[tuple[torch.Size, ...], fx.GraphModule] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs: a tensor, or a tuple of several."""
        return Flat(self._for(args, kwargs))(*args, **kwargs)

    def kernels(self, *args: Any, **kwargs: Any) -> Mapping[str, int]:
        """How often each operator runs at inputs of these shapes."""
        nodes = self._for(args, kwargs).graph.nodes
        names = (str(node.target) for node in nodes if isinstance(node.target, torch._ops.OpOverload))
        return dict(Counter(name.rpartition(".")[0] for name in names))

    def _for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
        shapes = tuple(leaf.shape for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if shapes not in self._lowered:
            program = torch.export.load(self._path).module(check_guards=False).requires_grad_(False)
            with torch.no_grad():
                self._lowered[shapes] = self._lower(program, (*args, *kwargs.values()))
        return self._lowered[shapes]


def _suit_onednn(program: fx.GraphModule) -> None:
    """Let layers stand directly between integers, where torchao finds them; in place."""
    suit = QuantizedGraph(program)
    for node in suit.every(suit.quantize):
        suit.merge_activations(node)
    for node in [node for node in program.graph.nodes if is_move(node) and node.target not in _FLOATS]:
        suit.move_integers(node)
    program.graph.eliminate_dead_code()
    drop_unread(program)
    program.recompile()


def _lowering() -> Any:
    """torchao's function; what importing it changes of inductor's settings is changed back."""
    from torch._inductor import config

    kept = config.pre_grad_custom_pass
    needed("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", "quant", "TorchInt8Model")
    config.pre_grad_custom_pass = kept
    module = needed("torchao.quantization.pt2e.lowering", "quant", "TorchInt8Model")
    return module.lower_pt2e_quantized_to_x86
