"""Grids, scales and gradients by hand, and against torch's own fake quantisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.compression.quantization import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqPlusQuantizer,
    LsqQuantizer,
    QATQuantizer,
)


def linear(weight: list[list[float]]) -> nn.Sequential:
    """One layer without a bias, with these weights."""
    net = nn.Sequential(nn.Linear(len(weight[0]), len(weight), bias=False))
    net[0].weight.data = torch.tensor(weight)
    return net


def entry(dtype: str, scheme: str = "symmetric", *targets: str, **more: Any) -> dict[str, Any]:
    names = list(targets) or ["weight"]
    return {"op_names": ["0"], "target_names": names, "quant_dtype": dtype, "quant_scheme": scheme, **more}


@pytest.mark.parametrize(
    ("weight", "steps", "zero"),
    [([[1.0, 2.0], [3.0, 5.0]], 5, (0,)), ([[-1.0, 2.0], [3.0, 5.0]], 6, (42, 43))],
)
def test_weights_of_qat(weight: list[list[float]], steps: float, zero: tuple[int, ...]) -> None:  # [34]
    quantizer = QATQuantizer(linear(weight), [entry("uint8", "affine")])
    found = quantizer.get_calibration_config()["0"]["weight"]
    assert float(found["scale"]) == pytest.approx(steps / 255)
    assert int(found["zero_point"]) in zero
    assert float(found["tracked_max"]) == 5 and found["quant_bits"] == 8


def test_inputs_of_qat_are_an_exponential_mean() -> None:  # [34]
    net = linear([[1.0, 1.0]])
    quantizer = QATQuantizer(net, [entry("uint8", "affine", "_input_", "_output_")])
    net(torch.tensor([[1.0, 4.0], [2.0, 1.0]]))
    found = quantizer.get_calibration_config()["0"]
    assert (
        float(found["_input_0"]["scale"]) == pytest.approx(4 / 255)
        and int(found["_input_0"]["zero_point"]) == 0
    )
    net(torch.tensor([[-1.0, 14.0]]))
    found = quantizer.get_calibration_config()["0"]
    assert float(found["_input_0"]["tracked_max"]) == pytest.approx(0.99 * 4 + 0.01 * 14)
    assert float(found["_input_0"]["tracked_min"]) == pytest.approx(0.99 * 1 + 0.01 * -1)
    net.eval()
    net(torch.full((1, 2), 100.0))
    assert float(quantizer.get_calibration_config()["0"]["_input_0"]["tracked_max"]) == pytest.approx(4.1)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int8", -127, 127), ("int2", -1, 1), ("uint8", 0, 255), ("uint4", 0, 15)]
)
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["default", "out_channel", "in_channel"])
def test_torch_rounds_to_the_same_grid(
    dtype: str, low: int, high: int, scheme: str, granularity: str
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    net = linear(weight.tolist())
    QATQuantizer(net, [entry(dtype, scheme, granularity=granularity)])
    dim = {"default": None, "out_channel": 0, "in_channel": 1}[granularity]
    least, most = (
        (weight.min(), weight.max()) if dim is None else (weight.amin(1 - dim), weight.amax(1 - dim))
    )
    if scheme == "symmetric":
        scale = torch.maximum(-least, most) / ((high - low) / 2)
        zero = torch.full_like(scale, (low + high + 1) // 2)
    else:
        least, most = least.clamp(max=0), most.clamp(min=0)
        scale = (most - least) / (high - low)
        zero = (low - (least / scale).round()).clamp(low, high)
    if dim is None:
        expected = torch.fake_quantize_per_tensor_affine(weight, scale, zero.int(), low, high)
    else:
        expected = torch.fake_quantize_per_channel_affine(weight, scale, zero.int(), dim, low, high)
    assert torch.equal(net[0].weight, expected)
    assert net[0].weight.unique().numel() <= (high - low + 1) * (1 if dim is None else scale.numel())


def test_blocks_have_a_scale_each() -> None:
    net = linear([[1.0, 2.2, 33.0, 40.0], [3.0, 4.0, 50.0, 60.0]])
    quantizer = QATQuantizer(net, [entry("int4", granularity=[2, 2])])
    assert quantizer.get_calibration_config()["0"]["weight"]["scale"].tolist() == [
        [pytest.approx(4 / 7), pytest.approx(60 / 7)]
    ]
    steps = torch.tensor([[2, 4, 4, 5], [5, 7, 6, 7]])
    assert torch.allclose(net[0].weight, steps * torch.tensor([[4 / 7, 4 / 7, 60 / 7, 60 / 7]]))


def test_gradients_are_zero_outside_of_the_range() -> None:
    net = linear([[1.0]])
    quantizer = QATQuantizer(net, [entry("int8", "symmetric", "_input_")])
    net(torch.tensor([[1.0], [-1.0]]))
    quantizer.update_calibration_config(
        {"0": {"_input_": {"scale": torch.tensor(0.1), "zero_point": torch.tensor(0)}}}
    )
    net.eval()
    x = torch.tensor([[1.0], [12.7], [12.8], [-20.0]], requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    net = linear([[0.5, -1.0]]).to(dtype)
    QATQuantizer(net, [entry("int8")])
    assert net[0].weight.dtype == dtype
    assert torch.allclose(net[0].weight.float(), torch.tensor([[64 / 127, -1.0]]), rtol=1e-2)


# -- learned scales --------------------------------------------------------------------------------


def test_the_scale_of_lsq_begins_at_the_data() -> None:
    net = linear([[1.0, -3.0], [0.5, 0.5]])
    LsqQuantizer(net, [entry("int4", granularity="out_channel")])
    assert torch.allclose(net[0].weight_scale.flatten(), torch.tensor([2 * 2 / 7**0.5, 2 * 0.5 / 7**0.5]))
    quantizer = LsqQuantizer(linear([[1.0]]), [entry("uint8", "symmetric", "_input_")])
    net = quantizer.bound_model
    assert not torch.equal(net(torch.tensor([[3.0]])), torch.tensor([[3.0]]))
    assert net[0]._input_0_scale.item() == pytest.approx(2 * 3 / 255**0.5)


def test_gradients_of_lsq() -> None:
    """Equation 3 of the paper, by hand, and torch's own learnable fake quantisation."""
    weight = [[0.26, -0.9, 0.5, 3.0, -4.0, 0.0]]
    net = linear(weight)
    LsqQuantizer(net, [entry("int4")])
    scale = net[0].weight_scale
    scale.data.fill_(0.25)
    weights: Tensor = net[0]._parameters["weight"]
    (net[0].weight * torch.arange(1.0, 7)).sum().backward()
    share = 1 / (6 * 7) ** 0.5
    by_hand = [round(0.26 / 0.25) - 0.26 / 0.25, round(-0.9 / 0.25) + 0.9 / 0.25, 0.0, 7.0, -7.0, 0.0]
    assert float(scale.grad) == pytest.approx(
        share * sum(g * (i + 1) for i, g in enumerate(by_hand)), abs=1e-5
    )
    assert weights.grad.flatten().tolist() == [1, 2, 3, 0, 0, 6]
    theirs = torch.tensor([0.25], requires_grad=True)
    out = torch._fake_quantize_learnable_per_tensor_affine(
        torch.tensor(weight), theirs, torch.zeros(1), -7, 7, share
    )
    (out * torch.arange(1.0, 7)).sum().backward()
    assert torch.allclose(theirs.grad, scale.grad, atol=1e-5)


def test_lsq_trains_its_scale_and_deploys_torchs_grid() -> None:
    torch.manual_seed(0)
    net = linear(torch.randn(4, 8).tolist())
    quantizer = LsqQuantizer(net, [entry("int3")])
    x = torch.randn(64, 8)
    optimizer = torch.optim.SGD(quantizer.parameters(), 0.01)
    before = net[0].weight_scale.item()
    wanted = x @ net[0]._parameters["weight"].detach().T
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (net(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        quantizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and net[0].weight_scale.item() != before
    net.eval()
    grid = quantizer.grids()["0"]["weight"]
    own = net[0]._parameters["weight"].detach()
    expected = torch.fake_quantize_per_tensor_affine(own, grid.scale, grid.zero_point, -3, 3)
    assert torch.equal(net[0].weight.detach(), expected)


def test_a_scale_stays_above_zero() -> None:
    net = linear([[1.0, 2.0]])
    quantizer = LsqQuantizer(net, [entry("int8")])
    net[0].weight_scale.data.fill_(-1.0)
    assert torch.isfinite(net[0].weight).all()
    quantizer.step()
    assert net[0].weight_scale.item() > 0


def test_lsq_says_that_it_has_no_zero_point() -> None:
    with pytest.warns(UserWarning, match="LsqPlusQuantizer"):
        quantizer = LsqQuantizer(linear([[1.0, 2.0]]), [entry("int8", "affine")])
    assert int(quantizer.get_calibration_config()["0"]["weight"]["zero_point"]) == 0


def test_lsq_plus_begins_at_the_range_and_learns_both() -> None:
    net = linear([[1.0]])
    quantizer = LsqPlusQuantizer(net, [entry("uint8", "affine", "_input_")])
    net(torch.tensor([[-1.0], [4.0]]))
    assert net[0]._input_0_scale.item() == pytest.approx(5 / 255)
    assert net[0]._input_0_zero_point.item() == pytest.approx(51)
    assert len(quantizer.parameters()) == 2
    x = torch.tensor([[-9.0], [1.0], [9.0]])
    net.zero_grad()
    net(x).sum().backward()
    share = 255**-0.5
    # Outside of the range the zero point has gradient -s, inside none; the scale has q - z outside.
    assert float(net[0]._input_0_zero_point.grad) == pytest.approx(-2 * 5 / 255 * share, rel=1e-4)
    inside = round(1 / (5 / 255)) - 1 / (5 / 255)
    assert float(net[0]._input_0_scale.grad) == pytest.approx((0 - 51 + 255 - 51 + inside) * share, rel=1e-3)


def test_lsq_plus_begins_a_weight_at_three_deviations() -> None:
    net = linear([[1.0, -3.0, 2.0, 4.0]])
    LsqPlusQuantizer(net, [entry("int4")])
    deviation = torch.tensor([1.0, -3.0, 2.0, 4.0]).std(correction=0)
    assert net[0].weight_scale.item() == pytest.approx(float(1 + 3 * deviation) / 7)


# -- DoReFa and BNN --------------------------------------------------------------------------------


def test_weights_of_dorefa() -> None:
    weight = torch.tensor([[0.3, -1.2, 0.0, 2.0]])
    net = linear(weight.tolist())
    DoReFaQuantizer(net, [entry("uint2")])
    unit = weight.tanh() / (2 * weight.tanh().abs().max()) + 0.5
    assert torch.allclose(net[0].weight, 2 * (unit * 3).round() / 3 - 1)
    net = linear(weight.tolist())
    quantizer = DoReFaQuantizer(net, [entry("int8")])
    assert torch.allclose(net[0].weight, (weight.tanh() / weight.tanh().abs().max() * 127).round() / 127)
    assert net[0].weight[0, 2].item() == 0
    assert float(quantizer.get_calibration_config()["0"]["weight"]["scale"]) == pytest.approx(1 / 127)


def test_outputs_and_gradients_of_dorefa() -> None:
    net = nn.Sequential(nn.ReLU())
    DoReFaQuantizer(net, [entry("uint2", "affine", "_output_")])
    x = torch.tensor([[-1.0, 0.2, 0.6, 3.0]], requires_grad=True)
    output = net(x)
    assert torch.allclose(output, torch.tensor([[0, 1 / 3, 2 / 3, 1]]))
    gradients = torch.zeros(4)
    state = torch.random.get_rng_state()
    for _ in range(300):
        x.grad = None
        net(x).backward(torch.tensor([[1.0, 0.5, -0.1, 1.0]]))
        assert x.grad is not None
        gradients += x.grad[0] / 300
    assert torch.equal(torch.random.get_rng_state(), state)  # the noise has a generator of its own
    assert set((gradients == 0).tolist()) == {True, False}
    assert float(gradients[1]) == pytest.approx(0.5, abs=0.07) and float(gradients[2]) == pytest.approx(
        -0.1, abs=0.07
    )


def test_dorefa_without_rounded_gradients() -> None:
    net = nn.Sequential(nn.ReLU())
    DoReFaQuantizer(net, [entry("uint2", "affine", "_output_")], quantize_gradients=False)
    x = torch.tensor([[0.2, 0.6]], requires_grad=True)
    net(x).backward(torch.tensor([[0.123, -0.456]]))
    assert x.grad is not None and torch.allclose(x.grad, torch.tensor([[0.123, -0.456]]))


def test_everything_of_bnn_is_a_sign() -> None:
    net = linear([[0.3, 0.0, -2.0]])
    quantizer = BNNQuantizer(net, [entry("int8", "symmetric", "weight", "_input_", "_output_")])
    x = torch.tensor([[0.5, -3.0, 0.0]], requires_grad=True)
    output = net(x)
    assert output.tolist() == [[-1.0]]  # the sum of 1, -1 and -1
    assert net[0].weight.tolist() == [[1, 1, -1]]
    (net[0].weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert net[0]._parameters["weight"].grad.tolist() == [[1, 2, 0]]
    quantizer.step()
    assert net[0]._parameters["weight"].flatten().tolist() == pytest.approx([0.3, 0.0, -1.0])
