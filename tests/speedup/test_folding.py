"""Constants are folded into biases: exactly where that is possible, and as asked where it is not."""

import copy

import pytest
import torch
from torch import nn

import secateur
from speedup.checks import columns, error, masked_copy, randomise, rows, speed_up

X = torch.randn(2, 3, 12, 12)


class ConvBnRelu(nn.Module):
    """Three convolutions with BatchNorm; the kernel sizes and paddings decide what is exact."""

    def __init__(self, kernel: int = 1, padding: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, kernel, padding=padding, bias=bias)
        self.bn2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sigmoid(self.bn1(self.conv1(x)))
        x = torch.tanh(self.bn2(self.conv2(x))) ** 2
        return self.head(x.mean((2, 3)))


def test_constant_of_batchnorm_goes_into_a_bias_that_was_not_there() -> None:
    net = randomise(ConvBnRelu())
    report = speed_up(net, {"conv1": rows(net.conv1, [0, 5, 6])}, X)
    assert net.conv1.out_channels == net.bn1.num_features == net.conv2.in_channels == 5
    assert net.conv2.bias is not None and net.conv2.bias.shape == (6,)
    assert [change.path for change in report.modules] == ["conv1", "bn1", "conv2"]
    assert report.modules[1].before.startswith("BatchNorm2d(8, ")
    assert report.modules[1].after.startswith("BatchNorm2d(5, ")
    for part in ("parameters", "MACs", "bn1", "sparsity asked 37.5%", "constants folded: 3, biases changed",
                 "of these new: 1", "verification: equal: relative error"):  # fmt: skip
        assert part in str(report), part
    assert [(f.bias, f.created, f.constants, f.exact) for f in report.folded] == [
        ("conv2.bias", True, 3, True)
    ]


def test_constant_goes_into_the_bias_that_is_there() -> None:
    net = randomise(ConvBnRelu(kernel=3, bias=True))
    bias = net.conv2.bias
    report = speed_up(net, {"conv1": rows(net.conv1, [2])}, X)
    assert net.conv2.bias is bias and not report.folded[0].created


def test_layers_in_a_row_fold_into_each_other() -> None:
    net = randomise(ConvBnRelu())
    masks = {"conv1": rows(net.conv1, [0, 1]), "conv2": rows(net.conv2, [3, 4])}
    report = speed_up(net, masks, X)
    assert net.conv2.weight.shape == (4, 6, 1, 1)
    assert {f.bias for f in report.folded} <= {"conv2.bias", "head.bias"}


def test_padded_convolution_folds_and_reports_the_error_that_a_user_measures() -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    masks = {"conv1": rows(net.conv1, [0, 1, 2])}
    reference = masked_copy(net, masks)
    report = secateur.speedup(net, (X,), masks=masks)
    assert net.conv1.out_channels == 5
    assert not report.exact and "conv2.bias: 3 constants" in report.inexact[0]
    assert report.error > 1e-4 and error(reference, net, X) == pytest.approx(report.error, rel=0.1)


def test_keep_lets_one_constant_stand_in_for_all() -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    report = speed_up(net, {"conv1": rows(net.conv1, [0, 1, 2])}, X, on_inexact="keep")
    assert report.exact and net.conv1.out_channels == 6
    assert "reads it in place of other constants" in str(report)


def test_raise_says_what_is_inexact_and_changes_nothing() -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(secateur.SurgeryError, match=r"conv1, 3 of 8.*conv2d.*in conv2"):
        secateur.speedup(net, (X,), masks={"conv1": rows(net.conv1, [0, 1, 2])}, on_inexact="raise")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert net.conv2.bias is None


def test_a_constant_that_relu_makes_zero_is_exact_before_padding() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)))
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([-1.0, -0.5, 0.5, 1.0]))
    report = speed_up(net, {"0": rows(net[0], [0, 1])}, X, on_inexact="raise")
    assert net[0].out_channels == 2 and report.folded == []


@pytest.mark.parametrize("on_inexact", ["fold", "keep"])
def test_what_is_masked_and_stays_is_zero(on_inexact: str) -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    mask = (torch.rand_like(net.conv2.weight) > 0.5).float()
    speed_up(net, {"conv2": {"weight": mask}}, X, on_inexact=on_inexact)
    assert torch.equal(net.conv2.weight == 0, mask == 0)


def test_every_channel_masked_leaves_one_and_says_so() -> None:
    net = randomise(ConvBnRelu())
    report = speed_up(net, {"conv1": rows(net.conv1, list(range(8)))}, X)
    assert net.conv1.out_channels == 1
    assert "conv1 channel 0 stays: a layer cannot be empty" in str(report)


def test_input_channel_masks_shrink_the_producer() -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    report = speed_up(net, {"conv2": columns(net.conv2, [1, 4])}, X)
    assert net.conv1.out_channels == 6 and report.exact and not report.folded


def test_masks_on_batchnorm_count() -> None:
    net = randomise(ConvBnRelu(kernel=3, padding=1))
    mask = torch.ones(8)
    mask[2:5] = 0
    report = speed_up(net, {"bn1": {"weight": mask, "bias": mask}}, X)
    assert net.conv1.out_channels == 5 and not report.exact  # sigmoid(0) is no zero
    net = randomise(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    )
    report = speed_up(net, {"1": {"weight": mask, "bias": mask}}, X)
    assert net[0].out_channels == 5 and report.exact
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3)))
    report = speed_up(net, {"1": {"weight": mask}}, X)  # the shift stays, as a constant
    assert net[0].out_channels == 5 and report.exact


def test_a_mask_on_the_bias_of_batchnorm_alone_hides_it_and_nothing_else() -> None:
    net = randomise(ConvBnRelu())
    mask = torch.ones(8)
    mask[2:5] = 0
    report = speed_up(net, {"bn1": {"bias": mask}}, X)
    assert net.conv1.out_channels == 8 and bool((net.bn1.bias[2:5] == 0).all())
    assert "bn1 channels 2, 3, 4 stay" in str(report)


def test_a_shared_layer_that_gets_different_constants_keeps_them() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 6), nn.Linear(3, 6)
            self.shared = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.shared(self.first(x)) + self.shared(self.second(x)).tanh()

    net = randomise(Shared())
    masks = {"first": rows(net.first, [0, 1]), "second": rows(net.second, [0, 1])}
    report = speed_up(net, masks, torch.randn(4, 3))
    assert net.shared.in_features == 6 and "another constant in every call of a shared layer" in str(report)
    with torch.no_grad():
        net.second.bias[0:2] = net.first.bias[0:2]
    speed_up(net, masks, torch.randn(4, 3))
    assert net.shared.in_features == 4
