"""The stream of a transformer stays in floats: only layers read it as integers, all with one grid."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import DeployReport, int8_config_list, to_onnx
from secateur.deploy._program import program_of
from secateur.operators import QUANTIZE

WIDTH, HEADS = 32, 4


class Attention(nn.Module):
    """Queries, keys and values of one input, and the heads' answers side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        made = (layer(x) for layer in (self.query, self.key, self.value))
        parts = [part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in made]
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """One of BERT: every norm is read by layers, and by the sum behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = Attention(), nn.Linear(WIDTH, WIDTH)
        self.wide, self.act, self.narrow = nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + self.out(self.attention(x)))
        return self.second(x + self.narrow(self.act(self.wide(x))))


def blocks() -> nn.Sequential:
    """Norms with outlying channels, as those of language models have."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(WIDTH), Block(), Block()).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[3] = 12
    return net


def streams(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, WIDTH, generator=torch.Generator().manual_seed(seed))


def error_of(names: dict[str, list[str]]) -> float:
    """Of the simulation, relative to the float model."""
    net, settings = blocks(), {"quant_dtype": "uint8", "quant_scheme": "affine"}
    x = streams(16, 3)
    with torch.no_grad():
        wanted = net(x)
        entries = [{"op_names": paths, "target_names": [key], **settings} for key, paths in names.items()]
        PtqQuantizer(net, entries).calibrate([streams(16, 1)])
        return float((net(x) - wanted).norm() / wanted.norm())


def test_only_the_layers_of_a_transformer_read_integers() -> None:
    found = {e["target_names"][0]: e["op_names"] for e in int8_config_list(blocks(), (streams(2),))}
    del found["weight"]
    assert found == {
        "_input_": ["1.attention", "1.wide", "2.attention", "2.wide"],
        "_output_": ["1.attention", "1.act", "2.attention", "2.act"],
    }
    norms = ["0", "1.first", "1.second", "2.first"]
    assert error_of(found) < 0.6 * error_of({"_output_": [*norms, *found["_output_"]]})


def deployed(model: nn.Module, x: Tensor, more: Tensor, folder: Path) -> DeployReport:
    simulated = copy.deepcopy(model)
    with torch.no_grad():
        PtqQuantizer(simulated, int8_config_list(model, (x,))).calibrate([more])
    return to_onnx(simulated, (x,), folder / "a.onnx", samples=[more], runs=1)


def test_every_layer_of_a_transformer_multiplies_integers(tmp_path: Path) -> None:
    report = deployed(blocks(), streams(2), streams(16, 1), tmp_path)
    assert report.kernels["MatMulIntegerToFloat"] == 12
    assert not {"MatMulNBits", "DequantizeLinear", "QLinearAdd"} & set(report.kernels)
    # Once for each place above, though three layers read what an attention takes.
    assert report.kernels["QuantizeLinear"] == 8


def test_equal_grids_of_one_tensor_are_one() -> None:
    net = Attention().eval()
    settings = {"quant_dtype": "uint8", "quant_scheme": "affine", "target_names": ["_input_"]}
    quantizer = PtqQuantizer(net, [{"op_names": ["query", "key", "value"], **settings}])
    _, config = quantizer.calibrate([streams(4)])

    def quantised() -> int:
        return sum(node.target is QUANTIZE for node in program_of(net, (streams(2),)).graph.nodes)

    assert quantised() == 1
    wider = {**config["key"]["_input_0"], "scale": 2 * config["key"]["_input_0"]["scale"]}
    quantizer.update_calibration_config({"key": {"_input_0": wider}})
    assert quantised() == 2
