"""The simulation with integer arithmetic: hand values, and ONNX Runtime's integers one for one."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deployable import Quantised, images
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import DeployReport, int8_config_list, to_integers, to_onnx
from secateur.deploy._kernels import IntegerLayer, IntegerMean, IntegerSum


def byte(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.uint8)


def linear(factor: float, bias: int, zero: int | None) -> IntegerLayer:
    """Two inputs with zero point 10, weights 3 and -2."""
    weight, no_zero = torch.tensor([[3, -2]], dtype=torch.int8), torch.zeros((), dtype=torch.int8)
    given = torch.tensor([bias], dtype=torch.int32)
    return IntegerLayer(F.linear, (), weight, no_zero, given, torch.tensor(factor), 10, zero, 1)


def test_a_layer_adds_integers_and_rounds_once_to_even() -> None:
    # 3 * (14 - 10) - 2 * (9 - 10) = 14; with the bias 15 and 17, of which a half is 7.5 and 8.5.
    assert linear(0.5, 1, 100)(byte(14, 9)).tolist() == [[108]]
    assert linear(0.5, 3, 100)(byte(14, 9)).tolist() == [[108]]
    assert linear(0.5, 1, None)(byte(14, 9)).tolist() == [[7.5]]


def test_a_layer_stops_at_the_ends_of_a_byte() -> None:
    assert linear(0.5, 2**30, 100)(byte(14, 9)).tolist() == [[255]]
    assert linear(0.5, -(2**30), 100)(byte(14, 9)).tolist() == [[0]]


def test_long_sums_are_exact() -> None:
    weight = torch.full((1, 2**12), 127, dtype=torch.int8)
    weight[0, 0] = 1
    zero, factor = torch.zeros((), dtype=torch.int8), torch.tensor(1.0)
    layer = IntegerLayer(F.linear, (), weight, zero, None, factor, 0, None, 1)
    bias = torch.tensor([-(127 * 255 * (2**12 - 1))], dtype=torch.int32)
    shifted = IntegerLayer(F.linear, (), weight, zero, bias, factor, 0, None, 1)
    full = torch.full((1, 2**12), 255, dtype=torch.uint8)
    assert layer.weight.dtype is torch.float64
    assert shifted(full).item() == 255  # in float32, the last bits of a sum of 132 million are gone


def test_a_sum_and_a_mean_round_to_even() -> None:
    scales = [torch.tensor(value) for value in (0.5, 1.0, 1.0)]
    total = IntegerSum((scales[0], scales[1], scales[2]), (0, 10, 20))
    # 0.5 * 3 + (11 - 10) = 2.5 and 0.5 * 5 + 1 = 3.5, above 20.
    assert total(byte(3, 5), byte(11, 11)).tolist() == [[22, 24]]
    mean = IntegerMean((torch.tensor(1.0), torch.tensor(1.0)), (0, 0))
    image = torch.tensor([[[0, 1], [0, 1]], [[1, 2], [1, 2]]], dtype=torch.uint8)[None]
    assert mean(image).flatten().tolist() == [0, 2]


def test_a_sum_rounds_where_the_runtime_does(tmp_path: Path) -> None:
    """All pairs of integers; at 102 and 187, in exact numbers 166.500002, the order of roundings decides."""
    scales = torch.tensor([0.012054337188601494, 0.011091833002865314, 0.013349310494959354])
    zeros = (112, 131, 129)
    every = torch.arange(256, dtype=torch.uint8)
    a, b = torch.meshgrid(every, every, indexing="ij")
    total = IntegerSum((scales[0], scales[1], scales[2]), zeros)(a, b)
    assert total[102, 187] == 167
    assert torch.equal(total, quantised_sum(a, b, scales, zeros))


def quantised_sum(
    a: torch.Tensor, b: torch.Tensor, scales: torch.Tensor, zeros: tuple[int, int, int]
) -> torch.Tensor:
    """ONNX Runtime's own ``QLinearAdd``."""
    byte, shape = onnx.TensorProto.UINT8, list(a.shape)
    known = [
        onnx.numpy_helper.from_array(value.numpy(), name)
        for name, value in [
            *((f"scale{index}", scale) for index, scale in enumerate(scales)),
            *((f"zero{index}", torch.tensor(zero, dtype=torch.uint8)) for index, zero in enumerate(zeros)),
        ]
    ]
    names = ["a", "scale0", "zero0", "b", "scale1", "zero1", "scale2", "zero2"]
    node = onnx.helper.make_node("QLinearAdd", names, ["c"], domain="com.microsoft")
    given, made = ([onnx.helper.make_tensor_value_info(x, byte, shape) for x in part] for part in ("ab", "c"))
    graph = onnx.helper.make_graph([node], "sum", given, made, known)
    domains = [
        onnx.helper.make_opsetid(domain, version) for domain, version in (("", 17), ("com.microsoft", 1))
    ]
    model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"a": a.numpy(), "b": b.numpy()})[0])


def test_the_runtime_computes_the_same_integers(quantised: Quantised) -> None:
    agreement = quantised.report.agreement
    assert (agreement.top1, agreement.max_error) == (1.0, 0.0)
    # The comparison can fail: simulated in floats it is not the same.
    assert quantised.report.float_agreement.max_error > 0
    assert "against the simulation in floats" in str(quantised.report)


class Branches(nn.Module):
    """What there can be between two kernels: pooling, concatenation, strides, groups, a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.left = nn.Sequential(nn.Conv2d(12, 8, 1), nn.ReLU6())
        self.right = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1, groups=4), nn.ReLU())
        self.join = nn.Conv2d(16, 8, 3, stride=2, padding=1)
        self.head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.join(torch.cat([self.left(x), self.right(x)], 1)).flatten(1))


def deployed(model: nn.Module, folder: Path) -> DeployReport:
    quantizer = PtqQuantizer(model, int8_config_list(model, (images(2),)))
    with torch.no_grad():
        simulated, _ = quantizer.calibrate([images(32, 1)])
    return to_onnx(simulated, (images(2),), folder / "a.onnx", samples=[images(256, 5)], runs=1)


def test_branches_pools_and_heads_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = deployed(Branches().eval(), tmp_path)
    assert report.kernels["QLinearConv"] == 4
    assert (report.agreement.top1, report.agreement.max_error) == (1.0, 0.0)


def test_rows_of_a_sequence_are_added_to_in_floats(tmp_path: Path) -> None:
    """Sums of linear layers between sequences become floats before the bias comes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(2), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    report = deployed(net, tmp_path)
    assert report.kernels["MatMulIntegerToFloat"] == 2
    assert "DequantizeLinear" not in report.kernels
    assert (report.agreement.top1, report.agreement.max_error) == (1.0, 0.0)


def test_a_bias_that_is_too_long_for_its_weight(tmp_path: Path) -> None:
    """A channel whose weight is next to nothing still has its bias, and so has the rest of the layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        net[0].weight[2] *= 1e-9
        net[0].bias.fill_(0.8)  # type: ignore[union-attr]
    report = deployed(net.eval(), tmp_path)
    assert report.agreement.max_error == 0
    assert report.float_agreement.relative_error < 0.02


@pytest.mark.parametrize("rows", [1, 2])
def test_a_float_model_has_no_kernels_of_integers(rows: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    integers = to_integers(net, (images(rows),))
    assert not {IntegerLayer, IntegerSum, IntegerMean} & {type(part) for part in integers.children()}
    x = images(5)
    torch.testing.assert_close(integers(x), net(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("wider", [False, True])
def test_an_activation_inside_of_a_range_stays(wider: bool) -> None:
    """ReLU6 before integers that reach further than it is not what a kernel's ends do."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6()).eval()
    quantizer = PtqQuantizer(net, int8_config_list(net, (images(2),)))
    with torch.no_grad():
        simulated, calibration = quantizer.calibrate([10 * images(8)])
    entry = calibration["1"]["_output_0"]
    scale = entry["scale"] * (2 if wider else 1)
    quantizer.update_calibration_config({"1": {"_output_0": {**entry, "scale": scale}}})
    kernels = [type(part) for part in to_integers(simulated, (images(2),)).children()]
    assert kernels == ([] if wider else [IntegerLayer])
