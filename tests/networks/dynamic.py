"""Blocks whose weights are computed, and that compute in other domains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class Dynamic(Block):
    """Convolutions with weights from a mixture, from a network, or cut out of a bigger one."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how, self.width, self.out = how, width, out
        self.bank = nn.Parameter(torch.randn(2, out, width, 3, 3) * 0.2)
        self.route = nn.Linear(width, 2)
        self.maker = nn.Linear(width, width * 9)
        self.large = nn.Parameter(torch.randn(out + 3, width + 2, 1, 1) * 0.2)
        self.point = nn.Conv2d(width, out, 1)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        mean = x.mean((2, 3))
        if self.how == "mixture":
            weights = self.route(mean).softmax(-1)
            kernel = torch.einsum("bk,kocij->bocij", weights, self.bank).reshape(-1, c, 3, 3)
            y = F.conv2d(x.reshape(1, b * c, h, w), kernel, padding=1, groups=b)
            return y.view(b, self.out, h, w)
        if self.how == "shared_mixture":
            weights = self.route(mean.mean(0)).softmax(-1)
            return F.conv2d(x, (weights.view(2, 1, 1, 1, 1) * self.bank).sum(0), padding=1)
        if self.how == "depthwise":
            kernel = self.maker(mean).view(b * c, 1, 3, 3)
            y = F.conv2d(x.contiguous().view(1, b * c, h, w), kernel, padding=1, groups=b * c)
            return self.point(y.view(b, c, h, w))
        if self.how == "slimmed":
            return F.conv2d(x, self.large[: self.out, : self.width])
        if self.how == "cosine":
            weight = F.normalize(self.bank[0].flatten(1), dim=1).view(self.out, self.width, 3, 3)
            return F.conv2d(x, weight, padding=1)
        return F.conv2d(x, self.bank.mean(0), padding=1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("mean", "mixture", "shared_mixture", "depthwise", "slimmed", "cosine")
        return {"out": chooser.width(), "how": chooser.pick(*ways)}


@block("image")
class Elsewhere(Block):
    """Computes with patches, frequencies, outer products, sampled positions."""

    def __init__(self, width: int, inner: int, how: str) -> None:
        super().__init__()
        self.how, self.inner = how, inner
        self.enter = nn.Conv2d(width, inner, 1)
        self.patches = nn.Parameter(torch.randn(inner, inner * 9) * 0.1)
        self.filter = nn.Parameter(torch.randn(inner, 8, 5, 2) * 0.1)
        self.gram = nn.Linear(inner * inner, inner)
        self.leave = nn.Conv2d(inner, width, 1)
        self.pool = nn.MaxPool2d(2)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.enter(x)
        b, c, h, w = y.shape
        if self.how == "unfold":
            columns = F.unfold(y, 3, padding=1)
            y = torch.matmul(self.patches, columns).view(b, -1, h, w)
        elif self.how == "frequency":
            y = torch.fft.irfft2(torch.fft.rfft2(y) * torch.view_as_complex(self.filter), s=(h, w))
        elif self.how == "channel_frequency":
            y = y + torch.fft.fft(y, dim=1).real
        elif self.how == "gram":
            flat = y.flatten(2)
            y = y * self.gram((flat @ flat.transpose(1, 2)).flatten(1)).sigmoid()[:, :, None, None]
        elif self.how == "sample":
            grid = F.affine_grid(
                torch.eye(2, 3, dtype=x.dtype).expand(b, -1, -1), [b, c, h, w], align_corners=False
            )
            y = F.grid_sample(y, grid, align_corners=False)
        elif self.how == "distance":
            flat = y.flatten(2).transpose(1, 2)
            y = y + torch.cdist(flat, flat).mean(-1).view(b, 1, h, w)
        elif self.how == "resize":
            y = F.interpolate(self.pool(y), size=(h, w), mode="bilinear", align_corners=False)
        elif self.how == "max_unpool":
            small, where = F.max_pool2d(y, 2, return_indices=True)
            y = F.max_unpool2d(small, where, 2)
        else:
            y = F.pad(y, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 3:]
            y = F.pad(y, (1, 0))
        return x + self.leave(y)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = (
            "unfold", "frequency", "gram", "sample", "distance", "resize", "max_unpool", "pad",
            "channel_frequency",
        )  # fmt: skip
        return {"inner": chooser.width(2, 6), "how": chooser.pick(*ways)}


@block("image")
class Geometry(Block):
    """Convolutions with every padding, dilation and stride."""

    def __init__(self, width: int, out: int, mode: str, dilation: int, transposed: bool) -> None:
        super().__init__()
        if transposed:
            self.conv: nn.Module = nn.ConvTranspose2d(width, out, 3, padding=dilation, dilation=dilation)
        else:
            padding = "same" if mode == "same" else dilation
            mode = "zeros" if mode == "same" else mode
            self.conv = nn.Conv2d(width, out, 3, padding=padding, dilation=dilation, padding_mode=mode)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.conv(x))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "out": chooser.width(),
            "mode": chooser.pick("zeros", "same", "reflect", "replicate", "circular"),
            "dilation": chooser.pick(1, 2),
            "transposed": chooser.pick(False, True),
        }
