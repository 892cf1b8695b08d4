"""Where NNI's code departs from its documents, this does what is documented."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.pruning.nets import TorchModel, batch_of, evaluator_of, sparsity
from secateur import ConfigError, PruningError
from secateur.compression.pruning import (
    AGPPruner,
    L1NormPruner,
    LevelPruner,
    MovementPruner,
    SlimPruner,
    TaylorFOWeightPruner,
)


def convs() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3))


GLOBAL = {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": 1}


def masked(config: list[dict[str, Any]], pruner: Any = L1NormPruner) -> list[float]:
    masks = pruner(convs(), config).compress()[1]
    return [sparsity(masks[name]["weight"]) for name in ("0", "2")]


def test_a_global_group_does_not_empty_a_layer() -> None:
    first, second = masked([GLOBAL])
    assert first == 15 / 16 and second < 0.5
    assert (first * 432 + second * 4608) / 5040 <= 0.5


@pytest.mark.parametrize("cap", [0.55, 0.25, 0.9])
def test_a_global_group_heeds_caps(cap: float) -> None:
    assert all(share <= cap for share in masked([{**GLOBAL, "max_sparse_ratio": cap}]))


@pytest.mark.parametrize("floor", [0.45, 0.25])
def test_a_global_group_heeds_floors(floor: float) -> None:
    shares = masked([{**GLOBAL, "min_sparse_ratio": floor}])
    assert all(share >= floor - 1 / 32 for share in shares)


def test_a_global_ratio_of_one_masks_everything() -> None:
    assert masked([{**GLOBAL, "sparse_ratio": 1.0}]) == [1.0, 1.0]


def test_global_and_dependency_groups_combine() -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 20))
    config = [
        {"op_names": ["0", "1"], "sparse_ratio": 0.4, "dependency_group_id": 1, "global_group_id": 1},
        {"op_names": ["2"], "sparse_ratio": 0.4, "global_group_id": 1},
    ]
    masks = L1NormPruner(net, config).compress()[1]
    assert torch.equal(masks["0"]["bias"], masks["1"]["bias"])
    gone = sum(float((masks[n]["weight"] == 0).sum()) for n in "012")
    assert 0.4 * 256 - 16 < gone <= 0.4 * 256


def test_dependency_groups_heed_caps_and_say_what_does_not_fit() -> None:
    config = [
        {"op_names": ["0", "2"], "sparse_ratio": 0.5, "dependency_group_id": 1, "max_sparse_ratio": 0.25}
    ]
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    masks = L1NormPruner(net, config).compress()[1]
    assert int((masks["0"]["bias"] == 0).sum()) == 2
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))
    with pytest.raises((PruningError, ConfigError), match=r"0\.weight.*2\.weight"):
        L1NormPruner(net, config).compress()


@pytest.mark.parametrize("granularity", ["default", "in_channel", [1, 1, 3, 3]])
def test_biases_are_masked_where_whole_rows_are(granularity: Any) -> None:
    config = [{"op_names": ["0"], "sparse_ratio": 0.95, "granularity": granularity}]
    masks = LevelPruner(convs(), config).compress()[1]["0"]
    assert torch.equal(masks["bias"] != 0, (masks["weight"] != 0).flatten(1).any(1))
    assert granularity == "in_channel" or bool((masks["bias"] == 0).any())


def test_the_bias_of_a_norm_is_masked_with_its_weight() -> None:
    net = nn.Sequential(nn.BatchNorm2d(6))
    net[0].weight.data.uniform_()
    masks = L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}]).compress()[1]["0"]
    assert torch.equal(masks["weight"], masks["bias"]) and int(masks["bias"].sum()) == 3


@pytest.mark.parametrize("groups", [1, 2])
def test_output_channels_of_a_transposed_convolution(groups: int) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(8, 16, 3, groups=groups))
    x, bias = torch.randn(2, 8, 5, 5), net[0].bias.detach().clone()
    masks = L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}]).compress()[1]["0"]
    assert masks["bias"].shape == (16,) and int(masks["bias"].sum()) == 8
    out = net(x)
    assert bool((out[:, masks["bias"] == 0] == 0).all())
    assert bool((out[:, masks["bias"] == 1] != bias[masks["bias"] == 1].reshape(1, -1, 1, 1)).any())


def test_a_chain_of_alignments() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    config = [
        {"op_names": ["0"], "sparse_ratio": 0.5},
        {
            "op_names": ["1"],
            "target_names": ["weight", "bias"],
            "target_settings": {
                "weight": {"align": {"module_name": "0", "target_name": "weight", "dims": [0]}},
                "bias": {"align": {"target_name": "weight", "dims": [0]}},
            },
        },
    ]
    masks = L1NormPruner(net, config).compress()[1]
    assert torch.equal(masks["1"]["weight"], masks["0"]["bias"])
    assert torch.equal(masks["1"]["bias"], masks["0"]["bias"]) and int(masks["1"]["bias"].sum()) == 4


def test_an_aligned_output_needs_no_forward_by_hand() -> None:
    net, x = convs(), torch.randn(1, 3, 8, 8)
    config = [
        {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5},
        {
            "op_names": ["1"],
            "target_names": ["_output_"],
            "target_settings": {
                "_output_": {"align": {"module_name": "0", "target_name": "weight", "dims": [0]}}
            },
        },
    ]
    pruner = L1NormPruner(net, config, dummy_input=x)
    masks = pruner.compress()[1]
    assert masks["1"]["_output_0"].shape == (1, 16, 1, 1) and int(masks["1"]["_output_0"].sum()) == 8
    assert int((net[1](net[0](x)) == 0).flatten(2).all(2).sum()) == 8
    with pytest.raises(PruningError, match="dummy_input"):
        L1NormPruner(convs(), config).compress()


def test_learned_factors_are_part_of_the_weights_in_the_end() -> None:
    net = TorchModel()
    pruner = SlimPruner(net, [{"op_names": ["conv1"], "sparse_ratio": 0.4}], evaluator_of(net), 10)
    pruner.compress()
    x = batch_of(net)
    with torch.no_grad():
        while_masked = net.eval()(x)
        masks = pruner.get_masks()
        before = dict(net.named_parameters())["conv1.weight"].clone()
        pruner.unwrap_model()
        assert not torch.equal(before, net.conv1.weight)  # the factors had moved
        for name, mask in masks["conv1"].items():
            getattr(net.conv1, name).mul_(mask)
        assert torch.allclose(net(x), while_masked, atol=1e-6)


def test_thresholds_are_bounded_by_ratios() -> None:
    net = nn.Sequential(nn.Linear(1, 10, bias=False))
    config = {"op_names": ["0"], "sparse_threshold": 4.0}

    def kept(**bounds: float) -> int:
        net[0].weight.data = torch.arange(10.0)[:, None]
        pruner = L1NormPruner(net, [{**config, **bounds}])
        masks = pruner.compress()[1]
        pruner.unwrap_model()
        return int(masks["0"]["weight"].sum())

    assert kept() == 6  # 4 itself is kept
    assert kept(min_sparse_ratio=0.6) == 4
    assert kept(max_sparse_ratio=0.2) == 8


def test_a_threshold_of_movement_pushes_scores_down() -> None:
    net = TorchModel()
    config = [{"op_names": ["fc1"], "sparse_threshold": 0.499, "max_sparse_ratio": 0.9}]
    pruner = MovementPruner(net, config, evaluator_of(net), 1, 8, regular_scale=10.0)
    masks = pruner.compress(10)[1]
    assert 0.1 < sparsity(masks["fc1"]["weight"]) <= 0.9


def test_what_was_masked_can_come_back() -> None:
    net = nn.Sequential(nn.Linear(2, 4, bias=False))
    net[0].weight.data = torch.arange(1.0, 5.0)[:, None].expand(4, 2).clone()
    pruner = L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.25}])
    assert pruner.compress()[1]["0"]["weight"][:, 0].tolist() == [0, 1, 1, 1]
    with torch.no_grad():
        next(net.parameters())[0] = 9.0
    assert pruner.generate_masks()["0"]["weight"][:, 0].tolist() == [1, 0, 1, 1]


def test_bounds_grow_with_the_schedule() -> None:
    net = convs()
    config = [{**GLOBAL, "min_sparse_ratio": 0.4, "max_sparse_ratio": 0.8}]
    pruner = AGPPruner(L1NormPruner(net, config), 1, 4)
    for share in (0.578125, 0.875, 0.984375, 1.0):
        pruner.step()
        settings = pruner.resolved.target("0", "weight").settings
        assert settings.sparse_ratio == pytest.approx(0.5 * share)
        assert settings.min_sparse_ratio == pytest.approx(0.4 * share)
        assert settings.max_sparse_ratio == pytest.approx(0.8 * share)


def test_schedules_refuse_too_little_time() -> None:
    net = TorchModel()
    config = [{"op_names": ["fc1"], "sparse_ratio": 0.5}]
    taylor = TaylorFOWeightPruner(net, config, training_steps=5)
    with pytest.raises(PruningError, match="collects for 5 steps, which is longer than an interval of 3"):
        AGPPruner(taylor, 3, 2)
    with pytest.raises(PruningError, match="warmup_step < cooldown_begin_step"):
        MovementPruner(TorchModel(), config, None, 5, 5)


def test_gradients_of_a_scaled_loss_are_scaled_back() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.a(x)) + F.relu(self.b(x))

    scores = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        net = Net()
        pruner = TaylorFOWeightPruner(net, [{"op_names": ["a"], "sparse_ratio": 0.5}], training_steps=2)
        (scale * net(torch.ones(2, 3)).square().mean()).backward()
        pruner.step(grad_scale=scale)
        scores.append(pruner._scores(pruner.resolved.target("a", "weight")))
    torch.testing.assert_close(scores[0], scores[1])


def test_scores_of_outputs_by_taylor_and_movement() -> None:
    net = TorchModel()
    config = [{"op_names": ["conv1"], "target_names": ["_output_"], "sparse_ratio": 0.4}]
    masks = TaylorFOWeightPruner(net, config, evaluator_of(net), 3).compress()[1]
    assert masks["conv1"]["_output_0"].shape == (1, 5, 1, 1) and int(masks["conv1"]["_output_0"].sum()) == 3
    net = TorchModel()
    masks = MovementPruner(net, config, evaluator_of(net), 1, 4).compress(5)[1]
    assert int(masks["conv1"]["_output_0"].sum()) == 3


def test_frozen_weights_have_no_taylor_score() -> None:
    net = TorchModel()
    net.fc1.weight.requires_grad_(False)
    with pytest.raises(PruningError, match=r"fc1\.weight is frozen"):
        TaylorFOWeightPruner(net, [{"op_names": ["fc1"], "sparse_ratio": 0.5}], training_steps=1)
