"""Blocks that take statistics over their own channels, or scale by their number."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class Normalised(Block):
    """What is taken over the channels: norms, sums, extremes, softmax."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how, self.inner = how, out
        self.conv = nn.Conv2d(width, out, 1)
        self.gamma = nn.Parameter(torch.zeros(1, out, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, out, 1, 1))
        self.local = nn.LocalResponseNorm(3)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.how == "normalize":
            return F.normalize(y, dim=1)
        if self.how == "norm":
            return y / (y.norm(dim=1, keepdim=True) + 1e-3)
        if self.how == "sum":
            return y * y.sum(1, keepdim=True).sigmoid()
        if self.how == "mean_by_hand":
            return y - y.sum(1, keepdim=True) / y.shape[1]
        if self.how == "root_of_width":
            return y * y.shape[1] ** -0.5
        if self.how == "root_of_attribute":
            return y / math.sqrt(self.inner)
        if self.how == "global_response":
            energy = y.norm(p=2, dim=(2, 3), keepdim=True)
            return self.gamma * (y * energy / (energy.mean(dim=1, keepdim=True) + 1e-6)) + self.beta + y
        if self.how == "softmax":
            return y.softmax(dim=1)
        return self.local(y) if self.how == "local" else self.changed(y)

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        if self.how == "maximum":
            return y - y.amax(1, keepdim=True)
        if self.how == "variance":
            return y / (y.var(dim=1, keepdim=True, unbiased=False) + 1e-3).sqrt()
        if self.how == "clamp":
            return y.clamp(min=0.1)
        if self.how == "exp":
            return torch.exp(-y.square()) * self.gamma
        if self.how == "fill":
            return y.masked_fill(y < 0, 0.5)
        return y.square().mean((1, 2, 3), keepdim=True).sqrt() * y

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = (
            "normalize", "norm", "sum", "mean_by_hand", "root_of_width", "root_of_attribute",
            "global_response", "softmax", "local", "maximum", "variance", "clamp", "exp", "fill", "energy",
        )  # fmt: skip
        return {"out": chooser.width(), "how": chooser.pick(*ways)}


@block("sequence")
class Highway(Block):
    """Gates that are one minus another, ones beside the features, constants of their own."""

    def __init__(self, width: int, hidden: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.transform = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.up = nn.Linear(width + 1 if how == "ones" else width, hidden)
        self.down = nn.Linear(hidden, width)
        self.tied = nn.Parameter(torch.randn(hidden, width) * 0.3)
        self.bilinear = nn.Bilinear(width, width, hidden)
        self.prelu = nn.PReLU(hidden)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "highway":
            t = torch.sigmoid(self.gate(x))
            return t * F.relu(self.transform(x)) + (1 - t) * x
        if self.how == "lerp":
            return torch.lerp(x, self.transform(x), torch.sigmoid(self.gate(x)))
        if self.how == "ones":
            x1 = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
            return x + self.down(F.relu(self.up(x1)))
        if self.how == "autoencoder":
            return x + F.linear(F.relu(F.linear(x, self.tied)), self.tied.t())
        if self.how == "autoencoder_matmul":
            return (x @ self.tied.mT).relu() @ self.tied
        if self.how == "bilinear":
            return x + self.down(self.bilinear(x, self.transform(x)))
        if self.how == "prelu":
            h = self.up(x).transpose(1, 2)
            return self.down(self.prelu(h).transpose(1, 2))
        if self.how == "shifted":
            return x + self.down(self.up(x).cos())
        if self.how == "outer":
            h = self.up(x)
            return x + (h.unsqueeze(-1) * h.unsqueeze(-2)).sum(-1).matmul(self.tied)
        return self.down(self.up(x) + 1.0) - 0.5

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = (
            "highway", "lerp", "ones", "autoencoder", "autoencoder_matmul", "bilinear", "prelu", "shifted",
            "outer", "constants",
        )  # fmt: skip
        return {"hidden": chooser.width(), "how": chooser.pick(*ways)}
