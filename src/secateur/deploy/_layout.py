"""Which tensors have to be integers, so that a runtime has integer kernels for the layers between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ..capture import Graph, Node, Ref, Source

_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d}
_LINEAR = {_ATEN.linear}
_TURNED = {_ATEN.addmm}
"""Linear layers whose weight has its outputs in dimension 1: ``addmm(bias, x, weight)``."""
_LOOKUPS = {_ATEN.embedding}
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
        layers: convolutions and linear layers whose weight is a parameter.
        lookups: the nodes that look up rows of a parameter, which can be stored as integers.
        tensors: the activations to quantise, in the order that they are made; each once.
    """

    layers: list[Layer]
    lookups: list[Node]
    tensors: dict[int, Chosen]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, and the ids of the tensors that it multiplies.

    Attributes:
        turned: whether the weight has its outputs in dimension 1.
    """

    node: Node
    read: int
    weight: int
    turned: bool


@dataclass
class Chosen:
    """A tensor that has to be integers.

    Attributes:
        read: for each layer that reads it, the tensors from what the layer reads back to this one, where
            operators only moved its values: any of them may be quantised instead.
        before: what it was made of, before operators that are fused with the kernel, the latest first: one of
            these is quantised where the tensor itself has no place.
        made: whether a kernel makes the integers; otherwise it is quantised for those who read it.
        by: the nodes that have an integer kernel by it, where others read it as well, for whom it is better
            left as it is: a sum of floats gets no faster by operands of 8 bits. Empty if it is for all.
    """

    read: list[list[int]] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    made: bool = False
    by: list[Node] = field(default_factory=list)


def layout_of(graph: Graph) -> Layout:
    """The layout that gives every convolution and linear layer an integer kernel, and joins between them too.

    No tensor of the graph may be written to twice (:func:`~secateur.capture.written_once`).

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
        layers: list[Layer] = []
        joins: list[Node] = []
        chosen: defaultdict[int, Chosen] = defaultdict(Chosen)
        for node in self.graph.nodes:
            packet, layer = packet_of(node), _layer(self.graph, node)
            if layer is not None:
                layers.append(layer)
                moved = [*self._moved_back(layer.read)]
                chosen[moved[-1]].read.append(moved)
                if packet in _CONVOLUTIONS:
                    self._choose_made(node, chosen)
            elif packet in _JOINS and self._joins(node, chosen):
                joins.append(node)
                self._choose_made(node, chosen)
        integer = {(layer.node.index, layer.read) for layer in layers}
        integer |= {(node.index, operand) for node in joins for operand in node.inputs}
        floats = [id_ for id_ in chosen if self.graph.values[id_].dtype.is_floating_point]
        floats.sort(key=self._made_at)
        for id_ in floats:
            if not chosen[id_].made:
                chosen[id_].by = self._by(id_, integer)
        return Layout(layers, self._lookups(layers), {id_: chosen[id_] for id_ in floats})

    def _by(self, id_: int, integer: Container[tuple[int, int]]) -> list[Node]:
        """Who reads a tensor as integers, if others read it too."""
        readers = self._later(id_)
        found = [reader for reader in readers if self._as_integers(reader, id_, integer)]
        return [] if len(found) == len(readers) and id_ not in self.results else found

    def _as_integers(self, reader: Node, id_: int, integer: Container[tuple[int, int]]) -> bool:
        """Whether a node reads a tensor as integers, or moves it for nobody but such."""
        if (reader.index, id_) in integer:
            return True
        if packet_of(reader) not in _MOVES or reader.outputs[0] in self.results:
            return False
        moved = reader.outputs[0]
        return all(self._as_integers(later, moved, integer) for later in self._later(moved))

    def _later(self, id_: int) -> list[Node]:
        """Who reads a tensor, and has another to give."""
        return [reader for reader in self.readers[id_] if not _gives_back(reader, id_)]

    def _made_at(self, id_: int) -> int:
        return self.makers[id_].index if id_ in self.makers else -1

    def _lookups(self, layers: list[Layer]) -> list[Node]:
        """Lookups of rows in a parameter that nothing reads but lookups and layers, at ids from the inputs.

        Rows at other ids, such as those of positions, are constants of a deployed model, and its table is not
        in it at all. A bag of embeddings, and what is written to (``max_norm``), has no integer form.
        """
        given = self._given()
        lookups = [
            node
            for node in self.graph.nodes
            if packet_of(node) in _LOOKUPS and is_parameter(self.graph, node.args[0])
        ]
        rows = {(node.index, node.args[0].id) for node in lookups}
        rows |= {(layer.node.index, layer.weight) for layer in layers}
        return [
            node
            for node in lookups
            if node.args[1].id in given
            and all((reader.index, node.args[0].id) in rows for reader in self.readers[node.args[0].id])
        ]

    def _given(self) -> set[int]:
        """The tensors whose values depend on the model's inputs."""
        found = set(self.graph.inputs.values())
        for node in self.graph.nodes:
            if found.intersection(node.inputs):
                found.update(node.outputs)
        return found

    def _joins(self, node: Node, chosen: Container[int]) -> bool:
        """Whether a sum or concatenation is one of several tensors that are all chosen."""
        return len(node.inputs) > 1 and all(self._moved_from(operand) in chosen for operand in node.inputs)

    def _choose_made(self, node: Node, chosen: dict[int, Chosen]) -> None:
        """Choose the tensor that leaves a kernel: behind the operators that are fused with it."""
        made: list[int] = []
        while True:
            id_ = node.outputs[0]
            later = [reader for reader in self.readers[id_] if reader.index > node.index]
            if len(later) != 1 or packet_of(later[0]) not in _FUSED or id_ in self.results:
                break
            if id_ != later[0].outputs[0]:
                made.append(id_)
            node = later[0]
        chosen[id_].made, chosen[id_].before = True, made[::-1]

    def _moved_from(self, id_: int) -> int:
        """The tensor whose values these are."""
        *_, origin = self._moved_back(id_)
        return origin

    def _moved_back(self, id_: int) -> Iterator[int]:
        """A tensor, and those whose values it has, back to where operators did more than move them."""
        yield id_
        while id_ in self.makers and packet_of(self.makers[id_]) in _MOVES:
            id_ = self.makers[id_].inputs[0]
            yield id_


def _layer(graph: Graph, node: Node) -> Layer | None:
    """The node as a layer, if it is one."""
    packet = packet_of(node)
    turned = packet in _TURNED
    if not turned and packet not in _CONVOLUTIONS | _LINEAR:
        return None
    read, weight = node.args[1:3] if turned else node.args[:2]
    if not is_parameter(graph, weight) or (turned and not is_parameter(graph, node.args[0])):
        return None
    return Layer(node, read.id, weight.id, turned)


def _gives_back(node: Node, made: int) -> bool:
    """Whether an operator that moves gave back the very tensor that it got, such as dropout in eval mode."""
    return made in node.inputs and packet_of(node) in _MOVES


def packet_of(node: Node) -> Any:
    """The operator of a node, whichever its overload."""
    return getattr(node.op, "overloadpacket", None)


def is_parameter(graph: Graph, ref: Any) -> bool:
    """Whether an argument is a parameter of the model."""
    return isinstance(ref, Ref) and graph.values[ref.id].source is Source.PARAMETER
