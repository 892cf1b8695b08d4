"""What the tests of saving and loading share: a model with every kind of size, and how it is pruned."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from oracle import random_labels, randomise
from secateur import PruningIR

Factory = Callable[[], nn.Module]


def pruned(model: nn.Module, *args: Any, times: int = 1, **kwargs: Any) -> PruningIR:
    """The model in evaluation mode with about half of every group gone, ``times`` times."""
    ir = PruningIR(randomise(model).eval())
    ir.create_snapshot("main", args, kwargs)
    for seed in range(times):
        ir = ir.prune(labels=random_labels(ir.groups(), seed))
    return ir


def predictions(model: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        result = model.eval()(*args, **kwargs)
    return result.logits if hasattr(result, "logits") else result


def on_meta(factory: Factory) -> Factory:
    def build() -> nn.Module:
        with torch.device("meta"):
            return factory()

    return build


class Small(nn.Module):
    """Everything a module can keep a size in: parameters, buffers, attributes, and a view."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 3)
        self.heads = width // 2
        self.register_buffer("shift", torch.arange(width) / 8, persistent=False)
        self.table = torch.linspace(1, 2, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)) + self.shift
        x = x.view(-1, self.heads, 2).flatten(1)
        return self.last(x * self.table)


INPUT = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
