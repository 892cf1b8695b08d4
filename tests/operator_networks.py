"""One small network an operator family, with the sizes of the groups that it has, counted by hand.

``NETWORKS`` maps what is tried to a function that builds it and the sizes of all groups, ascending. The stem
is 8 wide, what is tried makes 7, and a head of 4 reads means: so a plain layer has the groups 7 and 8.
Other numbers are different where they need not be equal, so that every group can be told by its size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torchvision import ops

from peer_networks import Image, Sequence, conv

Build = Callable[[], nn.Module]
PLAIN = [7, 8]


def image(middle: Callable[..., torch.Tensor], made: int = 7, **parts: nn.Module) -> Build:
    """A network of which ``middle(x, **parts)`` is tried on (batch, 8, height, width)."""
    return lambda: Image(lambda held, x: middle(x, **{name: held[name] for name in parts}), made, **parts)


def sequence(middle: Callable[..., torch.Tensor], made: int = 7, **parts: nn.Module) -> Build:
    """The same on (batch, length, 8)."""
    return lambda: Sequence(lambda held, x: middle(x, **{name: held[name] for name in parts}), made, **parts)


def layer(module: nn.Module) -> Build:
    """A layer from 8 to 7 channels, on images."""
    return image(lambda x, a: a(x), a=module)


def step(module: nn.Module) -> Build:
    """A layer from 8 to 7 features, on sequences."""
    return sequence(lambda x, a: a(x), a=module)


class Parameter(nn.Module):
    """A parameter of its own, read by the code."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))


class Half(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0) * 0.5

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * 0.5


def _recurrence(x: torch.Tensor, a: Any) -> torch.Tensor:
    state: Any = None
    for token in x.unbind(1):
        state = a(token) if state is None else a(token, state)
    return (state[0] if isinstance(state, tuple) else state).unsqueeze(1)


def _boxes(x: torch.Tensor) -> torch.Tensor:
    boxes = torch.tensor([[0.0, 0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 1.0, 6.0, 7.0]], dtype=x.dtype)
    scores = torch.tensor([0.9, 0.8], dtype=x.dtype)
    return ops.roi_align(x, boxes[ops.nms(boxes[:, 1:], scores, 0.9)], 2)


def _written(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[:, torch.tensor([0, 2])] = 0.5
    return x.index_put((torch.tensor([0]), torch.tensor([1])), x[1, 0])


def _scattered(x: torch.Tensor) -> torch.Tensor:
    index = x.sum(-1, keepdim=True).argsort(1)[:, :3].expand(-1, -1, x.shape[2])
    return torch.zeros_like(x).scatter(1, index, x.gather(1, index)).scatter_add(1, index, x)


def _positions(x: torch.Tensor, a: Any) -> torch.Tensor:
    rows, columns = (torch.arange(n, dtype=x.dtype) for n in x.shape[2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    return x + a(grid).permute(2, 0, 1)


def _attends(x: torch.Tensor, a: Any, q: Any, k: Any, v: Any) -> torch.Tensor:
    return a(q(x), k(x), v(x), need_weights=False)[0]


def _scan(x: torch.Tensor, a: Any, b: Any, rate: Any) -> torch.Tensor:
    """Mamba's reference: state (batch, features, 5) = exp(delta A) state + delta B x, read by C."""
    delta, (left, right) = F.softplus(a(x)), b(x).chunk(2, -1)
    state, made = x.new_zeros(x.shape[0], x.shape[2], left.shape[2]), []
    for t in range(x.shape[1]):
        state = state * (delta[:, t, :, None] * rate.weight).exp()
        state = state + delta[:, t, :, None] * left[:, t, None] * x[:, t, :, None]
        made.append(torch.einsum("bds,bs->bd", state, right[:, t]))
    return torch.stack(made, 1)


def _mixed(x: torch.Tensor, router: Any, experts: Any) -> torch.Tensor:
    weights = router(x).softmax(-1)
    for place, expert in enumerate(experts):
        x = x + weights[..., place : place + 1] * expert(x)
    return x


def _folded(x: torch.Tensor, a: Any) -> torch.Tensor:
    return F.fold(a(x.flatten(2).transpose(1, 2)).transpose(1, 2)[:, :, :16], 8, 2, stride=2)


def _convolutions() -> dict[str, tuple[Build, list[int]]]:
    found: dict[str, tuple[Build, list[int]]] = {}
    for mode in ("zeros", "reflect", "replicate", "circular"):
        found[f"convolution, padded with {mode}"] = layer(conv(8, 7, padding_mode=mode)), PLAIN
    for kind in (nn.Conv1d, nn.ConvTranspose1d):
        one = sequence(lambda x, a: a(x.transpose(1, 2)).transpose(1, 2), a=kind(8, 7, 3, padding=1))
        found[kind.__name__] = one, PLAIN
    for kind in (nn.Conv3d, nn.ConvTranspose3d):
        three = image(lambda x, a: a(x.unsqueeze(2)).squeeze(2), a=kind(8, 7, 3, padding=1))
        found[kind.__name__] = three, PLAIN
    return found


NETWORKS: dict[str, tuple[Build, list[int]]] = {
    **_convolutions(),
    "same padding": (layer(nn.Conv2d(8, 7, 3, padding="same")), PLAIN),
    "transposed convolution": (layer(nn.ConvTranspose2d(8, 7, 3, 2, 1, 1)), PLAIN),
    "grouped convolution": (image(lambda x, a: a(x), 12, a=conv(8, 12, groups=4)), [2, 3, 4]),
    "grouped transposed convolution": (
        image(lambda x, a: a(x), 12, a=nn.ConvTranspose2d(8, 12, 3, groups=4)),
        [2, 3, 4],
    ),
    "depthwise convolution": (image(lambda x, a: a(x), 24, a=conv(8, 24, groups=8)), [3, 8]),
    "deformable convolution": (
        image(lambda x, a, o: a(x, o(x)), a=ops.DeformConv2d(8, 7, 3, padding=1), o=conv(8, 18)),
        PLAIN,
    ),
    "group norm": (image(lambda x, a: a(x), 8, a=nn.GroupNorm(4, 8)), [2, 4]),
    "instance norm": (image(lambda x, a: a(x), 8, a=nn.InstanceNorm2d(8, affine=True)), [8]),
    "local response norm": (image(lambda x, n, a: a(n(x)), n=nn.LocalResponseNorm(3), a=conv(8, 7)), [7]),
    "weight norm": (layer(parametrizations.weight_norm(conv(8, 7))), PLAIN),
    "spectral norm": (layer(parametrizations.spectral_norm(conv(8, 7))), PLAIN),
    "pooling": (
        image(
            lambda x, a: F.adaptive_avg_pool2d(F.lp_pool2d(F.max_pool2d(a(x), 2), 2.0, 2), 2), a=conv(8, 7)
        ),
        PLAIN,
    ),
    "interpolation": (
        image(
            lambda x, a: F.interpolate(F.interpolate(a(x), scale_factor=2, mode="bicubic"), (5, 7)),
            a=conv(8, 7),
        ),
        PLAIN,
    ),
    "unfold": (
        image(lambda x, a: a(F.unfold(x, 3).transpose(1, 2)).transpose(1, 2)[..., None], a=nn.Linear(72, 7)),
        PLAIN,
    ),
    "fold": (image(_folded, a=nn.Linear(8, 28)), PLAIN),
    "nms and roi_align": (image(_boxes, 8), [8]),
    "meshgrid": (image(_positions, 8, a=nn.Linear(2, 8)), [8]),
    "checkpoint": (image(lambda x, a: checkpoint(a, x, use_reentrant=False), a=conv(8, 7)), PLAIN),
    "function with its own gradient": (image(lambda x, a: Half.apply(a(x)), a=conv(8, 7)), PLAIN),
    "bilinear": (
        sequence(lambda x, a, b: a(x, b(x)), 6, a=nn.Bilinear(8, 7, 6), b=nn.Linear(8, 7)),
        [6, 7, 8],
    ),
    "einsum": (sequence(lambda x, a: torch.einsum("...d,de->...e", x, a.weight), a=Parameter(8, 7)), PLAIN),
    "transposed parameter": (sequence(lambda x, a: x @ a.weight.T, a=Parameter(7, 8)), PLAIN),
    "index_put": (sequence(_written, 8), [8]),
    "scatter and gather along the sequence": (sequence(_scattered, 8), [8]),
    "cumsum along the sequence": (sequence(lambda x, a: a(x).cumsum(1), a=nn.Linear(8, 7)), PLAIN),
    "cumsum along the features": (sequence(lambda x, a: a(x).cumsum(2), a=nn.Linear(8, 7)), PLAIN),
    "sort along the sequence": (sequence(lambda x, a: a(x).sort(1)[0], a=nn.Linear(8, 7)), PLAIN),
    "topk along the sequence": (sequence(lambda x, a: a(x).topk(3, 1)[0], a=nn.Linear(8, 7)), PLAIN),
    "roll and flip": (sequence(lambda x, a: a(x).roll(1, 1).flip(1), a=nn.Linear(8, 7)), PLAIN),
    "roll along the features": (sequence(lambda x, a: a(x.roll(2, -1)), a=nn.Linear(8, 7)), [6, 7]),
    "strided slice of the features": (sequence(lambda x, a: a(x[..., ::2]), a=nn.Linear(4, 7)), [4, 7]),
    "repeat": (sequence(lambda x, a: a(x.repeat(1, 1, 2)), a=nn.Linear(16, 7)), PLAIN),
    "repeat_interleave": (
        sequence(lambda x, a: a(x.repeat_interleave(2, -1)), a=nn.Linear(16, 7)),
        PLAIN,
    ),
    "Fourier transform along the sequence": (
        sequence(lambda x, a: torch.fft.rfft(a(x), dim=1).abs(), a=nn.Linear(8, 7)),
        PLAIN,
    ),
    "Fourier transform and back": (
        sequence(
            lambda x, a, f: torch.fft.irfft(
                torch.fft.rfft(a(x), dim=1) * torch.view_as_complex(f.weight), 6, 1
            ),
            a=nn.Linear(8, 7),
            f=Parameter(4, 7, 2),
        ),
        PLAIN,
    ),
    "complex numbers": (
        sequence(lambda x, a, b: torch.complex(a(x), b(x)).abs(), a=nn.Linear(8, 7), b=nn.Linear(8, 7)),
        PLAIN,
    ),
    "bits": (
        sequence(lambda x, a, b: a(x) * ((b(x) > 0) ^ (a(x) > 1)), a=nn.Linear(8, 7), b=nn.Linear(8, 7)),
        PLAIN,
    ),
    "glu": (step(nn.Sequential(nn.Linear(8, 14), nn.GLU())), PLAIN),
    "mean over the features": (
        sequence(lambda x, a: a(x - x.mean(-1, keepdim=True)), a=nn.Linear(8, 7)),
        PLAIN,
    ),
    "LSTM": (sequence(lambda x, a: a(x)[0], a=nn.LSTM(8, 7, batch_first=True)), PLAIN),
    "stacked bidirectional GRU": (
        sequence(lambda x, a: a(x)[0], 14, a=nn.GRU(8, 7, 2, batch_first=True, bidirectional=True)),
        PLAIN,
    ),
    "RNN": (sequence(lambda x, a: a(x)[0], a=nn.RNN(8, 7, batch_first=True)), PLAIN),
    "projected LSTM": (
        sequence(lambda x, a: a(x)[0], 5, a=nn.LSTM(8, 12, batch_first=True, proj_size=5)),
        [5, 8, 12],
    ),
    "LSTM cell": (sequence(_recurrence, a=nn.LSTMCell(8, 7)), PLAIN),
    "GRU cell": (sequence(_recurrence, a=nn.GRUCell(8, 7)), PLAIN),
    "RNN cell": (sequence(_recurrence, a=nn.RNNCell(8, 7)), PLAIN),
    "attention with widths of its own": (
        sequence(
            _attends,
            12,
            a=nn.MultiheadAttention(12, 3, kdim=5, vdim=6, add_bias_kv=True, batch_first=True),
            q=nn.Linear(8, 12),
            k=nn.Linear(8, 5),
            v=nn.Linear(8, 6),
        ),
        [3, 4, 4, 5, 6, 8, 12, 12],
    ),
    "selective scan": (
        sequence(_scan, 8, a=nn.Linear(8, 8), b=nn.Linear(8, 10), rate=Parameter(8, 5)),
        [5, 8],
    ),
    "experts in a list, all of them run": (
        sequence(
            _mixed,
            8,
            router=nn.Linear(8, 3),
            experts=nn.ModuleList(
                nn.Sequential(nn.Linear(8, n), nn.ReLU(), nn.Linear(n, 8)) for n in (5, 6, 7)
            ),
        ),
        [5, 6, 7, 8],
    ),
    "transformer encoder": (
        sequence(
            lambda x, a: a(x),
            8,
            a=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 14, batch_first=True),
                1,
                enable_nested_tensor=False,
            ),
        ),
        [2, 4, 4, 8, 14],
    ),
    "transformer decoder": (
        sequence(lambda x, a: a(x, x), 8, a=nn.TransformerDecoderLayer(8, 2, 14, batch_first=True)),
        [2, 2, 4, 4, 4, 4, 8, 14],
    ),
}
