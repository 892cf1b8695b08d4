"""NNI's class: both generations of its signature, its methods, its tutorial."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.compression.speedup import ModelSpeedup
from speedup.checks import error, masked_copy, randomise, rows


class TorchModel(nn.Module):
    """The LeNet-like network of NNI's tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, 1)
        self.relu1, self.pool1 = nn.ReLU(), nn.MaxPool2d((2, 2))
        self.conv2 = nn.Conv2d(6, 16, 5, 1)
        self.relu2, self.pool2 = nn.ReLU(), nn.MaxPool2d((2, 2))
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool2(self.relu2(self.conv2(self.pool1(self.relu1(self.conv1(x))))))
        x = torch.flatten(x, 1)
        return F.log_softmax(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x))))), -1)


def tutorial() -> tuple[nn.Module, dict[str, dict[str, Tensor]], Tensor]:
    model = TorchModel()
    conv1_mask = torch.ones_like(model.conv1.weight.data)
    conv1_mask[0:3] = 0
    return model, {"conv1": {"weight": conv1_mask}}, torch.rand(8, 1, 28, 28)


def test_the_tutorial() -> None:
    model, masks, x = tutorial()
    reference = masked_copy(model, masks)
    ModelSpeedup(model, x, masks).speedup_model()
    assert "(conv1): Conv2d(1, 3, kernel_size=(5, 5), stride=(1, 1))" in str(model)
    assert "(conv2): Conv2d(3, 16, kernel_size=(5, 5), stride=(1, 1))" in str(model)
    assert error(reference, model, x) < 1e-6


def test_the_tutorial_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    # The lines of NNI's tutorial, in their order; only the import is another.
    device = torch.device("cpu")
    model = TorchModel().to(device)
    conv1_mask = torch.ones_like(model.conv1.weight.data)
    conv1_mask[0:3] = 0
    masks = {"conv1": {"weight": conv1_mask}}
    print(model)
    model(torch.rand(128, 1, 28, 28).to(device))
    from secateur.compression.speedup import ModelSpeedup

    ModelSpeedup(model, torch.rand(10, 1, 28, 28).to(device), masks).speedup_model()
    print(model)
    model(torch.rand(128, 1, 28, 28).to(device))
    before, after = capsys.readouterr().out.split("TorchModel(")[1:]
    changed = [
        pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    convolution = "Conv2d({}, {}, kernel_size=(5, 5), stride=(1, 1))"
    assert [(one.strip(), other.strip()) for one, other in changed] == [
        ("(conv1): " + convolution.format(1, 6), "(conv1): " + convolution.format(1, 3)),
        ("(conv2): " + convolution.format(6, 16), "(conv2): " + convolution.format(3, 16)),
    ]


def test_one_class_under_all_names() -> None:
    from secateur import compression, speedups

    assert secateur.ModelSpeedup is speedups.ModelSpeedup is compression.speedup.ModelSpeedup


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x, masks: ModelSpeedup(m, x, masks, None, 0, 1),
        lambda m, x, masks: ModelSpeedup(model=m, dummy_input=(x,), masks_file=masks, confidence=1),
        lambda m, x, masks: ModelSpeedup(m, [x], masks_or_file=masks, batch_dim=0, batch_size=1),
        lambda m, x, masks: ModelSpeedup(
            m, {"x": x}, masks, customized_replace_func={}, customized_replacers=[]
        ),
        lambda m, x, masks: ModelSpeedup(m, x, masks, graph_module=torch.fx.symbolic_trace(m)),
        lambda m, x, masks: ModelSpeedup(m, x, masks, logger=None, garbage_collect_values=False),
    ],
)
def test_both_generations_of_the_signature(call: Any) -> None:
    model, masks, x = tutorial()
    reference = masked_copy(model, masks)
    speedup = call(model, x, masks)
    result = speedup.speedup_model()
    assert model.conv1.out_channels == 3 and error(reference, result, x) < 1e-6
    assert speedup.report.exact


def test_a_file_with_a_location(tmp_path: Path) -> None:
    model, masks, x = tutorial()
    torch.save(masks, tmp_path / "masks.pth")
    ModelSpeedup(model, x, str(tmp_path / "masks.pth"), "cpu").speedup_model()
    assert model.conv1.out_channels == 3


def test_stages_one_by_one() -> None:
    model, masks, x = tutorial()
    speedup = ModelSpeedup(model, x, masks)
    speedup.initialize_speedup()
    assert [str(node.op) for node in speedup.node_infos][:2] == ["aten.conv2d.default", "aten.relu.default"]
    speedup.infer_modules_masks()
    inferred = speedup.inferred_masks
    assert bool((inferred["conv2"]["weight"][:, 0:3] == 0).all()) and bool(
        (inferred["fc1"]["weight"] == 1).all()
    )
    inputs, output, parameters = speedup.module_masks("conv2")
    assert inputs[0].shape == (8, 6, 12, 12) and bool(
        (inputs[0][:, :3] == 0).all() & (inputs[0][:, 3:] == 1).all()
    )
    assert bool((output == 1).all()) and set(parameters) == {"weight", "bias"}  # type: ignore[operator]
    assert model.conv1.out_channels == 6  # nothing has changed so far
    speedup.replace_compressed_modules()
    assert model.conv1.out_channels == 3
    speedup.replace_compressed_modules()  # nothing is left to do
    assert model.conv1.out_channels == 3


def test_sweeps_can_be_watched() -> None:
    model, masks, x = tutorial()
    seen: list[str] = []

    class Watched(ModelSpeedup):
        def update_direct_sparsity(self, node: Any) -> None:
            super().update_direct_sparsity(node)
            seen.append(f"forward {node.module}")

        def update_indirect_sparsity(self, node: Any) -> bool:
            seen.append(f"backward {node.module}")
            return super().update_indirect_sparsity(node)

    Watched(model, x, masks).speedup_model()
    assert seen[0] == "forward conv1" and "backward conv1" in seen
    assert model.conv1.out_channels == 3


def test_training_flags_come_back() -> None:
    model, masks, x = tutorial()
    model.train()
    model.conv2.eval()
    ModelSpeedup(model, x, masks).speedup_model()
    assert model.training and model.conv1.training and not model.conv2.training


def test_an_error_changes_nothing() -> None:
    model, masks, _ = tutorial()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(secateur.CaptureError, match="the model's forward raised"):
        ModelSpeedup(model, torch.rand(8, 2, 28, 28), masks).speedup_model()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, a: Tensor, b: Tensor) -> dict[str, Any]:
            hidden = self.left(input=a).relu() + self.right(b).relu()
            return {"y": self.head(hidden), "more": [a.sum(), (b, hidden.mean())]}

    net = randomise(Two())
    a, b = torch.randn(5, 4), torch.randn(5, 3)
    masks = {"left": rows(net.left, [0, 1], bias=True), "right": rows(net.right, [0, 1], bias=True)}
    report = secateur.speedup(net, (a,), {"b": b}, masks)
    assert net.left.out_features == 8 and "a mean is taken over it" in str(report)  # hidden.mean()
    reference = masked_copy(net, masks)
    ModelSpeedup(net, (a, b), {"head": {"weight": torch.ones(2, 8)}}).speedup_model()
    assert error(reference, net, a, b) < 1e-6
