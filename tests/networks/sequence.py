"""Blocks of sequence models other than attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import ACTIVATIONS, SEQUENCE_NORMS, Block, Chooser, Spec, block, build


@block("sequence")
class Project(Block):
    """A linear layer to another width, with a norm and an activation."""

    def __init__(self, width: int, out: int, norm: str, act: str, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(width, out, bias=bias)
        self.norm = SEQUENCE_NORMS[norm](out)
        self.act = ACTIVATIONS[act](out)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.fc(x)))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "out": chooser.width(),
            "norm": chooser.pick(*SEQUENCE_NORMS),
            "act": chooser.pick(*ACTIVATIONS),
            "bias": chooser.pick(True, False),
        }


@block("sequence")
class Wrapped(Block):
    """``x + gamma * f(norm(x))``."""

    def __init__(self, width: int, inside: list[Spec], norm: str, scale: bool) -> None:
        super().__init__()
        self.norm = SEQUENCE_NORMS[norm](width)
        self.body = build(inside, width)
        self.back = nn.Linear(self.body.out_width, width) if self.body.out_width != width else nn.Identity()
        self.gamma = nn.Parameter(torch.full((width,), 1e-4)) if scale else None
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.back(self.body(self.norm(x).clone()))
        return x + (made if self.gamma is None else made.clone().mul_(self.gamma))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "inside": chooser.inside(width)[0],
            "norm": chooser.pick(*SEQUENCE_NORMS),
            "scale": chooser.pick(False, True),
        }


@block("sequence")
class FeedForward(Block):
    """The feed-forward part of a transformer: plain, gated, fused gate, gate and value swapped."""

    def __init__(self, width: int, hidden: int, how: str, bias: bool) -> None:
        super().__init__()
        self.how, self.hidden_dim = how, hidden
        fused = how in ("chunk", "split", "geglu", "glu", "slice")
        self.w1 = nn.Linear(width, 2 * hidden if fused else hidden, bias=bias)
        self.w3 = nn.Linear(width, hidden, bias=bias) if how == "gate" else None
        self.w2 = nn.Linear(hidden, width, bias=bias)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.w1(x)
        if self.w3 is not None:
            return self.w2(F.silu(h) * self.w3(x))
        if self.how == "chunk":
            gate, up = h.chunk(2, dim=-1)
            return self.w2(up * F.silu(gate))
        if self.how == "split":
            up, gate = h.split([self.hidden_dim, self.hidden_dim], -1)
            return self.w2(torch.sigmoid(gate) * up)
        if self.how == "slice":
            return self.w2(h[..., : self.hidden_dim].tanh() * h[..., self.hidden_dim :])
        if self.how == "geglu":
            up, gate = h.split(h.shape[-1] // 2, dim=-1)
            return self.w2(up * F.gelu(gate))
        if self.how == "glu":
            return self.w2(F.glu(h, -1))
        if self.how == "squared":
            return self.w2(torch.square(F.relu(h)))
        return self.w2(F.gelu(h))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "hidden": chooser.width(),
            "how": chooser.pick("plain", "gate", "chunk", "split", "slice", "geglu", "glu", "squared"),
            "bias": chooser.pick(True, False),
        }


@block("sequence")
class Temporal(Block):
    """Convolution along a sequence: pointwise, depthwise, causal, gated."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how = how
        groups = width if how == "depthwise" else 1
        made = width if how == "depthwise" else 2 * out if how == "glu" else out
        self.conv = nn.Conv1d(width, made, 3, padding=2 if how == "causal" else 1, groups=groups)
        self.norm = nn.BatchNorm1d(made)
        self.out_width = width if how == "depthwise" else out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        y = self.conv(x.transpose(1, 2))
        y = self.norm(y)[..., :n]
        if self.how == "glu":
            y = F.glu(y, 1)
        return F.silu(y).transpose(1, 2).contiguous()

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "how": chooser.pick("plain", "depthwise", "causal", "glu")}


@block("sequence")
class TokensMixed(Block):
    """MLP-Mixer and gMLP: linear layers along the sequence of six positions."""

    def __init__(self, width: int, hidden: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.enter = nn.Linear(width, 2 * hidden if how == "gate" else width)
        self.norm = nn.LayerNorm(hidden if how == "gate" else width)
        self.tokens = nn.Linear(6, 6)
        self.leave = nn.Linear(hidden if how == "gate" else width, width)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.gelu(self.enter(x))
        if self.how == "gate":
            u, v = h.chunk(2, dim=-1)
            v = self.tokens(self.norm(v).transpose(-1, -2)).transpose(-1, -2)
            return x + self.leave(u * v)
        return self.leave(h + self.tokens(self.norm(h).mT).mT)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"hidden": chooser.width(), "how": chooser.pick("mixer", "gate")}


@block("sequence")
class Adapted(Block):
    """A low-rank adapter beside a frozen layer."""

    def __init__(self, width: int, out: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, out).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, width))
        self.lora_b = nn.Parameter(torch.zeros(out, rank))
        self.scaling = 2.0
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.lora_a.T @ self.lora_b.t()) * self.scaling

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "rank": chooser.width(1, 4)}


@block("sequence")
class Experts(Block):
    """A mixture of experts whose weights are stacked in parameters: all of them, or each token's best."""

    def __init__(self, width: int, experts: int, hidden: int, how: str) -> None:
        super().__init__()
        self.how, self.experts = how, experts
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) * 0.3)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * 0.3)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.router(x).softmax(-1)
        if self.how == "routed":
            weight, best = weights.topk(1, -1)
            h = F.relu(torch.einsum("bnd,bnkdh->bnkh", x, self.up[best]))
            return torch.einsum("bnkh,bnkhd,bnk->bnd", h, self.down[best], weight)
        if self.how == "einsum":
            h = F.relu(torch.einsum("bnd,edh->bneh", x, self.up))
            return torch.einsum("bneh,ehd,bne->bnd", h, self.down, weights)
        if self.how == "loop":
            made = torch.zeros_like(x)
            for i in range(self.experts):
                made += weights[..., i : i + 1] * (F.gelu(x @ self.up[i]) @ self.down[i])
            return made
        flat = x.flatten(0, 1).expand(self.experts, -1, -1)
        made = torch.bmm(F.silu(torch.bmm(flat, self.up)), self.down)
        return (made.view(self.experts, *x.shape) * weights.permute(2, 0, 1)[..., None]).sum(0)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "experts": chooser.pick(2, 3),
            "hidden": chooser.width(),
            "how": chooser.pick("einsum", "loop", "bmm", "routed"),
        }


@block("sequence")
class ClassToken(Block):
    """A learned token before the others, learned positions, and the token taken off again."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 7, width) if how != "table" else torch.zeros(7, width))
        self.fc = nn.Linear(width, width)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.fc(x + self.positions)
        if self.how == "add":
            return x[:, 1:] + x[:, :1]
        return x[:, 1:] * torch.sigmoid(x[:, 0]).unsqueeze(1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"how": chooser.pick("add", "gate", "table")}
