"""Tables of embeddings: rows are looked up as integers and dequantised after that, wherever they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import DeployReport, int8_config_list, to_onnx, to_openvino, to_pt2, to_torch_int8
from secateur.deploy._lookups import look_up_integers
from secateur.deploy._program import program_of
from secateur.operators import DEQUANTIZE, dequantize

ROWS, WIDTH = 500, 8
EMBEDDING = torch.ops.aten.embedding.default
TABLE = {"op_names": ["0"], "target_names": ["weight"]}


def ids(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, ROWS, (count, 5), generator=torch.Generator().manual_seed(seed))


def words() -> nn.Sequential:
    """Rows of very different sizes, the one for padding zero."""
    torch.manual_seed(0)
    table = nn.Embedding(ROWS, WIDTH, padding_idx=2)
    with torch.no_grad():
        table.weight.mul_(torch.linspace(0.1, 9, ROWS)[:, None])
    return nn.Sequential(table, nn.Flatten(), nn.Linear(5 * WIDTH, 3)).eval()


def simulated(**settings: Any) -> nn.Module:
    model, _ = PtqQuantizer(words(), [{**TABLE, **settings}]).calibrate([ids(4)])
    return model


class Table(nn.Module):
    """Integers with a scale for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Buffer(torch.tensor([[1, -2], [3, 4], [5, 127]], dtype=torch.int8))
        self.scale = nn.Buffer(torch.tensor([0.5, 2.0, 0.25]))
        self.zero = nn.Buffer(torch.tensor([1, 0, -3], dtype=torch.int8))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return F.embedding(rows, dequantize(self.steps, self.scale, self.zero, 0))


def test_rows_are_looked_up_before_they_are_dequantised() -> None:
    program = torch.export.export(Table(), (torch.tensor([0, 1]),)).module(check_guards=False)
    assert isinstance(program, torch.fx.GraphModule)
    look_up_integers(program)
    program.recompile()
    assert program(torch.tensor([2, 0])).tolist() == [[2.0, 32.5], [0.0, -1.5]]
    assert not [node for node in program.graph.nodes if node.target is DEQUANTIZE]


@pytest.mark.parametrize("dtype", [("int8", "symmetric"), ("uint8", "affine"), ("uint8", "symmetric")])
@pytest.mark.parametrize("granularity", ["out_channel", "in_channel", "default"])
def test_the_program_computes_the_simulation_bit_for_bit(granularity: str, dtype: tuple[str, str]) -> None:
    model = simulated(quant_dtype=dtype[0], quant_scheme=dtype[1], granularity=granularity)
    program = program_of(model, (ids(4),))
    assert torch.equal(program(ids(64, 1)), model(ids(64, 1)))
    for node in program.graph.nodes:  # nothing makes floats of the whole table
        if node.target is DEQUANTIZE:
            assert node.meta["val"].shape[0] != ROWS


def test_rows_of_zeros_are_zero() -> None:
    model = simulated(quant_dtype="uint8", quant_scheme="affine", granularity="out_channel")
    assert not program_of(model, (ids(4),))(torch.full((2, 5), 2)).sub(words()[2].bias).any()


@pytest.mark.parametrize(
    ("deploy", "name"),
    [(to_onnx, "a.onnx"), (to_pt2, "a.pt2"), (to_torch_int8, "b.pt2"), (to_openvino, "a.xml")],
)
def test_each_runtime_looks_up_integers(
    deploy: Callable[..., DeployReport], name: str, tmp_path: Path
) -> None:
    if deploy is to_openvino:
        pytest.importorskip("openvino")
    model = simulated(quant_dtype="int8", granularity="out_channel")
    report = deploy(model, (ids(4),), tmp_path / name, original=words(), samples=[ids(64, 1)], runs=1)
    # OpenVINO may multiply in half precision; what it looks up is right.
    assert report.float_agreement.relative_error < (2e-2 if deploy is to_openvino else 1e-6)
    assert report.original_bytes is not None
    assert report.bytes < report.original_bytes - ROWS * WIDTH  # of the three that a float is longer


def test_onnx_runtime_keeps_the_table_in_integers(tmp_path: Path) -> None:
    model = simulated(quant_dtype="int8", granularity="out_channel")
    report = to_onnx(model, (ids(4),), tmp_path / "a.onnx", runs=1)
    stored = {(tuple(i.dims), i.data_type) for i in onnx.load(report.path).graph.initializer}
    assert ((ROWS, WIDTH), onnx.TensorProto.INT8) in stored
    assert ((ROWS, WIDTH), onnx.TensorProto.FLOAT) not in stored
    # After its own optimisations: integers and scales are looked up, then multiplied.
    assert (report.kernels["Gather"], report.kernels["Cast"], report.kernels["Mul"]) == (2, 1, 1)
    assert "DequantizeLinear" not in report.kernels


class Tied(nn.Module):
    """A language model whose head is its table, and whose positions are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(ROWS, WIDTH), nn.Embedding(16, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, ROWS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        places = torch.arange(rows.shape[1])
        return self.head(self.norm(self.tokens(rows) + self.positions(places)))


def test_a_tied_table_has_one_grid_and_is_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    config = int8_config_list(model, (ids(2),))
    assert [entry["op_names"] for entry in config] == [["tokens"], ["norm"]]
    quantizer = PtqQuantizer(model, config)
    quantizer.calibrate([ids(8)])
    assert torch.equal(model.head.weight, model.tokens.weight)
    report = to_onnx(model, (ids(2),), tmp_path / "a.onnx", samples=[ids(32, 1)], runs=1)
    assert report.float_agreement.relative_error < 1e-5
    tables = [i for i in onnx.load(report.path).graph.initializer if ROWS in i.dims and WIDTH in i.dims]
    assert [table.data_type for table in tables] == [onnx.TensorProto.INT8]
    assert report.kernels["MatMulIntegerToFloat"] == 1


class Odd(nn.Module):
    """Tables that have to stay: shortened as they are read, summed in bags, or read by other code too."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.bag = nn.Embedding(ROWS, 4, max_norm=1.0), nn.EmbeddingBag(ROWS, 4)
        self.read, self.plain = nn.Embedding(ROWS, 4), nn.Embedding(ROWS, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        looked_up = self.short(rows) + self.read(rows) + self.plain(rows)
        return looked_up.sum(1) + self.bag(rows) + self.read.weight.mean(0)


def test_tables_without_an_integer_form_stay() -> None:
    assert [entry["op_names"] for entry in int8_config_list(Odd(), (ids(2),))] == [["plain"]]


def test_a_table_read_twice_is_stored_once() -> None:
    model = simulated(quant_dtype="int8", granularity="out_channel")

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.model(rows) + self.model(rows.flip(1))

    program = program_of(Twice(), (ids(4),))
    assert sum(value.dtype is torch.int8 for value in program.buffers()) == 1
    assert sum(value.shape == (ROWS, 1) for value in program.buffers()) == 1
    assert sum(node.target is EMBEDDING for node in program.graph.nodes) == 4


@pytest.mark.parametrize("deploy", [to_onnx, to_torch_int8])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_scales_of_input_channels_are_not_taken_for_others(
    deploy: Callable[..., DeployReport], kind: str, tmp_path: Path
) -> None:
    """As many outputs as inputs: runtimes with kernels for scales of outputs would take these."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8) if kind == "linear" else nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.linspace(0.1, 5, 8).reshape(1, 8, *[1] * (layer.weight.dim() - 2)))
    model, x = nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(4, 8, 6, 8)
    weights, *activations = int8_config_list(model, (x,))
    quantizer = PtqQuantizer(model, [{**weights, "granularity": "in_channel"}, *activations])
    quantizer.calibrate([x])
    report = deploy(model, (x,), tmp_path / f"a{'.onnx' if deploy is to_onnx else '.pt2'}", runs=1)
    assert report.float_agreement.relative_error < 1e-3
