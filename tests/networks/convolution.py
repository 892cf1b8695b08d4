"""Blocks of convolutional networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import ACTIVATIONS, IMAGE_NORMS, Block, Chooser, Spec, block, build, divisors


@block("image")
class ConvNorm(Block):
    """Convolution, norm, activation, in any order that people use."""

    def __init__(
        self, width: int, out: int, kernel: int = 3, groups: int = 1, bias: bool = False,
        norm: str = "batch", act: str = "relu", order: str = "cna",
    ) -> None:  # fmt: skip
        super().__init__()
        conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups, bias=bias)
        before = width if order.index("n") < order.index("c") else out
        parts = {"c": conv, "n": IMAGE_NORMS[norm](before), "a": ACTIVATIONS[act](out)}
        self.layers = nn.Sequential(*(parts[letter] for letter in order))
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        groups = chooser.pick(*divisors(width))
        return {
            "out": groups * chooser.pick(*range(1, max(2, 9 // groups))),
            "kernel": chooser.pick(1, 3),
            "groups": groups,
            "bias": chooser.pick(False, True),
            "norm": chooser.pick(*IMAGE_NORMS),
            "act": chooser.pick(*ACTIVATIONS),
            "order": chooser.pick("cna", "can", "nac"),
        }


@block("image")
class Depthwise(Block):
    """Depthwise convolution with a multiplier, then pointwise."""

    def __init__(self, width: int, out: int, multiplier: int, act: str) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.depthwise = nn.Conv2d(width, width * multiplier, 3, padding=1, groups=width)
        self.bn = nn.BatchNorm2d(width * multiplier)
        self.act = ACTIVATIONS[act](width)
        self.pointwise = nn.Conv2d(width * multiplier, out, 1)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.act(self.bn(self.depthwise(x))))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "out": chooser.width(),
            "multiplier": chooser.pick(1, 2, 3),
            "act": chooser.pick(*ACTIVATIONS),
        }


@block("image")
class Upsampled(Block):
    """Transposed convolution up, strided or pooled down again."""

    def __init__(self, width: int, out: int, groups: int, down: str, bias: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, out, 2, stride=2, groups=groups, bias=bias)
        downs = {
            "max": nn.MaxPool2d(2),
            "average": nn.AvgPool2d(2),
            "conv": nn.Conv2d(out, out, 3, stride=2, padding=1),
            "depthwise": nn.Conv2d(out, out, 2, stride=2, groups=out),
        }
        self.down = downs[down]
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu_(self.up(x)))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        groups = chooser.pick(*divisors(width))
        return {
            "out": groups * chooser.pick(*range(1, max(2, 7 // groups))),
            "groups": groups,
            "down": chooser.pick("max", "average", "conv", "depthwise"),
            "bias": chooser.pick(True, False),
        }


@block("image")
class Residual(Block):
    """``x + f(x)``, written in five ways, with or without a projection."""

    def __init__(self, width: int, inside: list[Spec], write: str, project: bool, after: str) -> None:
        super().__init__()
        self.body = build(inside, width)
        made = self.body.out_width
        self.back = nn.Conv2d(made, width, 1) if made != width else nn.Identity()
        self.shortcut = (
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)) if project else None
        )
        self.gamma = nn.Parameter(torch.full((width, 1, 1), 1e-2)) if write == "scaled" else None
        self.alpha = nn.Parameter(torch.zeros(1)) if write == "rezero" else None
        self.write = write
        self.act = ACTIVATIONS[after](width)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.back(self.body(x.clone()))
        if self.write == "inplace":
            out += identity
        elif self.write == "method":
            out = identity.add(out, alpha=0.5)
        elif self.gamma is not None:
            out = identity + self.gamma * out
        elif self.alpha is not None:
            out = torch.add(identity, self.alpha * out)
        else:
            out = out + identity
        return self.act(out)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "inside": chooser.inside(width)[0],
            "write": chooser.pick("plain", "inplace", "method", "scaled", "rezero"),
            "project": chooser.pick(False, True),
            "after": chooser.pick("none", *ACTIVATIONS),
        }


@block("image")
class SqueezeExcite(Block):
    """Channel gates from the mean over space."""

    def __init__(self, width: int, squeeze: int, gate: str, how: str) -> None:
        super().__init__()
        self.how = how
        kind = nn.Linear if how == "linear" else lambda a, b: nn.Conv2d(a, b, 1)
        self.reduce, self.expand = kind(width, squeeze), kind(squeeze, width)
        self.gate = {"sigmoid": nn.Sigmoid(), "hard": nn.Hardsigmoid(), "tanh": nn.Tanh()}[gate]
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "linear":
            b, c, _, _ = x.shape
            scale = self.expand(F.relu(self.reduce(x.mean((2, 3))))).view(b, c, 1, 1)
        elif self.how == "pool":
            scale = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)), inplace=True))
        else:
            scale = self.expand(F.relu(self.reduce(x.mean([-2, -1], keepdim=True))))
        scale = self.gate(scale)
        return x.mul_(scale) if self.how == "inplace" else scale * x

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "squeeze": chooser.width(1, 4),
            "gate": chooser.pick("sigmoid", "hard", "tanh"),
            "how": chooser.pick("pool", "linear", "inplace"),
        }


@block("image")
class Branches(Block):
    """Inception: several bodies and a pool, concatenated; or summed, weighted by a softmax."""

    def __init__(self, width: int, first: list[Spec], second: list[Spec], pool: bool, join: str) -> None:
        super().__init__()
        self.first, self.second = build(first, width), build(second, width)
        self.join = join
        a, b = self.first.out_width, self.second.out_width
        if join == "sum":
            self.match = nn.Conv2d(b, a, 1)
            self.mix = nn.Parameter(torch.zeros(2))
        self.pool = nn.MaxPool2d(3, 1, 1) if pool else None
        self.out_width = a if join == "sum" else a + b + (width if pool else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x.clone()), self.second(x.clone())]
        if self.join == "sum":
            weights = self.mix.softmax(0)
            return weights[0] * parts[0] + weights[1] * self.match(parts[1])
        if self.pool is not None:
            parts.append(self.pool(x))
        if self.join == "reversed":
            parts = parts[::-1]
        return torch.cat(parts, 1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "first": chooser.inside(width)[0],
            "second": chooser.inside(width)[0],
            "pool": chooser.pick(False, True),
            "join": chooser.pick("cat", "reversed", "sum"),
        }


@block("image")
class Dense(Block):
    """DenseNet: every layer reads all that came before."""

    def __init__(self, width: int, growth: int, layers: int, bottleneck: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(layers):
            given = width + index * growth
            middle = 2 * growth if bottleneck else growth
            parts = [nn.BatchNorm2d(given), nn.ReLU(inplace=True), nn.Conv2d(given, middle, 1, bias=False)]
            if bottleneck:
                parts += [nn.BatchNorm2d(middle), nn.ReLU(inplace=True)]
                parts += [nn.Conv2d(middle, growth, 3, padding=1, bias=False)]
            self.layers.append(nn.Sequential(*parts))
        self.out_width = width + layers * growth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "growth": chooser.width(1, 4),
            "layers": chooser.pick(1, 2, 3),
            "bottleneck": chooser.pick(False, True),
        }


@block("image")
class Shared(Block):
    """One module called twice, with a norm of its own for each call."""

    def __init__(self, width: int, groups: int, separate_norms: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2 if separate_norms else 1))
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in range(2):
            x = F.relu(self.norms[step % len(self.norms)](self.conv(x)))
        return x

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"groups": chooser.pick(*divisors(width)), "separate_norms": chooser.pick(False, True)}
