"""ExecuTorch's files, and the form that programs get for XNNPACK's integer kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

pytest.importorskip("torchao.quantization.pt2e")

from deployable import Quantised, images
from secateur._errors import DeploymentError
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import ExecutorchModel, int8_config_list, to_executorch
from secateur.deploy._program import program_of
from secateur.deploy._pt2e import decompose
from secateur.deploy._xnnpack import suit_xnnpack


class Shapes(nn.Module):
    """Images (batch, 3, 8, 8) to scores (batch, 4), by what integer kernels meet between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.act, self.sum, self.pool = nn.ReLU6(inplace=True), nn.Hardtanh(-0.4, 0.3), nn.MaxPool2d(2)
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.one(x))
        x = self.sum(self.two(F.pad(x, (1, 1, 1, 1))) + x)
        x = F.relu(self.inner(self.pool(x)[..., :2, :2].permute(0, 2, 3, 1)))
        return self.head(x.flatten(1))


def simulated(model: nn.Module, **changes: Any) -> nn.Module:
    config = [{**entry, **changes} for entry in int8_config_list(model, (images(2),))]
    bound, _ = PtqQuantizer(model, config).calibrate([images(32, 1)])
    return bound


def suited(model: nn.Module) -> fx.GraphModule:
    program = program_of(model, (images(4),))
    decompose(program, torch.int8)
    suit_xnnpack(program)
    program.graph.lint()
    return program


def targets(program: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("changes", [{}, {"granularity": "default"}, {"quant_dtype": "int4"}], ids=str)
def test_the_form_for_xnnpack_computes_the_same(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = simulated(Shapes().eval(), **changes)
    program, before = suited(model), program_of(model, (images(4),))
    with torch.no_grad():
        wanted, given = before(images(16, 2)), program(images(16, 2))
    torch.testing.assert_close(given, wanted, atol=1e-6, rtol=1e-5)


def test_every_layer_and_sum_stands_between_integers() -> None:
    torch.manual_seed(0)
    program = suited(simulated(Shapes().eval()))
    made = targets(program)
    assert "aten.relu6_.default" not in made  # the integers' own ends do it
    assert not [
        node for node in program.graph.nodes if len(node.users) > 1 and "dequantize_per_tensor" in node.name
    ]
    for node in program.graph.nodes:
        if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.add.Tensor):
            (reader,) = node.users
            assert "quantize_per_tensor" in reader.name
    assert (
        made.count("quantized_decomposed.choose_qparams_per_token_asymmetric.default") == 2
    )  # both linear ones


def test_layers_without_an_integer_kernel_get_float_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    weights = [{"op_names": ["0", "2"], "target_names": ["weight"], "quant_dtype": "int8"}]
    program = suited(PtqQuantizer(model, weights).calibrate([images(4)])[0])
    assert not [name for name in targets(program) if "quantize" in name]
    with torch.no_grad():
        torch.testing.assert_close(program(images(3)), model(images(3)))


def test_max_batch_has_to_hold_the_example(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    with pytest.raises(DeploymentError, match=r"max_batch .* batch of args \(4\); got 2"):
        to_executorch(nn.ReLU(), (torch.ones(4, 2),), tmp_path / "a.pte", max_batch=2)
    assert not (tmp_path / "a.pte").exists()


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    (tmp_path / "a.pte").write_bytes(b"nothing that ExecuTorch could read")
    with pytest.raises(DeploymentError, match=r"cannot load .*a\.pte"):
        ExecutorchModel(tmp_path / "a.pte")


def test_executorch_computes_with_the_integers_of_the_simulation(
    quantised: Quantised, tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    path = tmp_path / "a.pte"
    report = to_executorch(quantised.simulated, (images(1),), path, samples=[images(64, 5)], runs=2)
    assert report.kernels == {
        "xnnpack.int8.convolution": 3,
        "xnnpack.int8.add": 1,
        "xnnpack.int8.mean": 1,
        "xnnpack.int8.linear": 1,
        "xnnpack.int8.constant_pad_nd": 1,
        "xnnpack.int8.view_copy": 1,
        "xnnpack.float.constant_pad_nd": 1,
    }
    assert report.agreement.top1 == report.agreement.within_one_step == 1.0
    assert report.agreement.relative_error < 1e-5
    assert report.float_agreement.within_one_step >= 0.99
    assert report.bytes == path.stat().st_size
    assert report.runtime.startswith("ExecuTorch 1.")
    one, two = ExecutorchModel(path), ExecutorchModel(path, threads=2)
    for batch in (1, 3, 17, 64):  # two pools of threads in turn
        torch.testing.assert_close(one(images(batch)), two(images(batch)), rtol=0, atol=0)
    with pytest.raises(DeploymentError, match=r"shapes \[\(65, 3, 8, 8\)\].*\[\(64, 3, 8, 8\)\]"):
        one(images(65))
