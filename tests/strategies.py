"""Hypothesis strategies: random networks, with inputs that they run on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from networks import BLOCKS, Block, Spec, build

LENGTH = 6
SIZE = 8


@dataclass(frozen=True)
class Recipe:
    """Everything that a random network is made of. Its ``repr`` builds it again."""

    kind: str
    width: int
    blocks: list[Spec] = field(default_factory=list)
    stem: str = "plain"
    head: str = "pool"

    def build(self) -> Network:
        """The network in float64, with torch's initialisation from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Network(self).double()

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Positional inputs for it."""
        generator = torch.Generator().manual_seed(1)
        if self.kind == "image":
            return (torch.randn(2, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),)
        if self.stem == "plain":
            return (torch.randn(2, LENGTH, 5, generator=generator, dtype=torch.float64),)
        return (torch.randint(0, 11, (2, LENGTH), generator=generator),)


class Network(nn.Module):
    """A stem, some blocks, a head."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.kind, self.head = recipe.kind, recipe.head
        image = recipe.kind == "image"
        if image:
            self.stem: nn.Module = nn.Conv2d(3, recipe.width, 3, padding=1)
        elif recipe.stem == "plain":
            self.stem = nn.Linear(5, recipe.width)
        else:
            self.stem = nn.Embedding(11, recipe.width)
        self.body = build(recipe.blocks, recipe.width)
        made = self.body.out_width
        flat = made * (SIZE // 2) ** 2 if image else made * LENGTH
        self.pool = nn.MaxPool2d(2)
        self.classifier: nn.Module = nn.Linear(flat if recipe.head == "flatten" else made, 3)
        if recipe.head == "tied":
            self.classifier = nn.Linear(recipe.width, 11, bias=False)
            self.narrow = nn.Linear(made, recipe.width)
            self.classifier.weight = self.stem.weight

    def forward(self, x: torch.Tensor) -> Any:
        x = self.body(self.stem(x))
        if self.head == "dict":
            return {"logits": self.classifier(self._pooled(x)), "features": x}
        if self.head == "flatten":
            return self.classifier(torch.flatten(self.pool(x) if self.kind == "image" else x, 1))
        if self.head == "tied":
            return self.classifier(self.narrow(x))
        return self.classifier(self._pooled(x))

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if self.kind == "image" else x[:, -1]


class HypothesisChooser:
    """Draws the settings of blocks; ``depth`` bounds how deep blocks nest."""

    def __init__(self, draw: st.DrawFn, kind: str, depth: int = 2) -> None:
        self._draw = draw
        self._kind = kind
        self._depth = depth

    def pick(self, *options: Any) -> Any:
        """One of ``options``; shrinks to the first."""
        return self._draw(st.sampled_from(options))

    def width(self, least: int = 2, most: int = 8) -> int:
        """A number of channels."""
        return self._draw(st.integers(least, most))

    def inside(self, width: int) -> tuple[list[Spec], int]:
        """Up to two blocks, less deep."""
        if not self._depth:
            return [], width
        return HypothesisChooser(self._draw, self._kind, self._depth - 1).blocks(width, 0, 2)

    def blocks(self, width: int, least: int, most: int) -> tuple[list[Spec], int]:
        """Some blocks in a row, and the width that they end at."""
        specs: list[Spec] = []
        for _ in range(self._draw(st.integers(least, most))):
            name = self.pick(*BLOCKS[self._kind])
            cls: type[Block] = BLOCKS[self._kind][name]
            settings = cls.draw(self, width)
            specs.append((name, settings))
            with torch.random.fork_rng(devices=[]):
                width = build([(name, settings)], width).out_width
        return specs, width


@st.composite
def networks(draw: st.DrawFn, kind: str, most: int = 4) -> Recipe:
    """Recipes of networks of one kind, ``"image"`` or ``"sequence"``."""
    chooser = HypothesisChooser(draw, kind)
    width = chooser.width()
    blocks, _ = chooser.blocks(width, 1, most)
    stem = chooser.pick("plain", "embedding") if kind == "sequence" else "plain"
    heads = ["pool", "flatten", "dict"] + (["tied"] if stem == "embedding" else [])
    return Recipe(kind, width, blocks, stem, chooser.pick(*heads))
