"""What the tests of pruning methods build."""

from types import ModuleType
from typing import Any

import torch
from torch import nn

from secateur import masks as prune


def linear(values: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(values[0]), len(values), bias=False)
    layer.weight = nn.Parameter(torch.tensor(values))
    return layer


def container_of(module: ModuleType, method: Any) -> Any:
    container = module.PruningContainer()
    container._tensor_name = method._tensor_name = "test"
    container.add_pruning_method(method)
    return container


def pruned_net() -> nn.Sequential:
    """A network with masks of several methods, for inputs of shape (n, 2, 4, 4)."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    prune.ln_structured(net[0], "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(net[3], "weight", 0.5)
    prune.l1_unstructured(net[3], "bias", 1)
    return net
