"""Channels of each group in an order of their own: the worst of each group can go together."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import secateur
from oracle import check_cut, difference, outputs, randomise, snapshot_of

IMAGE = (torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)


class ResNeXt(nn.Module):
    """Point-wise, grouped, point-wise; norms between."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 1), norm(12), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), norm(8), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


NORMS = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(4, width),
    "none": lambda width: nn.Identity(),
}


def norms_of_channels(model: ResNeXt) -> torch.Tensor:
    """What each input channel of the grouped convolution counts, (4 groups, 3 channels), by hand."""
    body = model.body
    total = body[0].weight.square().sum((1, 2, 3)) + body[0].bias.square()
    if not isinstance(body[1], nn.Identity):
        total = total + body[1].weight.square() + body[1].bias.square()
    return (
        total.unflatten(0, (4, 3)) + body[3].weight.square().sum((2, 3)).unflatten(0, (4, 2)).sum(1)
    ).detach()


@pytest.mark.parametrize("norm", NORMS)
def test_the_worst_channel_of_each_group_goes(norm: str) -> None:
    model = randomise(ResNeXt(NORMS[norm]).double())
    assert isinstance(model, ResNeXt)
    before = copy.deepcopy(model.state_dict())
    aligned = secateur.align_groups(model, IMAGE)
    assert isinstance(aligned, ResNeXt)
    assert difference(outputs(model, IMAGE, {}), outputs(aligned, IMAGE, {})) < 1e-12
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    wanted = norms_of_channels(model)
    assert wanted.argmin(1).unique().numel() > 1  # the worst stand at different places
    torch.testing.assert_close(norms_of_channels(aligned), wanted.sort(1, descending=True)[0])
    ir = snapshot_of(aligned, IMAGE)
    inner = next(group for group in ir.groups() if group.size == 3)
    small = check_cut(ir, inner.labels[-1:], IMAGE, exact=inner.exact)
    kept = norms_of_channels(model).sort(1, descending=True)[0][:, :2]
    assert small.body[3].weight.shape == (8, 2, 3, 3)
    left = small.body[0].weight.square().sum((1, 2, 3)) + small.body[0].bias.square()
    assert left.sum() < kept.sum()  # what is left of the first layer is a part of what was kept


def test_any_importance() -> None:
    model = randomise(ResNeXt(nn.BatchNorm2d).double())
    aligned = secateur.align_groups(
        model, IMAGE, importance=lambda name, w: w.abs() if name == "body.0.bias" else torch.zeros_like(w)
    )
    biases = aligned.get_parameter("body.0.bias").detach().abs().unflatten(0, (4, 3))
    assert torch.equal(biases, biases.sort(1, descending=True)[0])


class Gram(nn.Module):
    """Groups that are multiplied with each other: their channels have to keep their places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 1), nn.Linear(16, 3)
        self.groups = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).mean((2, 3)).unflatten(1, (self.groups, -1))
        return self.head((x @ x.transpose(1, 2)).flatten(1))


class Shuffled(nn.Module):
    """Grouped convolutions with a channel shuffle between: the second's groups are across the first's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.first, self.shuffle = nn.Conv2d(12, 12, 3, groups=3), nn.ChannelShuffle(3)
        self.second, self.head = nn.Conv2d(12, 8, 3, groups=4), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.shuffle(self.first(self.stem(x).relu())))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Gram, Shuffled])
def test_channels_that_meet_those_of_other_groups_keep_their_places(kind: type[nn.Module]) -> None:
    model = randomise(kind().double())
    aligned = secateur.align_groups(model, IMAGE)
    assert difference(outputs(model, IMAGE, {}), outputs(aligned, IMAGE, {})) < 1e-12


def test_depthwise_convolutions_and_plain_layers_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(96, 2))
    aligned = secateur.align_groups(model.double(), IMAGE)
    assert all(map(torch.equal, model.parameters(), aligned.parameters()))
