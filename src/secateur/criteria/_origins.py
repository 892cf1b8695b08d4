"""Origins: which parameters make a tensor, going back through operators that pass a factor on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..axes import Analysis, Leaf, Operand
from ..capture import Node, Source

aten = torch.ops.aten


def _packets(names: str) -> set[Any]:
    return {getattr(aten, name) for name in names.split()}


VIEWS = _packets(
    "view reshape _unsafe_view permute transpose t numpy_T mT movedim swapaxes flatten unflatten "
    "squeeze unsqueeze expand expand_as contiguous alias detach clone to _to_copy type_as slice select "
    "narrow split split_with_sizes chunk unbind"
)
# f(g x) = g f(x) for a factor g >= 0 on the positions of one axis.
HOMOGENEOUS = VIEWS | _packets(
    "add sub cat concat stack neg mul div relu relu_ leaky_relu abs dropout roll flip repeat "
    "repeat_interleave masked_fill constant_pad_nd pad max_pool2d avg_pool2d adaptive_avg_pool2d "
    "upsample_nearest2d sum mean add_ mul_"
)
ADDS = _packets("add sub cat concat stack add_")
AFFINE = _packets("batch_norm layer_norm group_norm instance_norm rms_norm")
WEIGHTED = _packets("linear conv1d conv2d conv3d convolution matmul mm bmm addmm baddbmm einsum embedding")
WEIGHTED |= AFFINE
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass
class Makers:
    """(name, dimension) of the parameters that make a tensor, and the operators in between that are no
    factor's way."""

    parameters: list[tuple[str, int]] = field(default_factory=list)
    opaque: list[Node] = field(default_factory=list)


class Origins:
    """Looks up where the tensors of one analysed graph come from."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._values = analysis.graph.values
        self._producer: dict[int, Node] = {}
        self._readers: dict[int, list[Node]] = defaultdict(list)
        for node in analysis.graph.nodes:
            for id_ in dict.fromkeys(node.inputs):
                self._readers[id_].append(node)
            for id_ in node.outputs:
                self._producer[id_] = node
        self._parameters = {v.name: v.id for v in self._values if v.source is Source.PARAMETER}

    def dim_of(self, id_: int, axis: Leaf) -> int | None:
        """The last dimension of a tensor that ``axis`` is a part of."""
        leaves = self._analysis.algebra.leaves
        dims = self._analysis.dims[id_]
        return next((d for d in reversed(range(len(dims))) if axis in leaves(dims[d])), None)

    def root(self, id_: int) -> int:
        """The tensor that ``id_`` is a view (or a cast) of, itself if it is none."""
        while (node := self._producer.get(id_)) is not None and packet(node) in VIEWS and node.inputs:
            id_ = node.inputs[0]
        return id_

    def parameter(self, id_: int) -> str | None:
        """The parameter that a tensor is, or is a view of."""
        value = self._values[self.root(id_)]
        return value.name if value.source is Source.PARAMETER else None

    def readers(self, parameter: str, axis: Leaf) -> Iterator[Node]:
        """The operators that read a parameter, or a view of it that carries ``axis``."""
        waiting = [self._parameters[parameter]]
        while waiting:
            for node in self._readers[waiting.pop()]:
                if packet(node) in VIEWS:
                    waiting += [id_ for id_ in node.outputs if self.dim_of(id_, axis) is not None]
                else:
                    yield node

    def module_input(self, node: Node, activation: tuple[int, int] | None) -> tuple[str, int, int] | None:
        """(module, dimension, tensor) where the operator is all that a layer's forward does."""
        kind = self._analysis.graph.module_types.get(node.module)
        if activation is None or kind is None or not issubclass(kind, LAYERS):
            return None
        return node.module, activation[1], activation[0]

    def makers(self, id_: int, axis: Leaf) -> Makers:
        """The parameters that make tensor ``id_`` along ``axis``.

        A factor on their rows (and biases) is a factor on the tensor, unless ``opaque`` is not empty.
        """
        found = Makers()
        self._go_back(id_, axis, found, set())
        return found

    def _go_back(self, id_: int, axis: Leaf, found: Makers, seen: set[int]) -> bool:
        """Collect the makers of one tensor; whether there are any."""
        if id_ in seen:
            return True
        seen.add(id_)
        node = self._producer.get(id_)
        operator = self._analysis.operators[node.index] if node else None
        if node is None or operator is None:
            return self._is_maker(id_, axis, found)
        carriers = [i for i in dict.fromkeys(node.inputs) if self.dim_of(i, axis) is not None]
        given = [i for i in carriers if self.parameter(i) is not None]
        kind = packet(node)
        if kind in ADDS:
            return any([self._go_back(i, axis, found, seen) for i in carriers])
        if given and kind in WEIGHTED | {aten.mul, aten.div}:
            return any([self._is_maker(i, axis, found) for i in given])
        if kind not in HOMOGENEOUS:
            found.opaque.append(node)
        return any(self._go_back(i, axis, found, seen) for i in carriers)

    def _is_maker(self, id_: int, axis: Leaf, found: Makers) -> bool:
        name = self.parameter(id_)
        dim = None if name is None else self.dim_of(self._parameters[name], axis)
        if name is None or dim is None:
            return False
        if (name, dim) not in found.parameters:
            found.parameters.append((name, dim))
        return True


def packet(node: Node) -> Any:
    """The operator packet of a node, without its overload."""
    return getattr(node.op, "overloadpacket", node.op)


def operands_of(arguments: dict[str, Any]) -> Iterator[Operand]:
    """The tensors among an operator's arguments."""
    for value in arguments.values():
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Operand))
