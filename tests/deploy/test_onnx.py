"""ONNX: real integers in the file, integer kernels in the runtime, and the simulation's numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import secateur
from deployable import Quantised, images, network
from secateur._errors import DeploymentError
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import OnnxModel, int8_config_list, to_onnx


def test_the_runtime_runs_integer_kernels_only(quantised: Quantised) -> None:
    kernels = quantised.report.kernels
    assert kernels["QLinearConv"] == 3
    assert kernels["QGemm"] == 1
    assert kernels["QLinearAdd"] == 1
    assert kernels["QLinearGlobalAveragePool"] == 1
    assert not {"Conv", "Gemm", "Add", "BatchNormalization", "Relu", "Clip", "Pad", "ReduceMean"} & set(
        kernels
    )


def test_the_file_holds_int8_weights_and_int32_biases(quantised: Quantised) -> None:
    graph = onnx.load(quantised.report.path).graph
    types = Counter(onnx.TensorProto.DataType.Name(i.data_type) for i in graph.initializer if len(i.dims) > 1)
    assert types == {"INT8": 4}
    biases = [i for i in graph.initializer if i.data_type == onnx.TensorProto.INT32 and list(i.dims) == [16]]
    assert biases


def test_outputs_are_those_of_the_simulation(quantised: Quantised) -> None:
    agreement = quantised.report.float_agreement
    assert agreement.samples == 68
    assert agreement.top1 >= 0.98
    assert agreement.within_one_step >= 0.99
    assert agreement.relative_error < 0.02
    # The comparison can fail: the float original is further away.
    x = images(64, 5)
    with torch.no_grad():
        simulated, original = quantised.simulated(x), quantised.original(x)
    made = quantised.report.model(x)  # type: ignore[misc]
    assert (simulated - made).norm() < 0.3 * (simulated - original).norm()


def test_the_report_has_size_and_speed_of_both(quantised: Quantised) -> None:
    report = quantised.report
    assert report.bytes == report.path.stat().st_size
    assert report.smaller is not None
    assert report.smaller > 1
    assert report.faster is not None
    assert report.original_latency is not None
    assert report.faster == pytest.approx(report.original_latency.median / report.latency.median)
    assert "QLinearConv" in str(report)
    assert "times smaller than the original" in str(report)


def test_the_batch_is_free(quantised: Quantised) -> None:
    for count in (1, 3, 7):
        x = images(count, count)
        with torch.no_grad():
            torch.testing.assert_close(
                OnnxModel(quantised.report.path)(x), quantised.simulated(x), atol=0.2, rtol=0
            )


def test_weights_take_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3)).eval()
    report = to_onnx(wide, (images(2),), tmp_path / "a.onnx", quantize=[images(8)], original=wide, runs=1)
    assert report.smaller is not None
    assert 3.5 < report.smaller <= 4.0
    assert report.kernels["QLinearConv"] == 2
    assert type(wide[0]) is nn.Conv2d, "the model that was given is left alone"


def test_calibration_keeps_the_means_of_outputs(tmp_path: Path) -> None:
    model, x = network(), images(256)
    with torch.no_grad():
        rounded, _ = PtqQuantizer(network(), int8_config_list(model, (x[:2],))).calibrate([x])
        apart = (rounded(x) - model(x)).mean(0).abs().max()
        report = to_onnx(model, (x[:2],), tmp_path / "a.onnx", quantize=[x], runs=1)
        assert report.model is not None
        corrected = (report.model(x) - model(x)).mean(0).abs().max()
    assert corrected < 0.2 * apart


def test_a_float_model_is_equal_and_its_batch_norm_folded(tmp_path: Path) -> None:
    model = network()
    report = to_onnx(model, (images(1),), tmp_path / "float.onnx", samples=[images(9)], runs=1)
    assert report.agreement.relative_error < 1e-5
    operators = {node.op_type for node in onnx.load(report.path).graph.node}
    assert "BatchNormalization" not in operators


def test_a_pruned_model_goes_the_same_way(tmp_path: Path) -> None:
    model = network()
    small, _ = secateur.prune(model, (images(2),), ratio=0.5)
    report = to_onnx(
        small, (images(2),), tmp_path / "small.onnx", quantize=[images(16)], original=model, runs=1
    )
    assert report.kernels["QLinearConv"] == 3
    assert report.agreement.within_one_step >= 0.95


def test_a_fixed_batch_and_keyword_inputs(tmp_path: Path) -> None:
    model = network()
    report = to_onnx(model, (), tmp_path / "a.onnx", {"x": images(2)}, dynamic_batch=False, runs=1)
    shape = onnx.load(report.path).graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [2, 3, 8, 8]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if bool((x > 0).any()) else x - 1


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="cannot follow Branching"):
        to_onnx(Branching(), (torch.ones(2, 2),), tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(DeploymentError, match="cannot load"):
        OnnxModel(tmp_path / "a.onnx")
