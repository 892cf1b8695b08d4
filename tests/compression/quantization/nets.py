"""What the tests of quantisers share: a residual network whose activation is called several times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from secateur.compression import TorchEvaluator


class Residual(nn.Module):
    """Two convolutions with norms, one ReLU for both, a sum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu, self.fc = nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.b1(self.c1(x)))
        x = self.relu(x + self.b2(self.c2(x)))
        return self.fc(x.mean((2, 3)))


def trained_like() -> Residual:
    """One with statistics, scales and shifts as after training."""
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        for norm in (net.b1, net.b2):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.1, 0.5)
    return net.eval()


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def entry(names: list[str], *targets: str, dtype: str = "int8", **more: Any) -> dict[str, Any]:
    chosen = list(targets) or ["_input_", "weight", "_output_"]
    return {"op_names": names, "target_names": chosen, "quant_dtype": dtype, **more}


FUSED = [("c1", "b1", "relu"), ("c2", "b2")]
EVERYTHING = [
    entry(
        ["c1", "c2", "fc"],
        fuse_names=FUSED,
        target_settings={"weight": {"granularity": "out_channel"}},
    )
]


def evaluator_for(net: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> TorchEvaluator:
    """Trains and evaluates on random images."""
    x = images(32)
    labels = torch.arange(32) % 5

    def train(model: nn.Module, optimizer: Any, step: Any, scheduler: Any, steps: Any, epochs: Any) -> None:
        model.train()
        for number in range(steps if steps is not None else 4 * epochs):
            part = slice(number % 4 * 8, number % 4 * 8 + 8)
            optimizer.zero_grad()
            step((x[part], labels[part]), model).backward()
            optimizer.step()

    def step(batch: Any, model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(model: nn.Module) -> float:
        return (model(x).argmax(1) == labels).float().mean().item()

    optimizer = optimizer or torch.optim.Adam(net.parameters(), 1e-3)
    return TorchEvaluator(train, optimizer, step, dummy_input=images(2), evaluating_func=evaluate)
