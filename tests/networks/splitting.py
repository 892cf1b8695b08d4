"""Blocks that take channels apart and put them together again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import ACTIVATIONS, Block, Chooser, Spec, block, build, divisors


@block("image")
class Halves(Block):
    """Splits the channels, works on one part, joins: CSP, ShuffleNet, C2f, each in its own words."""

    def __init__(self, width: int, half: int, inside: list[Spec], cut: str, join: str) -> None:
        super().__init__()
        self.half = half
        rest = half if cut in EVEN else half + 1
        self.whole = half + rest
        self.enter = nn.Conv2d(width, self.whole, 1)
        self.body = build(inside, rest)
        self.cut, self.join = cut, join
        made = self.body.out_width
        self.back = nn.Conv2d(made, half, 1) if join in ("add", "gate") else None
        self.sizes = [half, rest]
        self.out_width = {"cat": half + made, "swap": made + half, "all": half + rest + made}.get(join, half)

    def parts(self, x: torch.Tensor) -> Any:
        if self.cut == "chunk":
            return x.chunk(2, dim=1)
        if self.cut == "split_even":
            return torch.split(x, self.half, dim=1)
        if self.cut == "split_list":
            return x.split(self.sizes, 1)
        if self.cut == "half_of_whole":
            return x.split(self.whole // 2, dim=1)
        if self.cut == "rest_of_whole":
            return x.split([self.half, self.whole - self.half], dim=1)
        if self.cut == "narrow":
            return x.narrow(1, 0, self.half), x.narrow(1, self.half, self.sizes[1])
        if self.cut == "negative":
            return x[:, : -self.sizes[1]], x[:, -self.sizes[1] :]
        return x[:, : self.half], x[:, self.half :, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.parts(self.enter(x))
        made = self.body(right.clone())
        if self.join == "cat":
            return torch.cat((left, made), dim=1)
        if self.join == "swap":
            return torch.cat([made, left], dim=1)
        if self.join == "all":
            return torch.cat([left, right, made], dim=-3)
        assert self.back is not None
        made = self.back(made)
        return left + made if self.join == "add" else left * made.sigmoid()

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        ways = ("chunk", "split_even", "split_list", "slice", "narrow", "negative")
        cut = chooser.pick(*ways, "half_of_whole", "rest_of_whole")
        half = chooser.width(2, 5)
        return {
            "half": half,
            "inside": chooser.inside(half if cut in EVEN else half + 1)[0],
            "cut": cut,
            "join": chooser.pick("cat", "swap", "all", "add", "gate"),
        }


EVEN = ("chunk", "split_even", "half_of_whole")


@block("image")
class Hierarchical(Block):
    """Res2Net: slices, each added to what was made of the one before."""

    def __init__(self, width: int, slices: int, each: int, how: str) -> None:
        super().__init__()
        self.width, self.slices, self.how = each, slices, how
        self.enter = nn.Conv2d(width, slices * each, 1)
        self.bn = nn.BatchNorm2d(slices * each)
        self.convs = nn.ModuleList(nn.Conv2d(each, each, 3, padding=1) for _ in range(slices - 1))
        self.leave = nn.Conv2d(slices * each, width, 1)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn(self.enter(x)))
        if self.how == "split":
            pieces = torch.split(out, self.width, 1)
        elif self.how == "chunk":
            pieces = out.chunk(self.slices, 1)
        else:
            pieces = [out[:, i * self.width : (i + 1) * self.width] for i in range(self.slices)]
        made, last = [pieces[0]], None
        for conv, piece in zip(self.convs, pieces[1:], strict=True):
            last = conv(piece if last is None else piece + last)
            made.append(last)
        return self.leave(torch.cat(made, 1)) + x

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "slices": chooser.pick(2, 3, 4),
            "each": chooser.width(2, 4),
            "how": chooser.pick("split", "chunk", "slice"),
        }


@block("image")
class ShuffledChannels(Block):
    """Grouped convolution, channel shuffle, depthwise or grouped convolution again."""

    def __init__(self, width: int, groups: int, each: int, after: int, how: str) -> None:
        super().__init__()
        self.groups, self.each, self.how = groups, each, how
        inner = groups * each
        self.enter = nn.Conv2d(width, inner, 1, groups=groups if width % groups == 0 else 1)
        self.native = nn.ChannelShuffle(groups)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=after)
        self.bn = nn.BatchNorm2d(inner)
        self.leave = nn.Conv2d(inner, width, 1)
        self.out_width = width

    def shuffle(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        if self.how == "native":
            return self.native(x)
        if self.how == "reshape":
            return x.reshape(b, self.groups, self.each, h, w).transpose(1, 2).reshape(b, -1, h, w)
        if self.how == "flatten":
            return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.leave(self.bn(self.conv(self.shuffle(torch.relu(self.enter(x))))))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        groups, each = chooser.pick(2, 3, 4), chooser.width(2, 4)
        return {
            "groups": groups,
            "each": each,
            "after": chooser.pick(*divisors(groups * each)),
            "how": chooser.pick("view", "reshape", "flatten", "native"),
        }


@block("image")
class Ghost(Block):
    """Cheap features beside the primary ones; what is more than asked for is cut off."""

    def __init__(self, width: int, out: int, ratio: int) -> None:
        super().__init__()
        self.out = out
        first = -(-out // ratio)
        self.primary = nn.Sequential(nn.Conv2d(width, first, 1), nn.BatchNorm2d(first), nn.ReLU(True))
        self.cheap = nn.Conv2d(first, first * (ratio - 1), 3, padding=1, groups=first)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.out, :, :]

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(2, 9), "ratio": chooser.pick(2, 3)}


@block("image")
class Pixels(Block):
    """Space and channels exchanged, there and back."""

    def __init__(self, width: int, out: int, how: str) -> None:
        super().__init__()
        self.how = how
        if how in ("shuffle", "view"):
            self.enter = nn.Conv2d(width, 4 * out, 1)
            self.leave = nn.Conv2d(out, out, 3, stride=2, padding=1)
        else:
            self.enter = nn.Conv2d(width, out, 1)
            self.leave = nn.ConvTranspose2d(4 * out, out, 2, stride=2)
        self.down, self.up = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.out_width = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.enter(x))
        if self.how == "shuffle":
            x = self.up(x)
        elif self.how == "unshuffle":
            x = self.down(x)
        elif self.how == "focus":
            x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        else:
            b, c, h, w = x.shape
            x = x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
        return self.leave(x)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"out": chooser.width(), "how": chooser.pick("shuffle", "unshuffle", "focus", "view")}


@block("image")
class Gated(Block):
    """Gated linear units, and other ways to make one channel of several."""

    def __init__(self, width: int, out: int, how: str, act: str) -> None:
        super().__init__()
        self.how, self.out = how, out
        self.enter = nn.Conv2d(width, out if how == "double" else 2 * out, 1)
        self.act = ACTIVATIONS[act](out)
        self.out_width = 2 * out if how == "double" else out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        if self.how == "glu":
            return F.glu(x, dim=1)
        if self.how == "double":
            return torch.cat([F.relu(x), F.relu(-x)], 1)
        if self.how == "maxout":
            b, _, h, w = x.shape
            return x.view(b, self.out, 2, h, w).amax(2)
        if self.how == "maxout_outer":
            b, _, h, w = x.shape
            return x.view(b, 2, -1, h, w).max(dim=1)[0]
        first, second = x.chunk(2, 1)
        return self.act(first.clone()) * second

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "out": chooser.width(),
            "how": chooser.pick("gate", "glu", "double", "maxout", "maxout_outer"),
            "act": chooser.pick(*ACTIVATIONS),
        }


@block("image")
class Modulated(Block):
    """FiLM: scale and shift computed from the mean, two halves of one projection."""

    def __init__(self, width: int, hidden: int, how: str) -> None:
        super().__init__()
        self.width, self.how = width, how
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width))
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.net(x.mean(dim=(2, 3)))
        if self.how == "chunk":
            scale, shift = made[:, :, None, None].chunk(2, dim=1)
        elif self.how == "view":
            scale, shift = made.view(-1, 2, self.width, 1, 1).unbind(1)
        elif self.how == "unflatten":
            scale, shift = made.unflatten(1, (2, -1)).unsqueeze(-1).unsqueeze(-1).unbind(1)
        else:
            scale, shift = made[:, : self.width, None, None], made[:, self.width :, None, None]
        return self.norm(x) * (1 + scale) + shift

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"hidden": chooser.width(), "how": chooser.pick("chunk", "view", "unflatten", "slice")}
