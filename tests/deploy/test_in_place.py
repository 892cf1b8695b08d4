"""Activations and sums in place, as torchvision writes them: every layer still gets an integer kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deployable import images
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import int8_config_list, to_integers, to_onnx


class Block(nn.Module):
    """One activation module for both places, in place; the sum too."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.act(out)


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_every_convolution_has_an_integer_kernel(act: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second, third = (act(inplace=True) for _ in range(3))
    net = nn.Sequential(nn.Conv2d(3, 8, 3), first, Block(second), Block(third)).eval()
    x = images(16)
    report = to_onnx(net, (x[:2],), tmp_path / "a.onnx", quantize=[x], samples=[images(64, 1)], runs=1)
    assert report.kernels["QLinearConv"] == 5
    if act in (nn.ReLU, nn.ReLU6):  # behind others there is no module that only the sum goes through
        assert report.kernels["QLinearAdd"] == 2
    assert not {"Conv", "FusedConv"} & set(report.kernels)
    with torch.no_grad():
        assert report.model is not None
        wanted, made = net(x), report.model(x)
    assert (made - wanted).norm() < 0.03 * wanted.norm()


class Split(nn.Module):
    """One activation module for all parts; code joins what it gives, so no module takes that alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(x.split(4, 1))
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            parts[index] = self.act(norm(conv(parts[index])))
        return torch.cat(parts, 1) * 2


def test_a_kernel_whose_activation_has_no_place_ends_before_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Split()).eval(), images(16)
    report = to_onnx(net, (x[:2],), tmp_path / "a.onnx", quantize=[x], samples=[images(64, 1)], runs=1)
    assert report.kernels["QLinearConv"] == 3
    assert (report.agreement.top1, report.agreement.within_one_step) == (1.0, 1.0)


def test_activations_that_kernels_take_in_are_not_computed() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU6(inplace=True)]
    net, x = nn.Sequential(*layers).eval(), images(4)
    with torch.no_grad():
        simulated, _ = PtqQuantizer(net, int8_config_list(net, (x,))).calibrate([x])
    called = [str(node.target) for node in to_integers(simulated, (x,)).graph.nodes]
    assert [name for name in called if "kernel" in name] == ["kernel_0", "kernel_1"]
    assert not [name for name in called if "relu" in name or "conv" in name or "hardtanh" in name]
