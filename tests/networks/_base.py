"""What all blocks share: the registry, and the interface to whatever chooses their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

Spec = tuple[str, dict[str, Any]]
"""Name of a block's class, and the keyword arguments to build it with."""


class Chooser(Protocol):
    """Chooses settings: in tests Hypothesis, so that failures shrink."""

    def pick(self, *options: Any) -> Any:
        """One of ``options``; simplest first."""
        ...

    def width(self, least: int = 2, most: int = 8) -> int:
        """A number of channels."""
        ...

    def inside(self, width: int) -> tuple[list[Spec], int]:
        """A few blocks of the same kind as the one that asks, and the width that they end at."""
        ...


class Block(nn.Module):
    """A block: maps ``width`` channels to ``out_width``, and leaves all other dimensions alone."""

    out_width: int

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        """Settings for an input of ``width`` channels."""
        raise NotImplementedError


BLOCKS: dict[str, dict[str, type[Block]]] = {"image": {}, "sequence": {}}


def block(*kinds: str) -> Callable[[type[Block]], type[Block]]:
    """Register a block for images (batch, width, height, width) or sequences (batch, length, width)."""

    def register(cls: type[Block]) -> type[Block]:
        for kind in kinds:
            BLOCKS[kind][cls.__name__] = cls
        return cls

    return register


def build(specs: Sequence[Spec], width: int) -> Block:
    """The blocks of ``specs``, one after the other, beginning at ``width`` channels."""
    known = {**BLOCKS["image"], **BLOCKS["sequence"]}
    return Chain([(known[name], settings) for name, settings in specs], width)


class Chain(Block):
    """Blocks in a row."""

    def __init__(self, parts: Sequence[tuple[type[Block], dict[str, Any]]], width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for cls, settings in parts:
            made = cls(width, **settings)
            self.blocks.append(made)
            width = made.out_width
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.blocks:
            x = part(x)
        return x


def divisors(number: int) -> list[int]:
    """All divisors, the smallest first."""
    return [n for n in range(1, number + 1) if number % n == 0]


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda width: nn.ReLU(),
    "relu_": lambda width: nn.ReLU(inplace=True),
    "gelu": lambda width: nn.GELU(),
    "silu_": lambda width: nn.SiLU(inplace=True),
    "sigmoid": lambda width: nn.Sigmoid(),
    "softplus": lambda width: nn.Softplus(),
    "hardswish_": lambda width: nn.Hardswish(inplace=True),
    "leaky": lambda width: nn.LeakyReLU(0.2),
    "tanh": lambda width: nn.Tanh(),
    "none": lambda width: nn.Identity(),
}


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image, as ConvNeXt has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RootMeanSquare(nn.Module):
    """RMSNorm written out, as language models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


IMAGE_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "none": lambda width: nn.Identity(),
    "group1": lambda width: nn.GroupNorm(1, width),
    "group": lambda width: nn.GroupNorm(divisors(width)[-1] if width < 4 else divisors(width)[1], width),
    "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
    "instance_tracking": lambda width: nn.InstanceNorm2d(width, affine=True, track_running_stats=True),
    "batch_plain": lambda width: nn.BatchNorm2d(width, affine=False),
    "channel": ChannelNorm,
}

SEQUENCE_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm,
    "none": lambda width: nn.Identity(),
    "rms": lambda width: nn.RMSNorm(width, eps=1e-5),
    "rms_by_hand": RootMeanSquare,
    "layer_plain": lambda width: nn.LayerNorm(width, elementwise_affine=False),
}
