"""Coupled layers: what has to go together, what stays alone, and what the report says about it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speedup.checks import randomise, rows, speed_up

X = torch.randn(2, 3, 16, 16)


class Block(nn.Module):
    """A residual block with BatchNorm."""

    def __init__(self, width: int, dims: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
        self.conv1, self.bn1 = conv(width, width, 1, bias=False), norm(width)
        self.conv2, self.bn2 = conv(width, width, 1, bias=False), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


class Residual(nn.Module):
    """A stem, two residual blocks and a head."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.stem = conv(3, 8, 3)
        self.layer0, self.layer1 = Block(8, dims), Block(8, dims)
        self.head = nn.Linear(8, 4)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.layer0(self.stem(x)))
        return self.head(x.mean(tuple(range(2, 2 + self.dims))))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_residual_stream_masked_everywhere_goes(dims: int) -> None:
    net = randomise(Residual(dims))
    gone = [1, 2, 6]
    masks = {name: rows(net.get_submodule(name), gone) for name in ("stem", "layer0.conv2", "layer1.conv2")}
    report = speed_up(net, masks, torch.randn(2, 3, *[8] * dims))
    assert net.stem.out_channels == net.head.in_features == 5
    assert report.exact and report.folded


def test_mask_on_one_member_stays_and_the_report_names_the_shortcut() -> None:
    net = randomise(Residual())
    masks = {"layer0.conv2": rows(net.layer0.conv2, [7])}
    report = speed_up(net, masks, X)
    assert net.layer0.conv2.out_channels == 8
    assert "layer0.conv2 channel 7 stays: the shortcut that it is added to is alive (add in layer0" in str(
        report
    )
    assert bool((net.layer0.conv2.weight[7] == 0).all())


def test_inner_width_of_a_block_needs_no_other() -> None:
    net = randomise(Residual())
    speed_up(net, {"layer0.conv1": rows(net.layer0.conv1, [0, 1])}, X)
    assert net.layer0.conv1.out_channels == net.layer0.conv2.in_channels == 6


class Depthwise(nn.Module):
    """Point-wise, depthwise, point-wise."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.relu6(self.bn2(self.depth(F.relu6(self.bn1(self.expand(x)))))))


def test_mask_on_either_of_pointwise_and_depthwise_takes_both() -> None:
    net = randomise(Depthwise())
    report = speed_up(net, {"depth": rows(net.depth, [1, 5])}, X)
    assert net.expand.out_channels == net.depth.groups == net.project.in_channels == 6
    assert report.exact  # the depthwise layer reads nothing of what is there
    net = randomise(Depthwise())
    report = speed_up(net, {"expand": rows(net.expand, [1, 5])}, X)
    assert net.depth.in_channels == 6


class Grouped(nn.Module):
    """A grouped convolution between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 8, 1, groups=4)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.first(x).relu()).relu())


def test_a_whole_group_goes() -> None:
    net = randomise(Grouped())
    speed_up(net, {"grouped": rows(net.grouped, [2, 3])}, X)
    assert (net.grouped.groups, net.grouped.out_channels, net.first.out_channels) == (3, 6, 9)


def test_the_same_channel_of_every_group_goes() -> None:
    net = randomise(Grouped())
    speed_up(net, {"first": rows(net.first, [1, 4, 7, 10])}, X)
    assert (net.grouped.groups, net.grouped.in_channels, net.first.out_channels) == (4, 8, 8)


def test_other_channels_in_every_group_change_places() -> None:
    net = randomise(Grouped())
    masks = {"first": rows(net.first, [0, 1, 5, 6, 8, 9]), "grouped": rows(net.grouped, [0, 3, 4, 7])}
    report = speed_up(net, masks, X)
    assert (net.first.out_channels, net.grouped.out_channels) == (8, 4)
    assert net.grouped.weight.shape == (4, 2, 1, 1) and report.exact
    kept = [s for s in report.stays if s.module == "first"]
    assert sum(len(s.positions) for s in kept) == 2
    assert "every group of a grouped convolution has to lose as many" in str(report)


def test_places_are_changed_in_biases_that_are_created_and_in_statistics() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero, self.first = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 12, 1, bias=False)
            self.norm = nn.BatchNorm2d(12)
            self.grouped = nn.Conv2d(12, 12, 3, groups=3, bias=False)
            self.last = nn.Linear(12 * 36, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.first(self.zero(x).sigmoid())).sigmoid()
            return self.last(self.grouped(x).tanh().flatten(1))

    net = randomise(Net())
    masks = {
        "zero": rows(net.zero, [1]),
        "first": rows(net.first, [1, 4, 5, 10, 11]),
        "grouped": rows(net.grouped, [0, 7, 9]),
    }
    report = speed_up(net, masks, torch.randn(2, 3, 8, 8))
    assert (net.first.out_channels, net.grouped.out_channels, net.last.in_features) == (9, 9, 9 * 36)
    assert report.exact and {f.bias for f in report.folded if f.created} == {"first.bias", "grouped.bias"}


def test_channels_of_groups_that_are_normalised_together_stay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 12, 1), nn.GroupNorm(4, 12)
            self.grouped = nn.Conv2d(12, 8, 1, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.grouped(self.norm(self.first(x))).mean((1, 2, 3))

    net = randomise(Net())
    report = speed_up(net, {"first": rows(net.first, [0, 4, 8, 9])}, X, on_inexact="keep")
    assert net.first.out_channels == 12 and report.exact


def test_channels_that_are_grouped_and_normalised_as_a_whole_stay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(3, 12), nn.LayerNorm(12)
            self.grouped = nn.Conv1d(12, 8, 1, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.grouped(self.norm(self.first(x)).transpose(1, 2))

    net = randomise(Net())
    masks = {"norm": {"weight": torch.tensor([0, 1, 1] * 4)}}  # constants, made from statistics over all
    report = speed_up(net, masks, torch.randn(2, 5, 3))
    assert net.first.out_features == 12 and report.exact
    assert "LayerNorm's mean and variance are taken over it" in str(report)


def test_a_whole_group_of_a_group_norm_goes() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Sigmoid(), nn.Conv2d(8, 2, 1)))
    report = speed_up(net, {"0": rows(net[0], [2, 3, 4])}, X)
    assert net[0].out_channels == 6 and (net[1].num_groups, net[1].num_channels) == (3, 6)
    assert report.exact and "0 channel 4 stays" in str(report)


def test_a_gated_linear_unit_loses_both_halves() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GLU(1), nn.Conv2d(4, 2, 1)))
    report = speed_up(net, {"0": rows(net[0], [1], bias=True)}, X)
    assert net[0].out_channels == 6 and net[2].in_channels == 3 and report.exact


class Joins(nn.Module):
    """Concatenation, a squeeze-and-excitation gate, and two halves."""

    def __init__(self, literal: bool = False) -> None:
        super().__init__()
        self.literal = literal
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 10, 1)
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.left, self.right = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        gate = self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        left, right = (x * gate).split(8, 1) if self.literal else (x * gate).chunk(2, 1)
        return self.left(left) * self.right(right)


def test_concatenation_gate_and_chunk() -> None:
    net = randomise(Joins())
    masks = {
        "a": rows(net.a, [0, 1], bias=True),
        "b": rows(net.b, [8, 9], bias=True),
        "down": rows(net.down, [3]),
    }
    speed_up(net, masks, X)
    assert (net.a.out_channels, net.b.out_channels, net.down.out_channels) == (4, 8, 3)
    assert net.left.in_channels == net.right.in_channels == 6


def test_chunk_keeps_parts_equal_and_says_so() -> None:
    net = randomise(Joins())
    report = speed_up(net, {"a": rows(net.a, [0, 1], bias=True)}, X)
    assert net.a.out_channels == 6 and "the model's code wants parts of equal size" in str(report)


def test_split_by_sizes_that_are_computed() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(5, 3, 1), nn.Conv2d(3, 3, 1)
            self.widths = (5, 3)

        def forward(self, x: Tensor) -> Tensor:
            left, right = torch.split(self.conv(x).relu(), self.widths, 1)
            return self.left(left) + self.right(right)

    net = randomise(Split())
    report = speed_up(net, {"conv": rows(net.conv, [0, 2, 7])}, X)
    assert (net.left.in_channels, net.right.in_channels) == net.widths == (3, 2) and report.exact


def test_split_by_a_size_in_the_code_stays_and_says_so() -> None:
    net = randomise(Joins(literal=True))
    report = speed_up(net, {"b": rows(net.b, [8, 9], bias=True), "a": rows(net.a, [0, 1], bias=True)}, X)
    assert net.left.in_channels == 8 and "b channels 8, 9 stay: " in str(report)


def test_one_output_channel_is_not_depthwise() -> None:
    net = randomise(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3), nn.ReLU(), nn.Conv2d(1, 4, 1))
    )
    report = speed_up(net, {"0": rows(net[0], [1, 2])}, X)
    assert net[2].weight.shape == (1, 6, 3, 3) and net[2].groups == 1 and report.exact


class Transposed(nn.Module):
    """A transposed convolution in a residual sum, and a grouped one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.residual = nn.ConvTranspose2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.up((x + self.residual(x)).relu()).relu())


def test_transposed_convolutions() -> None:
    net = randomise(Transposed())
    gone = [1, 5]
    mask = torch.ones_like(net.residual.weight)
    mask[:, gone] = 0
    masks = {"first": rows(net.first, gone, bias=True), "residual": {"weight": mask, "bias": torch.ones(8)}}
    masks["residual"]["bias"][gone] = 0
    report = speed_up(net, masks, X)
    assert net.first.out_channels == net.up.in_channels == 6 and report.exact


def test_flatten_and_views_by_constants() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8 * 7 * 7, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).sigmoid().reshape(x.shape[0], -1))

    net = randomise(Flat())
    report = speed_up(net, {"conv": rows(net.conv, [0, 3])}, X)
    assert net.fc.in_features == 6 * 49 and report.exact


def test_a_size_written_into_the_code_keeps_what_it_measures_and_names_the_line() -> None:
    class Literal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.fc = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 8, 3, stride=2),
                nn.Linear(288, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(self.first(x).sigmoid()).sigmoid().view(-1, 288))

    net = randomise(Literal())
    report = speed_up(net, {"first": rows(net.first, [2]), "conv": rows(net.conv, [0, 3])}, X)
    assert net.first.out_channels == 7 and net.conv.out_channels == 8
    (staying,) = [s for s in report.stays if s.module == "conv"]
    assert (
        staying.positions == (0, 3) and "aten.view" in staying.reason and "test_coupling.py" in staying.reason
    )
