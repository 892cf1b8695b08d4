"""Masks that are added before a softmax: minus infinity takes no part, so its position can go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.compression.pruning import L1NormPruner, MovementPruner, TaylorFOWeightPruner
from secateur.compression.speedup import ModelSpeedup
from speedup.checks import randomise


class Mixture(nn.Module):
    """Softmax weights over hidden units, which a linear layer reads; and a second softmax, over rows."""

    def __init__(self, functional: bool = False) -> None:
        super().__init__()
        self.gate, self.softmax, self.read = nn.Linear(6, 12), nn.Softmax(-1), nn.Linear(12, 3)
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(x)
        x = F.softmax(x, -1) if self.functional else self.softmax(x)
        x = self.read(x)
        return (x.softmax(-2) * x).sum(-2)


X = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
INPUT = {"op_names": ["softmax"], "target_names": ["_input_"], "sparse_ratio": 0.5, "apply_method": "add"}
OUTPUT = {"op_names": ["gate"], "target_names": ["_output_"], "sparse_ratio": 0.5, "apply_method": "add"}


@pytest.mark.parametrize(("config", "functional"), [(INPUT, False), (OUTPUT, False), (OUTPUT, True)])
@pytest.mark.parametrize("way", ["norm", "taylor", "movement"])
def test_softmax_inputs_masked_by_adding(
    config: dict[str, Any], functional: bool, way: str, tmp_path: Any
) -> None:
    net = randomise(Mixture(functional))
    if way == "norm":
        pruner = L1NormPruner(net, [config], dummy_input=X)
    elif way == "taylor":
        pruner = TaylorFOWeightPruner(net, [config], training_steps=1, dummy_input=X)
    else:
        pruner = MovementPruner(net, [config], None, 0, 1, dummy_input=X)
    if way == "norm":
        pruner.compress()
    else:
        net(X).square().sum().backward()
        pruner.step()
    with torch.no_grad():
        masked = net(X)
    model, masks = pruner.export_model(tmp_path / "model.pt", tmp_path / "masks.pt")
    (mask,) = masks[config["op_names"][0]].values()
    assert int((mask == -torch.inf).sum()) == 6 and int((mask == 0).sum()) == 6
    small = ModelSpeedup(model, X, tmp_path / "masks.pt").speedup_model()
    assert small.gate.out_features == small.read.in_features == 6
    with torch.no_grad():
        assert torch.allclose(small(X), masked, atol=1e-6)


def test_the_shares_of_what_is_left_sum_to_one() -> None:
    net = randomise(Mixture())
    pruner = L1NormPruner(net, [INPUT], dummy_input=X)
    pruner.compress()
    weights = net.softmax(net.gate(X))
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 5))
    assert int((weights == 0).all(0).all(0).sum()) == 6


def test_a_softmax_at_the_output_keeps_its_classes() -> None:
    net = randomise(nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1)))
    mask = torch.zeros(1, 6)
    mask[0, 2] = -torch.inf
    before = net(X[0, :, :4])
    with pytest.raises(secateur.SurgeryError, match="1 _input_0"):
        secateur.speedup(net, (X[0, :, :4],), masks={"1": {"_input_0": mask}})
    assert torch.equal(net(X[0, :, :4]), before)


def test_without_additive_masks_a_softmax_stays_whole() -> None:
    net = randomise(Mixture())
    mask = torch.ones(12, 6)
    mask[:6] = 0
    report = secateur.speedup(net, (X,), masks={"gate": {"weight": mask, "bias": mask[:, 0].clone()}})
    assert net.gate.out_features == 12 and report.error < 1e-6


def test_a_weight_has_no_additive_mask() -> None:
    mask = torch.zeros(12, 6)
    mask[0] = -torch.inf
    with pytest.raises(secateur.MaskError, match="gate, target 'weight'"):
        secateur.speedup(Mixture(), (X,), masks={"gate": {"weight": mask}})
