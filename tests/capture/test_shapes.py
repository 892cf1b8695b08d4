"""Recording on ghosts finds what a real run records: the same operators, with the same shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.axes import has_rule
from secateur.capture import Detail, Graph
from secateur.capture._recorder import Recorder, _record_shapes, _run

X = torch.randn(2, 4, 6, 6)


class Calling(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.scale = nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


CALLS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "the same call again": lambda m, x: F.conv2d(F.conv2d(x, m.weight), m.weight),
    "sums of one shape": lambda m, x: (x + x.relu()) * x - x / 2,
    "sums that broadcast": lambda m, x: x + m.scale,
    "sums of two types": lambda m, x: x + x.double(),
    "sums of integers": lambda m, x: x.long() / x.long(),
    "one and true": lambda m, x: (x.long() + 1, x.long() + 1.0, x.bool() + True),
    "a view in place of one shape seen before": lambda m, x: (x * 2).flatten(1).t_() + (x * 2).flatten(1).t(),
    "into an operand": lambda m, x: (x.clone().add_(m.scale), torch.add(x, x, out=torch.empty_like(x))),
    "an operand as it is": lambda m, x: (x.contiguous() + 1, F.dropout(x, 0.5, False) + x.to(x.dtype)),
    "several results": lambda m, x: [*x.chunk(2, 1), *x.max(1), *x.chunk(2, 1)],
    "made from nothing": lambda m, x: x + torch.ones(4, 1, 1) + torch.zeros_like(x),
}


def shapes(graph: Graph) -> list[Any]:
    values = graph.values
    return [
        (node.op, [(values[i].shape, values[i].dtype) for i in (*node.inputs, *node.outputs)], node.inputs)
        for node in graph.nodes
    ]


@pytest.mark.parametrize("name", CALLS)
def test_ghosts_get_the_shapes_that_tensors_have(name: str) -> None:
    model, detail = Calling(CALLS[name]), Detail(has_rule)
    real = _run(Recorder(model, detail), model, (X,), {})
    ghostly = _record_shapes(model, (X,), {}, detail)
    assert ghostly is not None
    assert shapes(ghostly) == shapes(real)
    assert list(ghostly.outputs) == list(real.outputs)
