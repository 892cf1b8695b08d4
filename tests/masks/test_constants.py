"""Constants followed through operators: each is judged by running the operator on many inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.masks import EXACTLY, NEARLY, UNKNOWN, Constants, Forward

GONE = [1, 4]
"""Channels of six that the first layer makes constant."""


class Through(nn.Module):
    """A convolution whose channels 1 and 4 are masked, and then the operator under test."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 6)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x), self)


def follow(function: Callable[..., Any]) -> tuple[Through, Constants]:
    torch.manual_seed(0)
    net = Through(function).eval()
    nn.init.normal_(net.norm.bias)
    net.norm.running_mean.normal_()
    keep = torch.ones_like(net.conv.weight, dtype=torch.bool)
    keep[GONE] = False
    snapshot = secateur.PruningIR(net).create_snapshot("main", (torch.randn(2, 2, 7, 7),))
    constants = Forward(snapshot.analysis, net, {"conv.weight": keep}).run()
    with torch.no_grad():
        net.conv.weight[~keep] = 0
    return net, constants


def judge(net: Through, constants: Constants) -> tuple[Tensor, Tensor]:
    """Check what is claimed of the output against many runs; returns value and state."""
    (wanted,) = constants.analysis.graph.outputs.values()
    maker = [node for node in constants.analysis.graph.nodes if wanted in node.outputs][-1]
    known = constants.made[maker.index][maker.outputs.index(wanted)]
    with torch.no_grad():
        runs = torch.stack([net(torch.randn(2, 2, 7, 7)) for _ in range(4)]).double()
    exactly = known.state == EXACTLY
    claimed = known.numbers().value.expand(runs.shape[1:])
    assert bool(((runs - claimed).abs().amax(0)[exactly] < 1e-5).all()), "incorrect: claimed, and not so"
    assert not constants.failed
    return claimed, known.state


def channel(state: Tensor, dim: int = 1) -> list[int]:
    others = [d for d in range(state.dim()) if d != dim]
    return (state == EXACTLY).all(dim=others).nonzero().flatten().tolist() if others else []


KEEPS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda x, net: net.norm(x),
    "relu": lambda x, net: F.relu(x),
    "in place": lambda x, net: F.relu_(x.clone()).add_(1).mul_(2),
    "sigmoid": lambda x, net: torch.sigmoid(x),
    "hardswish": lambda x, net: F.hardswish(x),
    "scalars": lambda x, net: (2 * x - 1) / 3,
    "power": lambda x, net: (x**2 + 0.1).sqrt(),
    "clamp": lambda x, net: x.clamp(-0.1, 0.2),
    "where": lambda x, net: torch.where(x > 0, x, -x),
    "sum of two": lambda x, net: x + net.norm(x),
    "product of two": lambda x, net: x * net.norm(x),
    "max_pool": lambda x, net: F.max_pool2d(x, 2, 1, padding=1),
    "avg_pool": lambda x, net: F.avg_pool2d(x, 2),
    "avg_pool not counting zeros": lambda x, net: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "adaptive pool": lambda x, net: F.adaptive_avg_pool2d(x, 2),
    "interpolate": lambda x, net: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest": lambda x, net: F.interpolate(x, scale_factor=2),
    "mean of space": lambda x, net: x.mean((2, 3), keepdim=True),
    "reflect": lambda x, net: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "dropout": lambda x, net: F.dropout(x, 0.5, net.training),
    "contiguous": lambda x, net: x.contiguous().clone().to(torch.float64),
    "expand": lambda x, net: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3),
    "slice of space": lambda x, net: x[:, :, 1:3],
    "roll": lambda x, net: torch.roll(x, 2, 3),
    "gate": lambda x, net: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "instance_norm": lambda x, net: F.instance_norm(x),
    "amax": lambda x, net: x.amax((2, 3), keepdim=True),
    "glu": lambda x, net: F.glu(torch.cat([x, net.norm(x)], 1), 1),
    "addcmul": lambda x, net: torch.addcmul(x, x, x, value=0.5),
}


@pytest.mark.parametrize("name", KEEPS)
def test_constant_channels_stay_constant(name: str) -> None:
    _, state = judge(*follow(KEEPS[name]))
    assert channel(state) == GONE, "missing: constant, and not claimed"


MOVES: dict[str, tuple[Callable[..., Any], int, list[int]]] = {
    "permute": (lambda x, net: x.permute(0, 2, 3, 1), 3, GONE),
    "linear after permute": (lambda x, net: net.norm(x).permute(0, 2, 3, 1).sum(1).sum(1), 1, GONE),
    "flatten": (lambda x, net: x.flatten(1), 1, [*range(25, 50), *range(100, 125)]),
    "view": (lambda x, net: x.view(2, 3, 2, 5, 5)[:, :, 1], 1, [0]),
    "cat": (lambda x, net: torch.cat([x, net.norm(x)], 1), 1, [1, 4, 7, 10]),
    "cat of space": (lambda x, net: torch.cat([x, x], 2), 1, GONE),
    "chunk": (lambda x, net: x.chunk(2, 1)[1], 1, [1]),
    "split": (lambda x, net: x.split([2, 4], 1)[1], 1, [2]),
    "select": (lambda x, net: x.transpose(0, 1)[:4].mean((1, 2, 3), keepdim=True), 0, [1]),
    "stack": (lambda x, net: torch.stack([x, x], 2).mean((3, 4)), 1, GONE),
    "group_norm": (
        lambda x, net: F.group_norm(torch.stack([x, net.norm(x)], 2).flatten(1, 2), 6),
        1,
        [2, 3, 8, 9],
    ),
    "group_norm of parts of groups": (lambda x, net: F.group_norm(x, 2), 1, []),
    "unsqueeze": (lambda x, net: x.unsqueeze(1).squeeze(1), 1, GONE),
    "repeat": (lambda x, net: x.repeat(1, 2, 1, 1), 1, [1, 4, 7, 10]),
    "repeat_interleave": (lambda x, net: x.repeat_interleave(2, 1), 1, [2, 3, 8, 9]),
    "channel_shuffle": (lambda x, net: F.channel_shuffle(x, 2), 1, [2, 3]),
    "pixel_shuffle": (lambda x, net: F.pixel_shuffle(torch.cat([x[:, 1:2]] * 4 + [x[:, :4]], 1), 2), 1, [0]),
    "zeros": (lambda x, net: torch.cat([x, torch.zeros_like(x[:, :2])], 1), 1, [1, 4, 6, 7]),
    "pad of channels": (lambda x, net: F.pad(x, (0, 0, 0, 0, 1, 1)), 1, [0, 2, 5, 7]),
}


@pytest.mark.parametrize("name", MOVES)
def test_constants_move_with_their_positions(name: str) -> None:
    function, dim, wanted = MOVES[name]
    _, state = judge(*follow(function))
    assert channel(state, dim) == wanted


NEARLYS: dict[str, Callable[..., Any]] = {
    "zero padding": lambda x, net: F.pad(x, (1, 1, 1, 1)),
    "counting zeros": lambda x, net: F.avg_pool2d(x, 3, 1, 1),
    "padded convolution": lambda x, net: F.conv2d(x, torch.ones(6, 1, 3, 3), padding=1, groups=6),
}


@pytest.mark.parametrize("name", NEARLYS)
def test_border_of_padded_zeros_is_not_exact(name: str) -> None:
    _, state = judge(*follow(NEARLYS[name]))
    assert channel(state) == []
    if name != "padded convolution":  # its weight is no parameter
        assert bool((state[:, GONE] == NEARLY).all())


LOSES: dict[str, Callable[..., Any]] = {
    "sum with something alive": lambda x, net: x + x.flip(1),
    "layer_norm": lambda x, net: F.layer_norm(x, x.shape[1:]),
    "softmax": lambda x, net: x.softmax(1),
    "cumsum": lambda x, net: x.cumsum(1),
    "random": lambda x, net: x + torch.rand_like(x),
    "rounded": lambda x, net: (x * 10).to(torch.int64) * 1.0,
    "weights that are not known": lambda x, net: F.conv2d(
        x.sigmoid(), x.mean((0, 2, 3)).expand(6, 6)[..., None, None]
    ),
    "batch statistics": lambda x, net: F.batch_norm(x, None, None, training=True),
    "written elsewhere": lambda x, net: _written(x),
}


def _written(x: Tensor) -> Tensor:
    x[:, 1].add_(x[:, 0])  # a view of what is constant is overwritten
    return x * 1


@pytest.mark.parametrize("name", LOSES)
def test_what_depends_on_the_input_is_unknown(name: str) -> None:
    _, state = judge(*follow(LOSES[name]))
    if name != "sum with something alive":
        assert 1 not in channel(state)


def test_zero_times_anything_is_zero() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma, self.inner = nn.Parameter(torch.randn(4)), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.gamma

    net = Gated()
    with torch.no_grad():
        net.gamma[3] = 0  # by chance: it may be trained
    keep = torch.tensor([True, False, True, True])
    snapshot = secateur.PruningIR(net).create_snapshot("main", (torch.randn(2, 3),))
    constants = Forward(snapshot.analysis, net, {"gamma": keep}).run()
    state = constants.made[snapshot.graph.nodes[-1].index][0].state
    assert state.tolist() == [[UNKNOWN, EXACTLY, UNKNOWN, UNKNOWN]] * 2


def test_taps_of_a_padded_convolution_are_counted() -> None:
    from secateur.masks._layers import _taps

    for size, kernel, stride, padding, dilation in (
        (7, 3, 1, 1, 1),
        (8, 3, 2, 1, 1),
        (9, 5, 3, 2, 2),
        (4, 7, 1, 3, 1),
    ):
        x = torch.ones(1, 1, size, size, dtype=torch.float64)
        arguments = {"stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2}
        made = F.conv2d(x, torch.ones(1, 1, kernel, kernel, dtype=torch.float64), **arguments).shape[2:]
        shares = _taps(arguments, (kernel, kernel), (size, size), made, False)
        for tap in range(kernel**2):
            weight = torch.zeros(1, 1, kernel, kernel, dtype=torch.float64)
            weight.view(-1)[tap] = 1
            assert math.isclose(
                float(F.conv2d(x, weight, **arguments).mean()), float(shares[tap]), abs_tol=1e-12
            )
