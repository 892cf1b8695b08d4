"""Masks that can be worked out by hand: NNI's own checks, re-created (numbers of its tests in brackets)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.pruning.nets import TorchModel, batch_of, sparsity
from secateur import PruningError
from secateur.compression.pruning import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    SlimPruner,
    TaylorFOWeightPruner,
)
from secateur.compression.pruning._allocate import allocate
from secateur.criteria import geometric_median_distance, l1_norm, l2_norm


def kept(mask: Tensor) -> list[int]:
    """Channels of which anything is kept."""
    return torch.nonzero(mask.flatten(1).any(1) if mask.dim() > 1 else mask).flatten().tolist()


def fill(conv: Any, values: list[float]) -> None:
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(values).reshape(-1, 1, 1, 1).expand(conv.weight.shape))


def one(module: nn.Module, pruner: type, ratio: float, **options: Any) -> dict[str, Tensor]:
    net = nn.Sequential(module)
    return pruner(net, [{"op_names": ["0"], "sparse_ratio": ratio, **options}]).compress()[1]["0"]


@pytest.mark.parametrize("pruner", [L1NormPruner, L2NormPruner])
def test_norms_of_filters_filled_with_their_number(pruner: type) -> None:  # [3]
    net = TorchModel()
    fill(net.conv1, [0.0, 1.0, 2.0, 3.0, 4.0])
    fill(net.conv2, [float(i) for i in range(10)])
    config = [{"op_names": ["conv1"], "sparse_ratio": 0.2}, {"op_names": ["conv2"], "sparse_ratio": 0.6}]
    masks = pruner(net, config).compress()[1]
    assert masks["conv1"]["weight"].sum((1, 2, 3)).tolist() == [0, 25, 25, 25, 25]
    assert masks["conv2"]["weight"].sum((1, 2, 3)).tolist() == [0] * 6 + [125] * 4
    assert masks["conv2"]["bias"].tolist() == [0] * 6 + [1] * 4


@pytest.mark.parametrize(("ratio", "gone"), [(0.2, [4, 5]), (0.6, [2, 3, 4, 5, 6, 7])])
def test_fpgm_takes_the_middle(ratio: float, gone: list[int]) -> None:  # [4]
    net = TorchModel()
    fill(net.conv2, [float(i + 1) for i in range(10)])
    masks = FPGMPruner(net, [{"op_names": ["conv2"], "sparse_ratio": ratio}]).compress()[1]
    assert kept(masks["conv2"]["weight"]) == [i for i in range(10) if i not in gone]


def test_metrics() -> None:  # [5]
    distance = geometric_median_distance(torch.tensor([[1.0, 2.0], [4.0, 6.0]]))
    assert distance.tolist() == [5, 5]
    distance = geometric_median_distance(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(distance, torch.full((2,), 2**0.5))
    assert l2_norm(torch.ones(3, 9)).tolist() == [3, 3, 3]
    assert l2_norm(2 * torch.ones(4, 4)).tolist() == [4, 4, 4, 4]
    assert l1_norm(2 * torch.ones(3, 9)).tolist() == [18, 18, 18]
    assert l1_norm(2 * torch.ones(4, 4)).tolist() == [8, 8, 8, 8]


def norms() -> nn.Sequential:
    net = nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm2d(5))
    net[0].weight.data, net[1].weight.data = torch.arange(5.0), -torch.arange(5.0)
    return net


def test_slim_by_the_factors_of_norms() -> None:  # [6]
    masks = SlimPruner(norms(), [{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.2}]).generate_masks()
    for name in ("0", "1"):
        assert masks[name]["weight"].tolist() == masks[name]["bias"].tolist() == [0, 1, 1, 1, 1]
    config = [{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.6, "global_group_id": 1}]
    masks = SlimPruner(norms(), config).generate_masks()
    for name in ("0", "1"):
        assert masks[name]["weight"].tolist() == masks[name]["bias"].tolist() == [0, 0, 0, 1, 1]


def taylor(config: list[dict[str, Any]]) -> dict[str, dict[str, Tensor]]:
    net = TorchModel()
    fill(net.conv1, [0.0, 1.0, 2.0, 3.0, 4.0])
    fill(net.conv2, [10.0 - i for i in range(10)])
    pruner = TaylorFOWeightPruner(net, config, training_steps=2)
    for sign in (1.0, -1.0):
        net.zero_grad()
        (sign * (net.conv1.weight.sum() + net.conv2.weight.sum())).backward()  # gradients are +-1
        pruner.step()
    return pruner.get_masks()


def test_taylor_with_gradients_of_one() -> None:  # [7]
    masks = taylor(
        [{"op_names": ["conv1"], "sparse_ratio": 0.2}, {"op_names": ["conv2"], "sparse_ratio": 0.6}]
    )
    assert kept(masks["conv1"]["weight"]) == [1, 2, 3, 4]
    assert kept(masks["conv2"]["weight"]) == [0, 1, 2, 3]
    masks = taylor([{"op_names": ["conv1", "conv2"], "sparse_ratio": 0.4, "global_group_id": "all"}])
    assert kept(masks["conv1"]["weight"]) == [4]
    assert kept(masks["conv2"]["weight"]) == [0, 1, 2, 3, 4, 5, 6]


def outputs_scored(pruner: type, *batches: list[list[float]]) -> list[float]:
    """Scores of the channels of a layer that puts out what it is given."""
    net = nn.Sequential(nn.Linear(len(batches[0][0]), len(batches[0][0]), bias=False))
    nn.init.eye_(net[0].weight)
    scorer = pruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}], training_steps=len(batches))
    for batch in batches:
        net(torch.tensor(batch))
        scorer.step()
    return scorer._scores(scorer.resolved.target("0", "weight")).tolist()


def test_apoz_and_mean_activation() -> None:  # [8]
    a, b = [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert outputs_scored(ActivationAPoZRankPruner, a) == [0.5, 0.5]
    assert outputs_scored(ActivationAPoZRankPruner, [[1.0, 1.0, 0.0], [1.0] * 3], [[1.0] * 3] * 2) == [
        1, 1, 0.75,
    ]  # fmt: skip
    zeros2, zeros3 = [[0.0] * 2] * 2, [[0.0] * 3] * 2
    assert outputs_scored(ActivationMeanRankPruner, a, zeros2) == [0.25, 0.25]
    assert outputs_scored(ActivationMeanRankPruner, b, zeros3) == [0, 0, 0.25]


def test_sequences_and_images_are_scored_along_their_channels() -> None:
    x = torch.zeros(2, 3, 4)
    x[..., 1] = 1.0
    net = nn.Sequential(nn.Linear(4, 4, bias=False))
    nn.init.eye_(net[0].weight)
    pruner = ActivationAPoZRankPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.75}])
    net(x)
    pruner.step()
    assert kept(pruner.get_masks()["0"]["weight"]) == [1]


def test_ratios_are_exact_and_a_global_ratio_is_one_of_elements() -> None:  # [9]
    layers = [nn.Conv2d(1, 5, 5, bias=False), nn.Conv2d(5, 10, 5, bias=False)]
    net = nn.Sequential(*layers)
    masks = LevelPruner(net, [{"op_types": ["Conv2d"], "sparse_ratio": 0.8}]).compress()[1]
    assert all(float(m["weight"].double().mean()) == pytest.approx(0.2, abs=1e-9) for m in masks.values())
    net = nn.Sequential(*[nn.Conv2d(1, 5, 5, bias=False), nn.Conv2d(5, 10, 5, bias=False)])
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.8, "global_group_id": 0}]
    masks = LevelPruner(net, config).compress()[1]
    total = sum(m["weight"].numel() for m in masks.values())
    assert sum(float(m["weight"].sum()) for m in masks.values()) == pytest.approx(0.2 * total)


def test_tiles_of_a_balanced_level_pruner_lose_the_same() -> None:  # [10]
    net = nn.Sequential(nn.Linear(20, 6))
    config = [{"op_names": ["0"], "sparse_ratio": 0.7}]
    mask = LevelPruner(net, config, mode="balance", balance_gran=[5]).compress()[1]["0"]["weight"]
    assert sparsity(mask) == pytest.approx(0.6)
    assert (mask.reshape(6, 4, 5).sum(-1) == 2).all()
    values = net[0].weight.detach().abs().reshape(6, 4, 5)
    assert ((values * mask.reshape(6, 4, 5)).amax(-1) == values.amax(-1)).all()
    with pytest.raises(PruningError, match=r"0\.weight: tiles \(1, 6\) do not divide its shape \(6, 20\)"):
        LevelPruner(nn.Sequential(nn.Linear(20, 6)), config, mode="balance", balance_gran=[6])


def test_rounding_is_down_but_not_by_floating_point() -> None:
    assert int(0.29 * 100) == 28
    mask = one(nn.Linear(4, 100), L1NormPruner, 0.29)["bias"]
    assert int((mask == 0).sum()) == 29
    assert int((one(nn.Linear(4, 5), L1NormPruner, 0.5)["bias"] == 0).sum()) == 2


def test_of_equal_scores_the_first_go() -> None:
    layer = nn.Linear(4, 6)
    nn.init.ones_(layer.weight)
    assert one(layer, L1NormPruner, 0.5)["bias"].tolist() == [0, 0, 0, 1, 1, 1]


def test_single_elements_have_no_median() -> None:
    config = [{"op_names": ["0"], "sparse_ratio": 0.5, "granularity": [1, 1]}]
    with pytest.raises(PruningError, match="LevelPruner"):
        FPGMPruner(nn.Sequential(nn.Linear(2, 2)), config).compress()


@pytest.mark.parametrize(("kind", "blocks"), [([4, 4], 16), ([[4, 4], "back", -1], 16), ("in_channel", 32)])
def test_blocks_are_masked_whole(kind: Any, blocks: int) -> None:
    layer = nn.Linear(32, 16)
    mask = one(layer, L1NormPruner, 0.5, granularity=kind)["weight"]
    assert sparsity(mask) == 0.5
    cells = mask.reshape(4, 4, 8, 4).permute(0, 2, 1, 3).flatten(2) if blocks == 16 else mask.t()
    assert (cells == cells[..., :1]).all()


def test_scores_that_are_not_numbers_are_refused() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(PruningError, match=r"0\.weight .*NaN"):
        one(layer, L1NormPruner, 0.5)


def test_nothing_scored_gives_nothing() -> None:
    assert allocate([]) == {}


@pytest.mark.parametrize("pruner", [LevelPruner, L1NormPruner, L2NormPruner, FPGMPruner])
@pytest.mark.parametrize("mode", ["normal", "global", "dependency_aware"])
def test_single_shots_reach_eight_tenths(pruner: type, mode: str) -> None:  # [11]
    net = TorchModel()
    config = [{"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["fc2", "conv1"], "sparse_ratio": 0.8}]
    masks = pruner(net, config, mode=mode, dummy_input=batch_of(net)).compress()[1]
    weights = [m["weight"] for m in masks.values()]
    total = sum(w.numel() for w in weights)
    assert 0.78 < sum(float((w == 0).sum()) for w in weights) / total < 0.82
