"""Blocks that use parameters and buffers directly in ``forward``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ._base import Block, Chooser, block, divisors


@block("image")
class Functional(Block):
    """A convolution whose weight is a parameter of this module, sometimes standardised first."""

    def __init__(self, width: int, out: int, groups: int, how: str) -> None:
        super().__init__()
        self.groups, self.how = groups, how
        self.weight = nn.Parameter(torch.randn(out, width // groups, 3, 3) * 0.2)
        self.bias = nn.Parameter(torch.zeros(out))
        self.gain = nn.Parameter(torch.ones(out, 1, 1, 1))
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if self.how == "standard":
            mean = weight.mean(dim=(1, 2, 3), keepdim=True)
            weight = (weight - mean) / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5) * self.gain
        elif self.how == "gain":
            weight = weight * self.gain
        elif self.how == "flipped":
            weight = weight + weight.flip(-1)
        return F.conv2d(x, weight, self.bias, padding=1, groups=self.groups)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        groups = chooser.pick(*divisors(width))
        return {
            "out": groups * chooser.pick(*range(1, max(2, 7 // groups))),
            "groups": groups,
            "how": chooser.pick("plain", "gain", "standard", "flipped"),
        }


@block("image")
class Parametrized(Block):
    """Weight norm and spectral norm."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        conv = nn.Conv2d(width, out, 3, padding=1)
        wrap = {"weight": parametrizations.weight_norm, "spectral": parametrizations.spectral_norm}[how]
        self.conv = wrap(conv)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "how": chooser.pick("weight", "spectral")}


@block("image")
class Affine(Block):
    """Parameters and buffers that broadcast over an image."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))
        self.shift = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(torch.randn(1, width, 8, 8) * 0.1)
        self.register_buffer("gain", torch.rand(width) + 0.5)
        self.register_buffer("offset", torch.randn(1, width, 1, 1))
        self.table = torch.rand(width, 1, 1) + 0.5
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "affine":
            return x * self.scale + self.shift[None, :, None, None]
        if self.how == "position":
            return x + self.position
        if self.how == "buffer":
            return x * self.gain.view(1, -1, 1, 1)
        if self.how == "buffer_added":
            return F.relu(x + self.offset)
        if self.how == "attribute":
            return x / self.table.to(x.dtype)
        if self.how == "add_":
            return (x * self.scale).add_(self.shift.view(-1, 1, 1))
        return torch.addcmul(self.shift.view(1, -1, 1, 1), x, self.scale)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("affine", "position", "buffer", "buffer_added", "attribute", "add_", "addcmul")
        return {"how": chooser.pick(*ways)}


@block("image")
class Mixed(Block):
    """Channels mixed by a parameter matrix, in the many ways of writing a matrix product."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how, self.out = how, out
        self.matrix = nn.Parameter(torch.randn(out, width) * 0.3)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        if self.how == "einsum":
            return torch.einsum("oc,bchw->bohw", self.matrix, x)
        if self.how == "einsum_dots":
            return torch.einsum("b...c,oc->b...o", x.movedim(1, -1), self.matrix).movedim(-1, 1)
        if self.how == "matmul":
            return (self.matrix @ x.flatten(2)).view(b, self.out, h, w)
        if self.how == "bmm":
            return torch.bmm(self.matrix.expand(b, -1, -1), x.view(b, c, h * w)).view(b, -1, h, w)
        if self.how == "tensordot":
            return torch.tensordot(x, self.matrix, dims=([1], [1])).permute(0, 3, 1, 2)
        return F.linear(x.permute(0, 2, 3, 1), self.matrix).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("linear", "einsum", "einsum_dots", "matmul", "bmm", "tensordot")
        return {"out": chooser.width(), "how": chooser.pick(*ways)}


@block("image")
class Padded(Block):
    """The parameter-free shortcut of the first ResNet: channels of zeros beside the given ones."""

    def __init__(self, width: int, more: int, before: bool, how: str) -> None:
        super().__init__()
        self.more, self.before, self.how = more, before, how
        self.conv = nn.Conv2d(width, width + more, 3, padding=1)
        self.out_width = width + more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv(x)
        if self.how == "pad":
            sides = (self.more, 0) if self.before else (0, self.more)
            shortcut = F.pad(x, (0, 0, 0, 0, *sides))
        else:
            zeros = torch.zeros(x.shape[0], self.more, *x.shape[2:], dtype=x.dtype, device=x.device)
            shortcut = torch.cat([zeros, x] if self.before else [x, zeros], 1)
        return F.relu(shortcut + made)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "more": chooser.width(1, 4),
            "before": chooser.pick(False, True),
            "how": chooser.pick("pad", "cat"),
        }
