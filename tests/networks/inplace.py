"""Blocks that write into tensors: parts of them, views of them, themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class Written(Block):
    """One tensor made in pieces, or changed in a part."""

    def __init__(self, width: int, first: int, second: int, how: str) -> None:
        super().__init__()
        self.first, self.second, self.how = first, second, how
        self.a = nn.Conv2d(width, first, 1)
        self.b = nn.Conv2d(width, second if how in PIECES else first, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(first))
        self.out_width = first + second if how in PIECES else first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        one, two = self.a(x), self.b(x)
        if self.how in PIECES:
            made = x.new_empty(b, self.first + self.second, h, w) if self.how == "empty" else (
                torch.zeros(b, self.out_width, h, w, dtype=x.dtype)
            )  # fmt: skip
            if self.how == "copy":
                made[:, : self.first].copy_(one)
                made[:, self.first :].copy_(two)
            elif self.how == "add_":
                made[:, : self.first] += one
                made[:, self.first :] += two
            else:
                made[:, : self.first] = one
                made[:, self.first :] = two
            return made
        if self.how == "view":
            flat = one.view(b, self.first, -1)
            flat.add_(self.bias[:, None])
            return one * two
        if self.how == "mask":
            one[:, :, 0] = 0.0
            return one.masked_fill_(two < 0, 0.0)
        if self.how == "late":
            gate = torch.sigmoid(one)
            one.mul_(two)
            return one + gate
        if self.how == "chain":
            return F.relu_(one.sub_(two)).mul_(0.5).add_(two)
        if self.how == "rows":
            one[0] += two[1]
            return one
        if self.how == "where":
            return torch.where(one > 0, two, one * self.bias.view(1, -1, 1, 1))
        one[..., 1:, :] = two[..., :-1, :]
        return one

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("slices", "copy", "add_", "empty", "view", "mask", "late", "chain", "rows", "where", "shift")
        return {"first": chooser.width(2, 5), "second": chooser.width(2, 5), "how": chooser.pick(*ways)}


PIECES = ("slices", "copy", "add_", "empty")


@block("image")
class Counted(Block):
    """Keeps books in its buffers and attributes while it runs."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(width, width, 1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.cache: torch.Tensor | None = None
        self.seen = 0
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        self.seen += 1
        if self.how == "buffer":
            self.calls += 1
            self.mean.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
            return y
        if self.how == "replaced":
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(dim=(0, 2, 3))
            return F.relu(y)
        if self.cache is None or self.cache.shape != y.shape[1:]:
            self.cache = torch.ones_like(y[0])
        return y + self.cache

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"how": chooser.pick("buffer", "replaced", "cache")}


@block("sequence")
class Turned(Block):
    """A tensor gets other dimensions in place: the variable goes on, what it stands for is another."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.inner, self.outer = nn.Linear(width, out), nn.Linear(out, out)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        if self.how == "transpose":
            x.transpose_(1, 2)
            x.mul_(0.5)
            x.swapaxes_(1, 2)
        elif self.how == "squeeze":
            x.unsqueeze_(1).unsqueeze_(-1)
            x = x * 2.0
            x.squeeze_()
        elif self.how == "t":
            rows = x.flatten(0, 1)
            rows.t_()
            x = torch.einsum("cn,dc->nd", rows, self.outer.weight).view_as(x)
        else:
            batch, length, _ = x.shape
            x.resize_(batch * length, x.shape[-1])
            x = x.unflatten(0, (batch, length))
        return self.outer(x)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "how": chooser.pick("transpose", "squeeze", "t", "resize")}
