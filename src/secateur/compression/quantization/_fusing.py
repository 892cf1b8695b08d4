"""Fusion: a layer, the BatchNorm behind it and the activation behind that are one operation in integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from ..._errors import QuantizationError
from ...axes import has_rule
from ...capture import Detail, Graph, record
from ..config import AUTO_FUSION, Resolved, fusible
from ._reading import Quantized

_TINY = 1e-30
"""A factor below this, of a norm that gives nothing, is taken for 1: the norm multiplies by it anyway."""


class Chain:
    """Fused modules of a model, which stay where they are.

    What is quantised is the weight that folding the norm would give, ``w * γ / √(σ² + ε)``, with the running
    statistics: the layer is read with weight and bias times this factor, its output is divided by it, and the
    norm runs as it is. So in eval mode everything is computed as after folding, in training the norm uses
    the batch as ever, and one convolution is enough (Krishnamoorthi, "Quantizing deep convolutional networks
    for efficient inference" (2018), section 3.2.2). The output that is quantised is that of the last module.

    Args:
        model: the model.
        paths: of the modules, in the order that they run.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self.modules = [model.get_submodule(path) for path in paths]
        self.output: Quantized | None = None
        self._expected = 0
        self._handles: list[RemovableHandle] = []

    @property
    def norm(self) -> _NormBase | None:
        """The BatchNorm behind the layer, if there is one."""
        second = self.modules[1]
        return second if isinstance(second, _NormBase) else None

    def factor(self) -> Tensor:
        """:meth:`gain` as it can be divided by: 1 for a channel of which the norm takes nothing."""
        gain = self.gain()
        return torch.where(gain.abs() < _TINY, 1.0, gain)

    def gain(self) -> Tensor:
        """``γ / √(σ² + ε)``, of shape ``(channels,)``, with the gradient of ``γ``."""
        norm = self.norm
        assert norm is not None
        assert norm.running_var is not None
        gain = torch.rsqrt(norm.running_var + norm.eps)
        return gain if norm.weight is None else gain * norm.weight

    def scaled(self, parameter: Tensor) -> Tensor:
        """A weight or bias of the layer, as folding would make it."""
        return parameter * self._per_row(parameter)

    def unscaled(self, parameter: Tensor) -> Tensor:
        """The weight or bias of which :meth:`scaled` makes this."""
        return parameter / self._per_row(parameter)

    def _per_row(self, parameter: Tensor) -> Tensor:
        return self.factor().to(parameter.dtype).reshape(-1, *[1] * (parameter.dim() - 1))

    # -- on and off --------------------------------------------------------------------------------

    def wrap(self) -> None:
        """Put the hooks on; those of the layer's own targets are there already."""
        first, *rest = self.modules
        if self.norm is not None:
            self._handles.append(first.register_forward_hook(self._divide, prepend=True))
        self._handles.append(first.register_forward_hook(self._made))
        for module in rest:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))
        if self.output is not None:
            self.output.put(first, self.output.target.name)

    def unwrap(self) -> None:
        """Take them off."""
        while self._handles:
            self._handles.pop().remove()
        if self.output is not None:
            self.output.take(self.modules[0], self.output.target.name)

    def _divide(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        factor = self.factor().to(output.dtype)
        dim = output.dim() - 1 if isinstance(module, nn.Linear) else output.dim() - self._spatial(module)
        return output / factor.reshape(-1, *[1] * (output.dim() - 1 - dim))

    def _spatial(self, module: nn.Module) -> int:
        """How many dimensions the channels and those behind them are."""
        return len(getattr(module, "kernel_size", ())) + 1

    def _made(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._expected = id(output)

    def _enter(self, module: nn.Module, args: Any) -> None:
        """See whether what comes in is what the chain made: an activation can have other callers."""
        if args and id(args[0]) == self._expected:
            return
        if module is self.norm:
            raise QuantizationError(
                f"fuse_names ({', '.join(self.paths)}): {self.paths[1]!r} does not get what "
                f"{self.paths[0]!r} puts out, so it cannot be a part of it"
            )
        self._expected = 0

    def _leave(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if self._expected == 0:
            return output
        if module is self.modules[-1]:
            self._expected = 0
            return output if self.output is None else self.output(self.modules[0], output)
        self._expected = id(output)
        return output


class Folded:
    """A bias that is read times the factor of its chain; see :class:`secateur.compression.sites.Reading`."""

    keeps_zero = True

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def __call__(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """The bias as it is read."""
        return self._chain.scaled(tensor)

    def put(self, module: nn.Module, name: str) -> None:
        """It has no tensors."""

    def take(self, module: nn.Module, name: str) -> None:
        """It has no tensors."""


# -- which modules ---------------------------------------------------------------------------------


def find_chains(resolved: Resolved, model: nn.Module, inputs: Any) -> list[Chain]:
    """The chains that a configuration names, or that are in the recorded model.

    Args:
        resolved: the configuration.
        model: the model.
        inputs: a function that gives inputs to record it at, for ``"auto"``.

    Raises:
        QuantizationError: for a module in two chains.
    """
    first = {id(module): path for path, module in model.named_modules()}
    groups: dict[tuple[str, ...], None] = {}
    selected: set[str] = set()
    for module in resolved.modules:
        said = module.extras.get("fuse_names") or ()
        if said == AUTO_FUSION:
            selected.add(module.name)
            continue
        for names in said:
            groups[tuple(first[id(model.get_submodule(name))] for name in names)] = None
    if selected:
        args, kwargs = inputs("fuse_names='auto' looks for what follows what")
        groups |= dict.fromkeys(
            _in_graph(record(model, args, kwargs, detail=Detail(has_rule)), model, selected)
        )
    _check_apart(groups, model)
    return [Chain(model, paths) for paths in groups]


def _check_apart(groups: dict[tuple[str, ...], None], model: nn.Module) -> None:
    """Activations can be shared by several chains; what has parameters cannot."""
    own = [path for paths in groups for path in paths if [*model.get_submodule(path).parameters()]]
    twice = [path for path, count in Counter(own).items() if count > 1]
    if twice:
        raise QuantizationError(f"{twice[0]!r} is in two groups of fuse_names: a module is fused once")


def _in_graph(graph: Graph, model: nn.Module, selected: set[str]) -> list[tuple[str, ...]]:
    """For each selected module that runs once: itself and what alone reads it, as far as it can be fused."""
    calls = Counter(node.module for node in graph.nodes)
    readers = graph.readers()
    results = set(graph.outputs.values())
    found: list[tuple[str, ...]] = []
    for node in graph.nodes:
        if node.module not in selected or calls[node.module] != 1:
            continue
        best, paths, now = (), [node.module], node
        while len(paths) < 3:
            (output, *more) = now.outputs
            after = readers[output]
            if more or output in results or len(after) != 1:
                break
            now = after[0]
            paths.append(now.module)
            if fusible([model.get_submodule(path) for path in paths]):
                best = tuple(paths)
        if best:
            found.append(best)
    return found
