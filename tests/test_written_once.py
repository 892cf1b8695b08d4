"""Writes in place as new values of a recorded graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.axes import has_rule
from secateur.capture import Detail, Graph, Source, record, written_once


class Writes(nn.Module):
    """A sum in place, of what a view was taken from before."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.act(self.layer(x))
        turned = inner.t()
        inner += x
        return turned, inner


def recorded() -> tuple[Graph, Graph]:
    graph = record(Writes(), (torch.ones(4, 4),), {}, detail=Detail(has_rule))
    return graph, written_once(graph)


def made_by(graph: Graph) -> dict[int, str]:
    return {id_: str(node.op) for node in graph.nodes for id_ in node.outputs}


def test_no_tensor_is_made_twice() -> None:
    graph, once = recorded()
    outputs = [id_ for node in graph.nodes for id_ in node.outputs]
    assert len(set(outputs)) < len(outputs), "the example writes in place"
    made = [id_ for node in once.nodes for id_ in node.outputs]
    assert len(set(made)) == len(made)
    assert [value.id for value in once.values] == [*range(len(once.values))]


def test_readers_read_what_was_there_when_they_ran() -> None:
    _, once = recorded()
    linear, relu, view, total = once.nodes
    assert relu.inputs == linear.outputs
    assert view.inputs == relu.outputs
    assert total.inputs[:1] == relu.outputs
    assert total.args[0].id == total.inputs[0]


def test_views_of_what_was_written_to_are_new_values() -> None:
    _, once = recorded()
    view, total = once.nodes[-2:]
    turned, inner = once.outputs.values()
    assert turned not in view.outputs
    assert made_by(once)[turned] == made_by(once)[inner] == str(total.op)


def test_what_the_layer_read_is_not_a_view_of_what_it_made() -> None:
    """A linear layer is defined by others, of which some give views; its output is none."""
    _, once = recorded()
    (given,) = once.inputs.values()
    assert once.values[given].source is Source.INPUT
    assert given in once.nodes[-1].inputs


def test_the_recorded_graph_is_left_as_it_is() -> None:
    graph = record(Writes(), (torch.ones(4, 4),), {}, detail=Detail(has_rule))
    before = [(list(node.inputs), list(node.outputs)) for node in graph.nodes], len(graph.values)
    written_once(graph)
    assert ([(list(node.inputs), list(node.outputs)) for node in graph.nodes], len(graph.values)) == before
