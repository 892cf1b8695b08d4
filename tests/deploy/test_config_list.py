"""What has to be quantised for integer kernels, found in the graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deployable import images, network
from secateur._errors import DeploymentError
from secateur.compression.pruning import L1NormPruner
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import int8_config_list


def named(model: nn.Module) -> dict[str, list[str]]:
    return {entry["target_names"][0]: entry["op_names"] for entry in int8_config_list(model, (images(2),))}


def test_each_tensor_is_named_once_behind_what_is_fused() -> None:
    found = named(network())
    assert found["weight"] == ["stem", "block.eins", "block.drei", "head"]
    # What the stem reads; the inner activation and the mean are seen only where layers read them.
    assert found["_input_"] == ["stem", "block.drei", "head"]
    # Behind the activation of the stem, behind BatchNorm before the sum, and the sum behind its activation.
    assert found["_output_"] == ["act", "block.vier", "block"]


def test_activations_in_place_are_seen_behind_the_activation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    assert named(model)["_output_"] == ["1", "2"]


def test_linear_layers_need_their_inputs_only() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 2))
    assert named(model) == {"weight": ["1", "3"], "_input_": ["0"], "_output_": ["2"]}


def test_a_model_that_is_masked_already_is_refused() -> None:
    model = network()
    pruner = L1NormPruner(model, [{"op_names": ["stem"], "sparse_ratio": 0.5}])
    with pytest.raises(DeploymentError, match=r"simulated on 'stem'.*before any compressor"):
        named(model)
    pruner.unwrap_model()
    assert named(model) == named(network())


def test_operators_that_give_back_what_they_got_are_no_makers() -> None:
    """Dropout in eval mode returns its input."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)).eval()
    entries = int8_config_list(nn.Sequential(net, nn.Linear(8, 2)).eval(), (torch.ones(2, 4),))
    assert entries[0]["op_names"] == ["0.0", "0.2", "1"]
    quantised = [path for entry in entries[1:] for path in entry["op_names"]]
    assert len(quantised) == 3


class Listed(nn.Module):
    """Layers in a list, which takes what its one layer takes, and is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(8, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages[0](x * 2)


def test_only_modules_that_are_called_are_named() -> None:
    net, x = Listed().eval(), torch.randn(4, 8)
    config_list = int8_config_list(net, (x,))
    found = {name for entry in config_list for name in entry["op_names"]}
    assert found == {"stages.0"}
    with torch.no_grad():
        _, calibration = PtqQuantizer(net, config_list).calibrate([x])
    assert {*calibration["stages.0"]} == {"weight", "_input_0"}
