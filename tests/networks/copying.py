"""Blocks whose channels appear several times: repeated, interleaved, reversed, joined with themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class Copied(Block):
    """Channels copied in one of many ways, then mixed."""

    def __init__(self, width: int, out: int, times: int, how: str) -> None:
        super().__init__()
        self.times, self.how = times, how
        self.conv = nn.Conv2d(width * times, out, 1)
        self.scale = nn.Parameter(torch.ones(times, 1, 1, 1))
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        if self.how == "repeat":
            y = x.repeat(1, self.times, 1, 1)
        elif self.how == "tile":
            y = torch.tile(x, (self.times, 1, 1))
        elif self.how == "cat":
            y = torch.cat([x] * self.times, dim=1)
        elif self.how == "interleave":
            y = torch.repeat_interleave(x, self.times, dim=1)
        elif self.how == "expand":
            y = x.unsqueeze(1).expand(-1, self.times, -1, -1, -1).reshape(b, -1, h, w)
        elif self.how == "expand_inner":
            y = x[:, :, None].expand(b, c, self.times, h, w).flatten(1, 2)
        elif self.how == "stack":
            y = torch.stack([x, *[F.relu(x)] * (self.times - 1)], dim=2).flatten(1, 2)
        elif self.how == "stack_outer":
            y = torch.stack([x.tanh()] * self.times, 1).view(b, self.times * c, h, w)
        else:
            y = (x.unsqueeze(1) * self.scale).reshape(b, self.times * c, h, w)
        return self.conv(y)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = (
            "repeat",
            "tile",
            "cat",
            "interleave",
            "expand",
            "expand_inner",
            "stack",
            "stack_outer",
            "scaled",
        )
        return {"out": chooser.width(), "times": chooser.pick(2, 3), "how": chooser.pick(*ways)}


@block("image")
class Moved(Block):
    """Channels moved along their dimension, or taken by number, between two convolutions."""

    def __init__(self, width: int, inner: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.enter, self.leave = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.register_buffer("order", torch.arange(inner).flip(0))
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.enter(x))
        if self.how == "flip":
            y = y + y.flip(1)
        elif self.how == "roll":
            y = y + torch.roll(y, 1, dims=1)
        elif self.how == "index":
            y = y + y[:, self.order]
        elif self.how == "select":
            y = y * y[:, 0:1]
        elif self.how == "unbind":
            y = torch.stack(y.unbind(1)[::-1], 1)
        elif self.how == "shift":
            y = F.pad(y[:, 1:], (0, 0, 0, 0, 0, 1)) + y
        elif self.how == "even_odd":
            y = torch.cat([y[:, ::2], y[:, 1::2]], 1)
        else:
            y = torch.cumsum(y, 1)
        return x + self.leave(y)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("flip", "roll", "index", "select", "unbind", "shift", "even_odd", "cumsum")
        return {"inner": chooser.pick(4, 6), "how": chooser.pick(*ways)}


@block("image")
class Pieces(Block):
    """Channels taken apart into many pieces, of which some are summed, and some dropped."""

    def __init__(self, width: int, pieces: int, each: int, how: str) -> None:
        super().__init__()
        self.pieces, self.each, self.how = pieces, each, how
        self.enter = nn.Conv2d(width, pieces * each, 3, padding=1)
        self.bn = nn.BatchNorm2d(pieces * each)
        self.out_width = each

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.enter(x))
        b, _, h, w = y.shape
        if self.how == "sum_of_chunks":
            return sum(y.chunk(self.pieces, 1))
        if self.how == "sum_of_view":
            return y.view(b, self.pieces, self.each, h, w).sum(1)
        if self.how == "mean_of_view":
            return y.view(b, self.each, self.pieces, h, w).mean(2)
        if self.how == "first":
            return y.tensor_split(self.pieces, dim=1)[0]
        if self.how == "last":
            return y[:, -self.each :]
        if self.how == "product":
            parts = torch.split(y, self.each, 1)
            return torch.stack(parts).prod(0)
        parts = y.unflatten(1, (self.pieces, self.each))
        return torch.einsum("bpchw,bp->bchw", parts, parts.mean((2, 3, 4)).softmax(1))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("sum_of_chunks", "sum_of_view", "mean_of_view", "first", "last", "product", "weighted")
        return {"pieces": chooser.pick(2, 3, 4), "each": chooser.width(2, 5), "how": chooser.pick(*ways)}
