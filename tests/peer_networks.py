"""One small network an operator: those that Torch-Pruning 1.6.1 or ModelOpt FastNAS 0.47 fail on.

Torch-Pruning raises, breaks the model, computes something else, or prunes nothing on the ones in
``TORCH_PRUNING``; ModelOpt leaves all of those in ``MODEL_OPT`` as they are. Each network is as its
users would write it; widths are small, and no two are equal that need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

IMAGE = (2, 3, 8, 8)
SEQUENCE = (2, 6, 5)


Middle = Callable[[Any, torch.Tensor], torch.Tensor]


class _Network(nn.Module):
    """A stem, what ``middle`` makes of its features, and a head."""

    def __init__(self, stem: nn.Module, middle: Middle, made: int, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.parts = nn.ModuleDict(parts)
        self.head = nn.Linear(made, 4)
        self._middle = middle


class Image(_Network):
    """Of images, with a head that takes the means of the features."""

    def __init__(self, middle: Middle, made: int, width: int = 8, **parts: nn.Module) -> None:
        super().__init__(nn.Conv2d(3, width, 3, padding=1), middle, made, parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self._middle(self.parts, F.relu(self.stem(x))).mean((2, 3)))


class Sequence(_Network):
    """The same for sequences."""

    def __init__(self, middle: Middle, made: int, width: int = 8, **parts: nn.Module) -> None:
        super().__init__(nn.Linear(5, width), middle, made, parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self._middle(self.parts, self.stem(x)))


def _halves(parts: Any, x: torch.Tensor) -> torch.Tensor:
    """YOLO's C2f: both halves go on, one of them through a convolution."""
    left, right = parts["wide"](x).chunk(2, 1)
    return torch.cat([left, right, parts["narrow"](right)], 1)


def _uneven(parts: Any, x: torch.Tensor) -> torch.Tensor:
    first, second = x.split([3, 5], 1)
    return torch.cat([parts["a"](first), parts["b"](second)], 1)


def _channel_slice(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, :4], parts["conv"](x[:, 4:])], 1)


def _index_select(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return parts["conv"](x).index_select(1, torch.arange(0, 6, 2))


def _shuffle(parts: Any, x: torch.Tensor) -> torch.Tensor:
    x = parts["conv"](x)
    batch, channels, height, width = x.shape
    x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
    return parts["again"](x)


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.rand(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain


class Functional(nn.Module):
    """Parameters of its own, given to ``F.conv2d`` and to a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 8, 3, 3))
        self.matrix = nn.Parameter(torch.randn(6, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.kernel, padding=1)
        return (x.permute(0, 2, 3, 1) @ self.matrix).permute(0, 3, 1, 2)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def _detached(parts: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        gate = parts["gate"](x)
    return parts["conv"](x.detach()) * gate.sigmoid()


def _attention(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return parts["attention"](x, x, x, need_weights=False)[0]


class Heads(nn.Module):
    """Attention by hand: fused or separate projections, one of three ways to compute it."""

    def __init__(self, how: str, fused: bool) -> None:
        super().__init__()
        self.heads, self.features, self.how = 2, 3, how
        self.qkv = nn.Linear(8, 18) if fused else nn.ModuleList(nn.Linear(8, 6) for _ in range(3))
        self.out = nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        parts = self.qkv(x).chunk(3, -1) if isinstance(self.qkv, nn.Linear) else [m(x) for m in self.qkv]
        q, k, v = (p.reshape(batch, length, self.heads, self.features).transpose(1, 2) for p in parts)
        if self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "einsum":
            weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(self.features**-0.5).softmax(-1)
            y = torch.einsum("bhij,bhjd->bhid", weights, v)
        else:
            y = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


def _merging(parts: Any, x: torch.Tensor) -> torch.Tensor:
    """Swin's patch merging: four neighbours become the channels of one."""
    x = x.unflatten(1, (2, 3)) if x.dim() == 3 else x
    x = F.pad(x, (0, 0, 0, 1))
    corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return parts["reduction"](parts["norm"](torch.cat(corners, -1)))


def _windows(parts: Any, x: torch.Tensor) -> torch.Tensor:
    """Window partition, something inside each window, and back."""
    batch, channels, height, width = x.shape
    windows = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
    windows = parts["inside"](windows.reshape(-1, 16, channels))
    windows = windows.view(batch, height // 4, width // 4, 4, 4, -1)
    return windows.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def _recurrent(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return parts["rnn"](x)[0]


class TransposedLinear(nn.Module):
    """GPT-2's ``Conv1D``: a linear layer whose weight lies the other way round."""

    def __init__(self, made: int, given: int) -> None:
        super().__init__()
        self.nf = made
        self.weight, self.bias = nn.Parameter(torch.randn(given, made)), nn.Parameter(torch.randn(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Scalars(nn.Module):
    """Puts out a dict, with a loss in it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.b(self.a(x).relu())
        return {"logits": logits, "loss": logits.square().mean()}


class Flattened(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32, 4))


class Embedded(nn.Module):
    """Token ids, a class token in front, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(11, 8), nn.Parameter(torch.randn(1, 7, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.inner, self.head = nn.Linear(8, 7), nn.Linear(7, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(ids), -1, -1), self.words(ids)], 1) + self.positions
        return self.head(self.inner(x).relu()[:, 0])


def _stacked(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([parts["a"](x), parts["b"](x)], 1).amax(1)


def _data_dependent(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return parts["a"](x) if x.sum() * 0 == 0 else parts["b"](x)


def _bilinear(parts: Any, x: torch.Tensor) -> torch.Tensor:
    return parts["pair"](x, parts["other"](x))


def conv(given: int, made: int, **settings: Any) -> nn.Module:
    return nn.Conv2d(given, made, 3, padding=1, **settings)


def _through(name: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    return lambda parts, x: parts[name](x)


def _chain(*names: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def run(parts: Any, x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = parts[name](x)
        return x

    return run


TORCH_PRUNING: dict[str, Callable[[], nn.Module]] = {
    "depthwise with multiplier 2": lambda: Image(
        _chain("depthwise", "point"), 6, depthwise=conv(8, 16, groups=8), point=nn.Conv2d(16, 6, 1)
    ),
    "grouped transposed convolution": lambda: Image(
        _through("up"), 12, up=nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4)
    ),
    "chunk, both halves used": lambda: Image(_halves, 15, wide=nn.Conv2d(8, 10, 1), narrow=conv(5, 5)),
    "uneven split": lambda: Image(_uneven, 11, a=conv(3, 5), b=conv(5, 6)),
    "channel slice": lambda: Image(_channel_slice, 10, conv=conv(4, 6)),
    "index_select": lambda: Image(_index_select, 3, conv=conv(8, 6)),
    "channel shuffle": lambda: Image(_shuffle, 6, conv=conv(8, 12, groups=2), again=conv(12, 6, groups=2)),
    "pixel shuffle": lambda: Image(
        _chain("conv", "shuffle", "after"), 5, conv=conv(8, 12), shuffle=nn.PixelShuffle(2), after=conv(3, 5)
    ),
    "pixel unshuffle": lambda: Image(
        _chain("unshuffle", "after"), 5, unshuffle=nn.PixelUnshuffle(2), after=conv(32, 5)
    ),
    "InstanceNorm with running statistics": lambda: Image(
        _chain("conv", "norm"),
        6,
        conv=conv(8, 6),
        norm=nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    ),
    "channel buffer": lambda: Image(_through("gain"), 8, gain=Buffered()),
    "functional with own parameters": lambda: Image(_through("own"), 7, own=Functional()),
    "weight norm": lambda: Image(
        _chain("normed", "after"), 5, normed=parametrizations.weight_norm(conv(8, 6)), after=conv(6, 5)
    ),
    "detach and no_grad": lambda: Image(_detached, 6, gate=conv(8, 6), conv=conv(8, 6)),
    "RMSNorm": lambda: Sequence(_chain("norm", "inner"), 6, norm=nn.RMSNorm(8), inner=nn.Linear(8, 6)),
    "MultiheadAttention": lambda: Sequence(
        _attention, 8, attention=nn.MultiheadAttention(8, 2, batch_first=True)
    ),
    "GLU": lambda: Sequence(lambda parts, x: F.glu(parts["wide"](x)), 5, wide=nn.Linear(8, 10)),
    "Swin's patch merging": lambda: Sequence(
        _merging, 9, norm=nn.LayerNorm(32), reduction=nn.Linear(32, 9, bias=False)
    ),
    "LSTM": lambda: Sequence(_recurrent, 6, rnn=nn.LSTM(8, 6, batch_first=True)),
    "LSTM of 2 layers": lambda: Sequence(_recurrent, 6, rnn=nn.LSTM(8, 6, 2, batch_first=True)),
    "GRU": lambda: Sequence(_recurrent, 6, rnn=nn.GRU(8, 6, batch_first=True)),
    "Bilinear": lambda: Sequence(_bilinear, 5, other=nn.Linear(8, 6), pair=nn.Bilinear(8, 6, 5)),
    "transposed linear layer": lambda: Sequence(
        _chain("a", "b"), 6, a=TransposedLinear(7, 8), b=TransposedLinear(6, 7)
    ),
    "dict with a scalar": Scalars,
}

MODEL_OPT: dict[str, Callable[[], nn.Module]] = {
    "grouped convolution": lambda: Image(
        _chain("grouped", "after"), 5, grouped=conv(8, 12, groups=4), after=conv(12, 5)
    ),
    "PReLU": lambda: Image(_chain("conv", "act"), 6, conv=conv(8, 6), act=nn.PReLU(6)),
    "flatten to linear": Flattened,
    "parameter as a scale": lambda: Image(_through("scaled"), 8, scaled=Scaled()),
    **{
        f"attention, {how}, {'one projection' if fused else 'three projections'}": (
            lambda how=how, fused=fused: Sequence(_through("heads"), 8, heads=Heads(how, fused))
        )
        for how in ("fused", "einsum", "matmul")
        for fused in (True, False)
    },
    "embedding, class token, positions": Embedded,
    "stack": lambda: Image(_stacked, 6, a=conv(8, 6), b=conv(8, 6)),
    "window partition": lambda: Image(_windows, 6, inside=nn.Linear(8, 6)),
    "branch on data": lambda: Image(_data_dependent, 6, a=conv(8, 6), b=conv(8, 6)),
}


def inputs(model: nn.Module) -> tuple[torch.Tensor, ...]:
    """Positional inputs that a network of this file runs on."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(model, Embedded):
        return (torch.randint(0, 11, (2, 6), generator=generator),)
    shape = IMAGE if isinstance(model, (Image, Flattened)) else SEQUENCE
    return (torch.randn(shape, generator=generator, dtype=torch.float64),)
