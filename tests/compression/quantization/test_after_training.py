"""Post-training quantisation: what observers find, biases that are corrected, ranges that are evened out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization.observer import HistogramObserver

from compression.quantization.nets import EVERYTHING, entry, images, trained_like
from secateur import QuantizationError
from secateur.compression.quantization import EqualPair, PtqQuantizer, QATQuantizer, equalize
from secateur.folding import fold_batch_norm


def one_input(
    observer: str, values: torch.Tensor, dtype: str = "int4", scheme: str = "symmetric"
) -> dict[str, Any]:
    """What is known of an input that has these values, in two batches."""
    net = nn.Sequential(nn.Linear(1, 1))
    config = [entry(["0"], "_input_", dtype=dtype, quant_scheme=scheme)]
    quantizer = PtqQuantizer(net, config, observer=observer)
    half = len(values) // 2
    quantizer.calibrate([values[:half, None], values[half:, None]])
    return quantizer.get_calibration_config()["0"]["_input_0"]


def values_with_an_outlier() -> torch.Tensor:
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    values[123] = 30.0
    return values


def squared_error(found: dict[str, Any], values: torch.Tensor, low: int, high: int) -> float:
    rounded = torch.fake_quantize_per_tensor_affine(values, found["scale"], found["zero_point"], low, high)
    return (rounded - values).square().mean().item()


def test_ranges_of_observers() -> None:
    values = values_with_an_outlier()
    assert float(one_input("minmax", values)["scale"]) == pytest.approx(30 / 7)
    percentile = one_input("percentile", values)
    assert float(percentile["tracked_max"]) == pytest.approx(values.quantile(0.99995).item(), abs=0.4)
    theirs = HistogramObserver(
        dtype=torch.qint32, qscheme=torch.per_tensor_symmetric, quant_min=-7, quant_max=7
    )  # fmt: skip
    theirs(values[:20_000]), theirs(values[20_000:])
    scale, _ = theirs.calculate_qparams()
    assert float(one_input("histogram", values)["scale"]) == pytest.approx(scale.item(), rel=1e-4)
    errors = {
        name: squared_error(one_input(name, values), values, -7, 7)
        for name in ("minmax", "mse", "percentile")
    }
    best = min(
        squared_error(
            {"scale": torch.tensor(s / 100), "zero_point": torch.tensor(0, dtype=torch.int32)}, values, -7, 7
        )
        for s in range(20, 430, 2)
    )
    assert (
        best * 0.99 <= errors["mse"] <= best * 1.15
        and errors["mse"] < errors["percentile"] < errors["minmax"]
    )


def test_affine_ranges_of_positive_values_begin_at_zero() -> None:
    for observer in ("minmax", "histogram", "percentile", "mse"):
        found = one_input(observer, values_with_an_outlier().abs(), "uint8", "affine")
        assert int(found["zero_point"]) == 0, observer


def test_mse_of_weights_is_searched_for_each_channel() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(200, 3))
    weight = net[0].weight.data.normal_()
    weight[1, 5] = 40.0
    config = [entry(["0"], "weight", dtype="int4", granularity="out_channel")]
    plain = PtqQuantizer(net, config)
    plain.compress()
    first = (net[0].weight - weight).square().mean(1)
    plain.unwrap_model()
    PtqQuantizer(net, config, weight_observer="mse").compress()
    second = (net[0].weight - weight).square().mean(1)
    assert (second < first).all() and second[0] < 0.8 * first[0]


@pytest.mark.parametrize("fused", [True, False])
def test_biases_are_corrected_on_convolutions(fused: bool) -> None:
    x = images(64)
    names = {"fuse_names": [("c1", "b1", "relu"), ("c2", "b2")]} if fused else {}
    config = [entry(["c1", "c2", "fc"], "weight", dtype="int3", **names)]
    wanted = trained_like()(x).mean(0)
    off = {}
    for correct in (False, True):
        net = trained_like()
        quantizer = PtqQuantizer(net, config, is_bias_correction=correct)
        quantizer.calibrate([x[:32], x[32:]])
        off[correct] = (net(x).mean(0) - wanted).abs().max().item()
    assert off[True] < 0.2 * off[False], off
    assert (net.c1.bias is None) is fused  # where there is no bias and no norm to change, there is one now


def test_bias_correction_makes_the_mean_of_a_layer_exact() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    x = torch.randn(8, 3, 6, 6)
    wanted = net(x).mean((0, 2, 3))
    config = [entry(["0"], "weight", dtype="int2")]
    quantizer = PtqQuantizer(net, config, is_bias_correction=True)
    quantizer.calibrate([x])
    assert torch.allclose(net(x).mean((0, 2, 3)), wanted, atol=1e-5)


def test_calibration_leaves_training_flags_and_weights_alone() -> None:
    net = trained_like().train()
    net.b2.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    quantizer = PtqQuantizer(net, EVERYTHING)
    quantizer.calibrate([images()])
    assert net.training and net.b1.training and not net.b2.training
    quantizer.unwrap_model()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# -- equalisation ----------------------------------------------------------------------------------


def test_ranges_of_a_chain_are_evened_out() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 1), nn.LeakyReLU(), nn.Flatten(), nn.Linear(6 * 4, 5), nn.ReLU6(), nn.Linear(5, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for number in (0, 2, 5):
            net[number].weight *= torch.logspace(-2, 1, len(net[number].weight))[:, None, None, None]
    x = images()
    before = net(x)
    pairs = equalize(net, (x,))
    assert pairs == [EqualPair("0", "2"), EqualPair("2", "5"), EqualPair("5", "8")]  # ReLU6 minds a factor
    assert torch.allclose(net(x), before, atol=1e-5)
    rows, columns = net[2].weight.abs().amax((1, 2, 3)), net[5].weight.abs().amax((0, 2, 3))
    assert torch.allclose(rows, columns, rtol=1e-2)


def test_one_scale_fits_better_after_equalisation() -> None:
    x = images(32)
    errors = []
    for even in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
        net[1].weight.data, net[1].bias.data = torch.logspace(-2, 0, 8), torch.logspace(-2, 0, 8)
        net[3].weight.data /= torch.logspace(-2, 0, 8)[:, None, None]
        net, _ = fold_batch_norm(net, (x,))
        wanted = net(x)
        if even:
            assert equalize(net, (x,)) == [EqualPair("0", "3")]
            assert torch.allclose(net(x), wanted, atol=1e-4)
        PtqQuantizer(net, [entry(["0", "3"], "weight", dtype="int4")]).compress()
        errors.append((net(x) - wanted).square().mean().item())
    assert errors[1] < 0.2 * errors[0], errors


def test_what_has_several_readers_or_owners_is_left_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.d, self.e = nn.Linear(4, 4), nn.Linear(4, 4)
            self.e.weight = self.d.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x).relu()
            x = (self.b(x) + self.c(x)).relu()
            return self.e(self.d(x).relu())

    net = Net()
    assert equalize(net, (torch.ones(1, 4),)) == []
    QATQuantizer(net, [entry(["a"], "weight")])
    with pytest.raises(QuantizationError, match="before"):
        equalize(net, (torch.ones(1, 4),))
