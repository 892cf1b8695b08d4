"""Which tensors have to be integers, so that a runtime has integer kernels for the layers between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..capture import Graph, Node, Ref, Source

_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d}
_LINEAR = {_ATEN.linear}
_JOINS = {_ATEN.add, _ATEN.add_, _ATEN.cat}
_FUSED = {
    _ATEN.batch_norm,
    _ATEN.relu,
    _ATEN.relu_,
    _ATEN.relu6,
    _ATEN.relu6_,
    _ATEN.hardtanh,
    _ATEN.hardtanh_,
    _ATEN.dropout,
}
"""Operators that a runtime makes part of the kernel before them."""
_MOVES = {
    _ATEN.max_pool1d,
    _ATEN.max_pool2d,
    _ATEN.flatten,
    _ATEN.view,
    _ATEN.reshape,
    _ATEN.dropout,
    _ATEN.pad,
    _ATEN.constant_pad_nd,
}
"""Operators that give back some of the values that they got, and zeros at most."""


@dataclass
class Layout:
    """Tensors of a recorded graph, by id.

    Attributes:
        layers: the nodes of convolutions and linear layers whose weight is a parameter.
        tensors: the activations to quantise, in the order that they are made; each once.
    """

    layers: list[Node]
    tensors: list[int]


def layout_of(graph: Graph) -> Layout:
    """The layout that gives every convolution and linear layer an integer kernel, and joins between them too.

    A layer's input has to be integers, and so has a convolution's output behind the activation that is fused
    with it. A sum or concatenation of such is made of integers as well.
    """
    return _Chooser(graph).layout()


class _Chooser:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.readers = graph, graph.readers()
        self.makers = {
            made: node for node in graph.nodes for made in node.outputs if not _gives_back(node, made)
        }
        self.results = set(graph.outputs.values())

    def layout(self) -> Layout:
        layers: list[Node] = []
        chosen: set[int] = set()
        for node in self.graph.nodes:
            packet = packet_of(node)
            if packet in _CONVOLUTIONS | _LINEAR and is_parameter(self.graph, node.args[1]):
                layers.append(node)
                chosen.add(self._moved_from(node.args[0].id))
                if packet in _CONVOLUTIONS:
                    chosen.add(self._behind(node))
            elif packet in _JOINS and self._joins(node, chosen):
                chosen.add(self._behind(node))
        floats = [id_ for id_ in chosen if self.graph.values[id_].dtype.is_floating_point]
        return Layout(layers, sorted(floats))

    def _joins(self, node: Node, chosen: set[int]) -> bool:
        """Whether a sum or concatenation is one of several tensors that are all chosen."""
        return len(node.inputs) > 1 and all(self._moved_from(operand) in chosen for operand in node.inputs)

    def _behind(self, node: Node) -> int:
        """The tensor that leaves a kernel: behind the operators that are fused with it."""
        while True:
            id_ = node.outputs[0]
            later = [reader for reader in self.readers[id_] if reader.index > node.index]
            if len(later) != 1 or packet_of(later[0]) not in _FUSED or id_ in self.results:
                return id_
            node = later[0]

    def _moved_from(self, id_: int) -> int:
        """The tensor whose values these are."""
        while id_ in self.makers and packet_of(self.makers[id_]) in _MOVES:
            id_ = self.makers[id_].inputs[0]
        return id_


def _gives_back(node: Node, made: int) -> bool:
    """Whether an operator that moves gave back the very tensor that it got, such as dropout in eval mode."""
    return made in node.inputs and packet_of(node) in _MOVES


def packet_of(node: Node) -> Any:
    """The operator of a node, whichever its overload."""
    return getattr(node.op, "overloadpacket", None)


def is_parameter(graph: Graph, ref: Any) -> bool:
    """Whether an argument is a parameter of the model."""
    return isinstance(ref, Ref) and graph.values[ref.id].source is Source.PARAMETER
