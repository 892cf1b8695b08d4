"""Attention, in the ways that libraries write it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import SEQUENCE_NORMS, Block, Chooser, block


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: str, scale: float) -> torch.Tensor:
    """(batch, heads, length, features) attention: by torch, or written out."""
    if how == "fused":
        return F.scaled_dot_product_attention(q, k, v)
    if how == "fused_scaled":
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if how == "causal":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if how == "root_of_size":
        return (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1) @ v
    if how == "einsum":
        scores = torch.einsum("bhid,bhjd->bhij", q * scale, k)
        return torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v)
    scores = torch.matmul(q * scale, k.transpose(-1, -2))
    return torch.matmul(F.softmax(scores, dim=-1), v)


WAYS = ("fused", "by_hand", "fused_scaled", "causal", "root_of_size", "einsum")


@block("sequence")
class FusedAttention(Block):
    """One projection to queries, keys and values, taken apart in five ways."""

    def __init__(
        self, width: int, heads: int, head_dim: int, split: str, how: str, bias: bool, norm: str
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, head_dim
        self.inner_dim = heads * head_dim
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(width, 3 * self.inner_dim, bias=bias)
        self.q_norm, self.k_norm = SEQUENCE_NORMS[norm](head_dim), SEQUENCE_NORMS[norm](head_dim)
        self.proj = nn.Linear(self.inner_dim, width)
        self.split, self.how = split, how
        self.out_width = width

    def heads(self, x: torch.Tensor) -> Any:
        b, n, _ = x.shape
        if self.split == "reshape_unbind":
            return (
                self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            )
        if self.split == "reshape_index":
            qkv = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            return qkv[0], qkv[1], qkv[2]
        if self.split == "heads_first":
            qkv = self.qkv(x).view(b, n, self.num_heads, 3 * self.head_dim).transpose(1, 2)
            return qkv.chunk(3, dim=-1)
        if self.split == "split":
            parts = self.qkv(x).split(self.inner_dim, dim=2)
        elif self.split == "unflatten":
            return [t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)]
        else:
            parts = self.qkv(x).chunk(3, dim=-1)
        return [t.view(b, n, self.num_heads, self.head_dim).transpose(1, 2) for t in parts]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.heads(x)
        out = attend(self.q_norm(q), self.k_norm(k), v, self.how, self.scale)
        return x + self.proj(out.transpose(1, 2).reshape(b, n, self.inner_dim))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("reshape_unbind", "chunk", "reshape_index", "heads_first", "split", "unflatten")
        return {
            "heads": chooser.pick(2, 1, 3, 4),
            "head_dim": chooser.width(2, 4),
            "split": chooser.pick(*ways),
            "how": chooser.pick(*WAYS),
            "bias": chooser.pick(True, False),
            "norm": chooser.pick("none", "layer", "rms", "rms_by_hand"),
        }


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, by halves."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


@block("sequence")
class GroupedAttention(Block):
    """Separate projections, fewer key/value heads than query heads, rotary positions."""

    def __init__(
        self, width: int, kv_heads: int, repeats: int, head_dim: int, value_dim: int, repeat: str,
        how: str, rotary: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = kv_heads * repeats, kv_heads, head_dim
        self.num_key_value_groups = repeats
        self.q_proj = nn.Linear(width, self.num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * value_dim)
        self.o_proj = nn.Linear(self.num_heads * value_dim, width, bias=False)
        self.value_dim, self.repeat, self.how, self.rotary = value_dim, repeat, how, rotary
        if rotary:
            frequency = 1.0 / 100 ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
            self.register_buffer("inv_freq", frequency, persistent=False)
        self.out_width = width

    def repeated(self, x: torch.Tensor) -> torch.Tensor:
        b, heads, length, dim = x.shape
        if self.num_key_value_groups == 1:
            return x
        if self.repeat == "interleave":
            return x.repeat_interleave(self.num_key_value_groups, dim=1)
        x = x[:, :, None, :, :].expand(b, heads, self.num_key_value_groups, length, dim)
        return x.reshape(b, heads * self.num_key_value_groups, length, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, n, -1, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.num_kv_heads, self.value_dim).transpose(1, 2)
        if self.rotary:
            angles = torch.arange(n, device=x.device)[:, None] * self.inv_freq[None, :]
            angles = torch.cat((angles, angles), dim=-1).to(x.dtype)
            q, k = rotate(q, angles.cos(), angles.sin()), rotate(k, angles.cos(), angles.sin())
        if self.repeat == "native":
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.num_key_value_groups > 1)
        else:
            out = attend(q, self.repeated(k), self.repeated(v), self.how, self.head_dim**-0.5)
        return x + self.o_proj(out.transpose(1, 2).contiguous().view(b, n, -1))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        head_dim = chooser.pick(4, 2, 6)
        return {
            "kv_heads": chooser.pick(2, 1, 3),
            "repeats": chooser.pick(2, 1, 3),
            "head_dim": head_dim,
            "value_dim": chooser.pick(head_dim, 3),
            "repeat": chooser.pick("expand", "interleave", "native"),
            "how": chooser.pick(*WAYS),
            "rotary": chooser.pick(False, True),
        }


@block("sequence")
class TorchAttention(Block):
    """``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``."""

    def __init__(
        self, width: int, heads: int, head_dim: int, hidden: int, how: str, norm_first: bool
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.how = how
        self.enter, self.leave = nn.Linear(width, inner), nn.Linear(inner, width)
        if how == "layer":
            self.layer = nn.TransformerEncoderLayer(
                inner, heads, hidden, batch_first=True, norm_first=norm_first
            )
        elif how == "kdim":
            self.attn = nn.MultiheadAttention(inner, heads, kdim=width, vdim=width, batch_first=True)
        else:
            self.attn = nn.MultiheadAttention(
                inner, heads, bias=how != "no_bias", batch_first=how != "length_first"
            )
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        if self.how == "layer":
            return self.leave(self.layer(h))
        if self.how == "kdim":
            made, _ = self.attn(h, x, x)
        elif self.how == "length_first":
            h = h.transpose(0, 1)
            made = self.attn(h, h, h, need_weights=False)[0].transpose(0, 1)
        elif self.how == "masked":
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            made, _ = self.attn(h, h, h, attn_mask=mask, need_weights=False)
        else:
            made = self.attn(h, h, h)[0]
        return x + self.leave(made)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "heads": chooser.pick(2, 1, 3),
            "head_dim": chooser.width(2, 4),
            "hidden": chooser.width(),
            "how": chooser.pick("self", "layer", "kdim", "no_bias", "length_first", "masked"),
            "norm_first": chooser.pick(False, True),
        }


@block("sequence")
class LinearAttention(Block):
    """Attention without softmax over positions: kernel features, or between channels (XCiT)."""

    def __init__(self, width: int, heads: int, head_dim: int, how: str) -> None:
        super().__init__()
        self.num_heads, self.how = heads, how
        self.to_q = nn.Linear(width, heads * head_dim)
        self.to_kv = nn.Linear(width, 2 * heads * head_dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.proj = nn.Linear(heads * head_dim, width)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.to_q(x).reshape(b, n, self.num_heads, -1).permute(0, 2, 1, 3)
        k, v = self.to_kv(x).reshape(b, n, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if self.how == "kernel":
            q, k = F.relu(q), F.relu(k)
            out = q @ (k.transpose(-2, -1) @ v) / (n + 1)
        elif self.how == "normalised":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            out = (q @ (k.transpose(-2, -1) @ v)) / (q @ k.sum(-2, keepdim=True).transpose(-2, -1) + 1e-3)
        elif self.how == "channels":
            q, k = F.normalize(q, dim=-2), F.normalize(k, dim=-2)
            out = (
                ((q.transpose(-2, -1) @ k) * self.temperature).softmax(-1) @ v.transpose(-2, -1)
            ).transpose(-2, -1)
        else:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            out = ((q @ k.transpose(-2, -1)) * self.temperature.exp()).softmax(-1) @ v
        return x + self.proj(out.transpose(1, 2).reshape(b, n, -1))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "heads": chooser.pick(2, 1, 3),
            "head_dim": chooser.width(2, 4),
            "how": chooser.pick("kernel", "normalised", "channels", "cosine"),
        }


@block("sequence")
class Windows(Block):
    """Attention within windows, with a bias from a table of relative positions, for each head."""

    def __init__(self, width: int, heads: int, head_dim: int, window: int, shift: bool) -> None:
        super().__init__()
        self.heads, self.dim, self.window, self.shift = heads, head_dim, window, shift
        self.qkv = nn.Linear(width, heads * head_dim * 3)
        self.proj = nn.Linear(heads * head_dim, width)
        self.relative_position_bias_table = nn.Parameter(torch.randn(2 * window - 1, heads) * 0.1)
        positions = torch.arange(window)
        self.register_buffer("index", positions[:, None] - positions[None, :] + window - 1)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        y = torch.roll(x, -1, dims=1) if self.shift else x
        y = y.view(b, n // self.window, self.window, c).reshape(-1, self.window, c)
        qkv = self.qkv(y).reshape(-1, self.window, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = self.relative_position_bias_table[self.index.view(-1)]
        bias = bias.view(self.window, self.window, -1).permute(2, 0, 1).contiguous()
        scores = (q * self.dim**-0.5) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, self.window, self.heads * self.dim)
        y = self.proj(y).view(b, n, c)
        return x + (torch.roll(y, 1, dims=1) if self.shift else y)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "heads": chooser.pick(2, 1, 3),
            "head_dim": chooser.width(2, 4),
            "window": chooser.pick(2, 3),
            "shift": chooser.pick(False, True),
        }
