"""More attention: parameters for each head, heads folded into the batch, other tensors to attend to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("sequence")
class HeadParameters(Block):
    """Attention with something learned or fixed for every head."""

    def __init__(self, width: int, heads: int, head_dim: int, how: str) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.how = heads, head_dim, how
        self.query = nn.Linear(width, heads * head_dim)
        self.key = nn.Linear(width, heads * head_dim)
        self.value = nn.Linear(width, heads * head_dim)
        self.out = nn.Linear(heads * head_dim, width)
        self.register_buffer("slopes", torch.rand(heads, 1, 1))
        self.head_scale = nn.Parameter(torch.ones(heads))
        self.talk = nn.Linear(heads, heads)
        self.talk_conv = nn.Conv2d(heads, heads, 1)
        self.u = nn.Parameter(torch.zeros(heads, 1, head_dim))
        self.sink = nn.Parameter(torch.zeros(1, heads, 1, 1))
        self.norm = nn.LayerNorm(heads * head_dim)
        self.group = nn.GroupNorm(heads, heads * head_dim)
        self.out_width = width

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.n_heads, self.d_head).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.how == "norm_over_heads":
            q, k = self.norm(q), self.norm(k)
        q, k, v = self.split(q), self.split(k), self.split(v)
        if self.how == "query_bias":
            q = q + self.u
        scores = q @ k.transpose(-1, -2) / self.d_head**0.5
        if self.how == "slopes":
            scores = scores + self.slopes * torch.arange(n, dtype=x.dtype)
        if self.how == "talking":
            scores = self.talk(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.how == "talking_conv":
            scores = self.talk_conv(scores)
        if self.how == "sink":
            scores = torch.cat([scores, self.sink.expand(b, -1, n, -1)], dim=-1)
        weights = scores.softmax(-1)
        if self.how == "sink":
            weights = weights[..., :-1]
        if self.how == "head_mask":
            weights = weights * self.head_scale.view(1, -1, 1, 1)
        made = weights @ v
        if self.how == "head_scale":
            made = torch.einsum("bhnd,h->bhnd", made, self.head_scale)
        made = made.transpose(1, 2).reshape(b, n, -1)
        if self.how == "group_norm":
            made = self.group(made.flatten(0, 1)).view(b, n, -1)
        return x + self.out(made)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = (
            "slopes", "head_scale", "head_mask", "talking", "talking_conv", "query_bias", "sink",
            "norm_over_heads", "group_norm",
        )  # fmt: skip
        return {"heads": chooser.pick(2, 3, 4), "head_dim": chooser.width(2, 4), "how": chooser.pick(*ways)}


@block("sequence")
class Folded(Block):
    """Heads in the batch dimension, and fused projections with parts of unequal size."""

    def __init__(self, width: int, heads: int, head_dim: int, how: str) -> None:
        super().__init__()
        self.heads, self.dim, self.how = heads, head_dim, how
        self.norm_factor = head_dim**-0.5
        rows = {"multi_query": heads + 2, "latent": heads}.get(how, 3 * heads) * head_dim
        self.qkv = nn.Linear(width, rows)
        self.split_size = heads * head_dim
        if how == "latent":
            self.down = nn.Linear(width, 3 + 2)
            self.latent_norm = nn.LayerNorm(3)
            self.up = nn.Linear(3, heads * 2 * head_dim)
            self.rope = nn.Linear(2, head_dim)
        self.dense = nn.Linear(heads * head_dim, width)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        fused = self.qkv(x)
        if self.how == "latent":
            q = fused.view(b, n, self.heads, self.dim).transpose(1, 2)
            latent, position = self.down(x).split([3, 2], dim=-1)
            k, v = (
                self.up(self.latent_norm(latent))
                .view(b, n, self.heads, -1)
                .transpose(1, 2)
                .split(self.dim, -1)
            )
            k = k + self.rope(position).unsqueeze(1)
            made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        elif self.how == "multi_query":
            q, k, v = fused.split([self.heads * self.dim, self.dim, self.dim], dim=-1)
            q = q.view(b, n, self.heads, self.dim).transpose(1, 2)
            k, v = k.unsqueeze(1), v.unsqueeze(1)
            made = ((q @ k.mT * self.norm_factor).softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1)
        elif self.how == "batched":
            q, k, v = fused.view(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            q, k, v = (t.reshape(b * self.heads, n, self.dim) for t in (q, k, v))
            scores = torch.baddbmm(
                torch.zeros(1, n, n, dtype=x.dtype), q, k.transpose(1, 2), beta=0, alpha=self.norm_factor
            )
            made = torch.bmm(scores.softmax(-1), v)
            made = (
                made.view(b, self.heads, n, self.dim).permute(0, 2, 1, 3).reshape(b, n, self.heads * self.dim)
            )
        elif self.how == "interleaved":
            fused = fused.view(b, n, self.heads, 3, self.dim)
            q, k, v = (
                fused[..., 0, :].transpose(1, 2),
                fused[..., 1, :].transpose(1, 2),
                fused[..., 2, :].transpose(1, 2),
            )
            made = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).contiguous().view(b, n, -1)
        else:
            q, k, v = fused.split(self.split_size, dim=2)
            shape = (b, n, self.heads, self.dim)
            q, k, v = (
                q.view(shape).transpose(1, 2),
                k.view(shape).transpose(1, 2),
                v.view(shape).transpose(1, 2),
            )
            made = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=True)
            made = made.transpose(1, 2).contiguous().view(b, n, self.split_size)
        return x + self.dense(made)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("split", "batched", "interleaved", "multi_query", "latent")
        return {"heads": chooser.pick(2, 1, 3), "head_dim": chooser.width(2, 4), "how": chooser.pick(*ways)}


@block("sequence")
class Crossed(Block):
    """Attention between the sequence and learned tokens, by torch's layers or by hand."""

    def __init__(self, width: int, tokens: int, heads: int, head_dim: int, how: str) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads, self.how = heads, how
        self.latents = nn.Parameter(torch.randn(tokens, inner))
        self.enter = nn.Linear(width, inner)
        if how == "decoder":
            self.layer = nn.TransformerDecoderLayer(inner, heads, 5, batch_first=True)
        elif how == "torch":
            self.layer = nn.MultiheadAttention(inner, heads, batch_first=True)
        self.q, self.kv = nn.Linear(inner, inner), nn.Linear(inner, 2 * inner)
        self.back = nn.Linear(inner, width)
        self.out_width = width

    def attend(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if self.how == "torch":
            return self.layer(a, b, b, need_weights=False)[0]
        if self.how == "decoder":
            return self.layer(a, b)
        q = self.q(a).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(b).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        latents = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
        latents = self.attend(latents, h)
        return x + self.back(self.attend(h, latents))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "tokens": chooser.pick(2, 3),
            "heads": chooser.pick(2, 1, 3),
            "head_dim": chooser.width(2, 4),
            "how": chooser.pick("by_hand", "torch", "decoder"),
        }
