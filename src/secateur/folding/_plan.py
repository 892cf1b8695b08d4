"""Which BatchNorm can be folded into which layer: read from the recorded graph, nothing is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..capture import Graph, Node, Ref, Source

_ATEN = torch.ops.aten
_NORMS = {_ATEN.batch_norm, _ATEN._batch_norm_no_update, _ATEN._native_batch_norm_legit_no_training}
_CONVOLUTIONS = {_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d}
_TRANSPOSED = {_ATEN.conv_transpose1d, _ATEN.conv_transpose2d, _ATEN.conv_transpose3d}
_LAYERS = {_ATEN.linear, *_CONVOLUTIONS, *_TRANSPOSED}


@dataclass(frozen=True)
class NormFold:
    """One BatchNorm that is folded.

    Attributes:
        norm: path of the BatchNorm module.
        weight: path of the weight that takes its factor, output channels first (second if transposed).
        bias: path of the bias that takes its shift.
        creates_bias: whether the layer had none.
        groups: of a transposed convolution, whose output channels are in dimension 1; 0 for other layers.
        rest: paths of the children of the norm that go on working in its place, in the order of their calls.
    """

    norm: str
    weight: str
    bias: str
    creates_bias: bool
    groups: int = 0
    rest: tuple[str, ...] = ()


@dataclass(frozen=True)
class Left:
    """A BatchNorm that stays, and why."""

    norm: str
    reason: str


@dataclass
class FoldPlan:
    """What will be folded, and what stays."""

    folds: list[NormFold] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


class _Unfoldable(Exception):
    """Carries the reason."""


def plan_folds(model: nn.Module, graph: Graph) -> FoldPlan:
    """The folds that a recorded graph allows."""
    return _Finder(model, graph).plan()


class _Finder:
    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.modules, self.graph = dict(model.named_modules()), graph
        self.makers = {id_: node for node in graph.nodes for id_ in node.outputs}
        self.reads = Counter(id_ for node in graph.nodes for id_ in node.inputs)
        self.reads.update(graph.outputs.values())

    def plan(self) -> FoldPlan:
        plan = FoldPlan()
        for node in self.graph.nodes:
            if _packet(node) in _NORMS:
                try:
                    plan.folds.append(self._fold(node))
                except _Unfoldable as reason:
                    plan.left.append(Left(node.module, str(reason)))
        return plan

    def _fold(self, node: Node) -> NormFold:
        given = _arguments(node)
        rest = self._rest(node)
        self._check_statistics(given)
        source = given["input"]
        layer = self.makers.get(source.id)
        if layer is None or _packet(layer) not in _LAYERS:
            what = f"the output of {layer}" if layer else "an input of the model"
            raise _Unfoldable(f"it reads {what}, which is neither a convolution nor a linear layer")
        if self.reads[source.id] > 1:
            raise _Unfoldable(f"it is not alone in reading the output of {layer}")
        if _packet(layer) is _ATEN.linear and len(self.graph.values[source.id].shape) != 2:
            raise _Unfoldable(f"its channels are not those of {layer}, whose features come last")
        weight, bias = self._parameters(layer)
        groups = self._groups(layer)
        return NormFold(node.module, weight, *bias, groups, rest)

    def _rest(self, node: Node) -> tuple[str, ...]:
        """Children of the norm's module that run behind it, checked to be a plain chain."""
        path, module = node.module, self.modules[node.module]
        if not isinstance(module, _BatchNorm):
            where = f" ({node.site})" if node.site else ""
            raise _Unfoldable(f"it is called by the code of {path or 'the model'!r}{where}, not by a module")
        if module._forward_hooks or module._forward_pre_hooks:
            raise _Unfoldable("hooks are registered on it")
        inside = [n for n in self.graph.nodes if n.module == path or n.module.startswith(f"{path}.")]
        if sum(n.module == path for n in inside) != 1:
            raise _Unfoldable("its forward does more than BatchNorm, or is called more than once")
        names = (n.module.removeprefix(f"{path}.").partition(".")[0] for n in inside[1:])
        chain = inside[0] is node and all(one.outputs[0] in other.inputs for one, other in pairwise(inside))
        if not chain:
            raise _Unfoldable("its forward does more than BatchNorm and what its children do in turn")
        return tuple(dict.fromkeys(names))

    def _check_statistics(self, given: Mapping[str, Any]) -> None:
        if given.get("training"):
            raise _Unfoldable("it uses the statistics of the batch")
        for name in ("running_mean", "running_var"):
            if not self._is_owned(given.get(name)):
                raise _Unfoldable(f"its {name} is computed in the forward")
        for name in ("weight", "bias"):
            if given.get(name) is not None and not self._is_owned(given[name]):
                raise _Unfoldable(f"its {name} is computed in the forward")

    def _is_owned(self, ref: Any) -> bool:
        owned = (Source.PARAMETER, Source.BUFFER)
        return isinstance(ref, Ref) and self.graph.values[ref.id].source in owned

    def _parameters(self, layer: Node) -> tuple[str, tuple[str, bool]]:
        """Paths of weight and bias, and whether the bias has to be made."""
        given = _arguments(layer)
        weight, bias = given["weight"], given.get("bias")
        for ref in (weight, *([bias] if bias is not None else [])):
            value = self.graph.values[ref.id]
            if value.source is not Source.PARAMETER:
                raise _Unfoldable(f"the weight or bias of {layer} is computed, not a parameter")
            if self.reads[ref.id] > 1 or len(value.names) > 1:
                raise _Unfoldable(f"{value.name} is used more than once")
        name = self.graph.values[weight.id].name
        if bias is not None:
            return name, (self.graph.values[bias.id].name, False)
        path, _, attribute = name.rpartition(".")
        if attribute != "weight" or self.modules[path]._parameters.get("bias", ...) is not None:
            raise _Unfoldable(f"{layer} has no place for a bias")
        return name, (f"{path}.bias".lstrip("."), True)

    def _groups(self, layer: Node) -> int:
        return int(_arguments(layer).get("groups", 1)) if _packet(layer) in _TRANSPOSED else 0


def _packet(node: Node) -> Any:
    return getattr(node.op, "overloadpacket", None)


def _arguments(node: Node) -> dict[str, Any]:
    """Arguments of an operator call by the names of its schema."""
    names: Sequence[Any] = node.op._schema.arguments
    return {**{a.name: value for a, value in zip(names, node.args, strict=False)}, **node.kwargs}
