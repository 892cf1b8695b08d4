"""Layers that are written as ``addmm``, with the outputs of their weight in dimension 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import int8_config_list, to_onnx
from secateur.deploy._program import program_of


class Turned(nn.Module):
    """As GPT-2 writes its layers; the class has another name than there."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(wide, narrow)), nn.Parameter(torch.randn(narrow))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return rows.reshape(*x.shape[:-1], -1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Turned(8, 12), nn.ReLU(), Turned(12, 5)).eval()


def test_each_output_has_a_scale_and_an_integer_kernel(tmp_path: Path) -> None:
    net, x = network(), torch.randn(32, 3, 8)
    quantizer = PtqQuantizer(net, int8_config_list(net, (x,)))
    with torch.no_grad():
        simulated, calibration = quantizer.calibrate([x])
    assert calibration["0"]["weight"]["scale"].numel() == 12
    report = to_onnx(simulated, (x,), tmp_path / "a.onnx", runs=1)
    assert report.kernels["QGemm"] == 2
    assert not {"Gemm", "MatMul"} & set(report.kernels)
    assert report.agreement.max_error == 0
    assert report.float_agreement.within_one_step > 0.99


@pytest.mark.parametrize("beta", [1, 2])
def test_a_float_model_computes_the_same(beta: int) -> None:
    class Scaled(Turned):
        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight, beta=beta)

    net, x = Scaled(8, 5).eval(), torch.randn(4, 8)
    program = program_of(net, (x,))
    torch.testing.assert_close(program(x), net(x))
    names = [str(node.target) for node in program.graph.nodes]
    assert ("aten.linear.default" in names) is (beta == 1)
