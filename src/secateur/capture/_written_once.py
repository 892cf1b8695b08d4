"""A graph in which no tensor is written twice: what an operator changed in place has an id of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ._graph import Graph, Node, Ref, Source, Value, map_tree
from ._operators import gives_views, written_arguments


def written_once(graph: Graph) -> Graph:
    """A graph of the same run, whose tensors are values: a write in place makes a new one.

    Who reads a tensor after ``relu_`` reads another id than who read it before. Views of what was written to
    are new values too, made by the operator that wrote.

    Args:
        graph: as recorded; left as it is.

    Example:
        >>> import torch
        >>> from secateur.axes import has_rule
        >>> from secateur.capture import Detail, record
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 1))
        >>> graph = record(net, (torch.ones(1, 2),), {}, detail=Detail(has_rule))
        >>> [(node.inputs[0], node.outputs[0]) for node in graph.nodes]
        [(4, 5), (5, 5), (5, 6)]
        >>> [(node.inputs[0], node.outputs[0]) for node in written_once(graph).nodes]
        [(4, 5), (5, 7), (7, 6)]
    """
    versions = _Versions(graph)
    nodes = [versions.node(node) for node in graph.nodes]
    leaves, spec = graph.result
    return replace(
        graph,
        nodes=nodes,
        values=versions.values,
        outputs={path: versions.now(id_) for path, id_ in graph.outputs.items()},
        result=(versions.read(leaves), spec),
    )


class _Versions:
    """Which id stands for a recorded tensor at present.

    Attributes:
        values: the recorded ones, and then the new ones.
    """

    def __init__(self, graph: Graph) -> None:
        self.values = list(graph.values)
        self._now: dict[int, int] = {}
        self._base: dict[int, int] = {}  # of what was met so far

    def now(self, id_: int) -> int:
        """The id of a recorded tensor's present value."""
        return self._now.get(id_, id_)

    def read(self, tree: Any) -> Any:
        """Recorded arguments, with the present ids."""
        return map_tree(tree, Ref, lambda ref: Ref(self.now(ref.id)))

    def node(self, node: Node) -> Node:
        """The node, with the ids that it reads and then those that it makes; to be called in their order."""
        args, kwargs = self.read(node.args), self.read(node.kwargs)
        inputs = [self.now(id_) for id_ in node.inputs]
        for id_ in node.inputs:
            self._base.setdefault(id_, id_)
        written = self._written(node)
        for id_ in written:
            self._now[id_] = self._renewed(self.values[id_])
        for id_ in node.outputs:
            self._base.setdefault(id_, self._base[node.inputs[0]] if gives_views(node.op) else id_)
        made = dict.fromkeys(self.now(id_) for id_ in [*node.outputs, *written])
        result = self.read(node.result)
        return replace(node, args=args, kwargs=kwargs, result=result, inputs=inputs, outputs=[*made])

    def _renewed(self, value: Value) -> int:
        self.values.append(replace(value, id=len(self.values), source=Source.OPERATOR, names=()))
        return self.values[-1].id

    def _written(self, node: Node) -> list[int]:
        """Recorded ids of what the node writes to, and of all so far that share memory with it."""
        bases = {self._base[ref.id] for ref in _refs_written(node)}
        return [id_ for id_, base in self._base.items() if base in bases]


def _refs_written(node: Node) -> Iterator[Ref]:
    for given in written_arguments(node.op, node.args, node.kwargs):
        items = given if isinstance(given, (list, tuple)) else [given]
        yield from (item for item in items if isinstance(item, Ref))
