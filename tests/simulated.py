"""A device that does not exist, whose times are known: for tests of everything that aims at a latency."""

import random
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import nn

from secateur.cost import LatencyTable

STEP = 16
OVERHEAD = 2e-6


def stairs(*widths: int) -> float:
    """Seconds of a product of widths, each rounded up to whole steps."""
    return 1e-9 * prod(-(-width // STEP) * STEP for width in widths)


def simulated_seconds(model: nn.Module) -> float:
    """What a chain of linear layers takes: staircases, caches that slow large ones down, an overhead."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(OVERHEAD + 1.3 * stairs(layer.in_features, layer.out_features) ** 1.05 for layer in layers)


class SimulatedTable(LatencyTable):
    """Operator times without caches and overhead, so predictions are off, as real ones are.

    ``noise`` is the deviation of a measurement of a whole model, as a share of it.
    """

    def __init__(self, noise: float = 0.0, **settings: Any) -> None:
        super().__init__((), **settings)
        self.noise = random.Random(0), noise
        self.models: list[nn.Module] = []

    def __call__(self, model: nn.Module) -> float:
        return simulated_seconds(model)

    def share(self, model: nn.Module, whole: nn.Module) -> float:
        self.models.append(model)
        draw, deviation = self.noise
        return simulated_seconds(model) / simulated_seconds(whole) * (1 + draw.gauss(0, deviation))

    def time(self, call: Any, sizes: Mapping[Any, int]) -> float:
        if call.node.op is not torch.ops.aten.linear.default:
            return 1e-9
        return stairs(*call.shape(call.node.inputs[1], sizes))


class Stopwatch:
    """A clock that goes on only when told, and slower by the minute: a machine that gets busy."""

    def __init__(self, slowing: float = 0.0) -> None:
        self.now, self.speed, self.slowing = 0.0, 1.0, slowing

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.speed += self.slowing
        self.now += seconds * self.speed


class Spending(nn.Module):
    """A model that takes exactly so long by a stopwatch, or what a function says at each call."""

    def __init__(self, watch: Stopwatch, seconds: float | Callable[[], float]) -> None:
        super().__init__()
        self.watch = watch
        self.seconds = seconds if callable(seconds) else lambda: seconds

    def forward(self, x: Any) -> Any:
        self.watch.spend(self.seconds())
        return x
