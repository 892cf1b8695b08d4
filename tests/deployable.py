"""A small network with what deployment meets, for its tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from secateur.deploy import DeployReport


class Residual(nn.Module):
    """Two convolutions with a shortcut; activations, padding and sum are functions, names are odd."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.eins = nn.Conv2d(width, width, 3, bias=False)
        self.zwei = nn.BatchNorm2d(width)
        self.drei = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.vier = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.zwei(self.eins(F.pad(x, (1, 1, 1, 1)))))
        return F.relu6(self.vier(self.drei(inner)) + x)


class Network(nn.Module):
    """Images (batch, 3, 8, 8) to scores (batch, 5)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.act = nn.ReLU()
        self.block = Residual(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.act(self.stem(x))).mean((2, 3)))


def network() -> Network:
    """The same random weights and statistics every time, negative factors among them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Network()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Random images."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@dataclass
class Quantised:
    """The model in float, with quantisation simulated, and deployed."""

    original: nn.Module
    simulated: nn.Module
    report: DeployReport
