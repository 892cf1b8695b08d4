"""Attention over the positions and the channels of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class ImageAttention(Block):
    """Self-attention between the pixels of a small image, with 1x1 convolutions as projections."""

    def __init__(self, width: int, heads: int, head_dim: int, how: str) -> None:
        super().__init__()
        self.heads, self.head_dim, self.how = heads, head_dim, how
        self.scale = head_dim**-0.5
        self.pool = nn.AvgPool2d(2)
        self.qkv = nn.Conv2d(width, heads * head_dim * 3, 1)
        self.local = nn.Conv2d(heads * head_dim, heads * head_dim, 3, padding=1, groups=heads * head_dim)
        self.proj = nn.Conv2d(heads * head_dim, width, 1)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        y = self.qkv(self.pool(x))
        n = (h // 2) * (w // 2)
        if self.how == "split":
            q, k, v = y.view(b, self.heads, -1, n).split([self.head_dim] * 3, dim=2)
            out = v @ ((q.transpose(-2, -1) @ k) * self.scale).softmax(-1).transpose(-2, -1)
        elif self.how == "chunk":
            q, k, v = (t.reshape(b, self.heads, self.head_dim, n) for t in y.chunk(3, 1))
            out = torch.einsum(
                "bhij,bhcj->bhci", torch.einsum("bhci,bhcj->bhij", q * self.scale, k).softmax(-1), v
            )
        else:
            q, k, v = y.view(b, 3, self.heads, self.head_dim, n).transpose(-1, -2).unbind(1)
            out = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        out = out.reshape(b, -1, h // 2, w // 2)
        out = out + self.local(v.reshape(b, -1, h // 2, w // 2)) if self.how != "fused" else out
        return x + F.interpolate(self.proj(out), scale_factor=2, mode="nearest")

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "heads": chooser.pick(2, 1, 3),
            "head_dim": chooser.width(2, 4),
            "how": chooser.pick("split", "chunk", "fused"),
        }


@block("image")
class SpatialGate(Block):
    """CBAM's gate: mean and maximum over the channels decide for each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(1)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, most = x.mean(1, keepdim=True), torch.max(x, 1)[0].unsqueeze(1)
        return x * torch.sigmoid(self.bn(self.conv(torch.cat((mean, most), dim=1))))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {}


@block("image")
class Selected(Block):
    """Selective kernels: two paths weighted, channel by channel, by a softmax between them."""

    def __init__(self, width: int, out: int, hidden: int, how: str) -> None:
        super().__init__()
        self.out, self.how = out, how
        self.paths = nn.ModuleList(nn.Conv2d(width, out, k, padding=k // 2) for k in (1, 3))
        self.reduce = nn.Conv2d(out, hidden, 1)
        self.bn = nn.BatchNorm2d(hidden)
        self.select = nn.Conv2d(hidden, 2 * out, 1)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = x.shape[0]
        paths = torch.stack([path(x) for path in self.paths], dim=1)
        gap = paths.sum(1).mean((2, 3), keepdim=True)
        weights = self.select(F.relu(self.bn(self.reduce(gap))))
        if self.how == "view":
            weights = weights.view(b, 2, self.out, 1, 1)
        else:
            weights = weights.reshape(b, 2, -1)[..., None, None]
        return (paths * weights.softmax(1)).sum(dim=1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "hidden": chooser.width(), "how": chooser.pick("view", "reshape")}


@block("image")
class LocalChannels(Block):
    """Efficient channel attention: a convolution along the channels themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * y.sigmoid()

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {}
