"""NNI's acceptance checks of pruners on its nets S and T, with predictions compared as well."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.pruning.nets import (
    S_CONFIG,
    SimpleTorchModel,
    TorchModel,
    batch_of,
    compact_equals_masked,
    evaluator_of,
    images,
    sparsity,
)
from secateur.compression.pruning import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    ADMMPruner,
    AGPPruner,
    AutoCompressPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    LinearPruner,
    LotteryTicketPruner,
    MovementPruner,
    Pruner,
    SimulatedAnnealingPruner,
    SlimPruner,
    TaylorFOWeightPruner,
)

STEPS = 20
Make = Callable[[nn.Module, list[dict[str, Any]]], Pruner]


def s_config(granularity: str = "out_channel") -> list[dict[str, Any]]:
    return [{**entry, "granularity": granularity} for entry in copy.deepcopy(S_CONFIG)]


def check_s(pruner: Pruner, masks: dict[str, dict[str, Tensor]], side: int) -> None:
    """The assertions that NNI makes after every pruner, and that nothing changes in a speed-up."""
    for targets in masks.values():
        assert sparsity(targets["weight"]) == 0.75
        assert torch.equal(targets["bias"] != 0, (targets["weight"] != 0).flatten(1).any(1))
    assert torch.equal(masks["conv2"]["bias"], masks["conv3"]["bias"])
    small = compact_equals_masked(pruner, images(side=side))
    assert (small.conv1.out_channels, small.conv2.out_channels, small.conv3.out_channels) == (4, 8, 8)
    assert small.fc1.out_features == small.fc2.in_features == 25
    assert small.fc1.in_features == 8 * (side - 4) ** 2


@pytest.mark.parametrize("pruner", [LevelPruner, L1NormPruner, L2NormPruner, FPGMPruner])
def test_norm_pruner(pruner: Any) -> None:  # [1]
    net = SimpleTorchModel(28)
    made = pruner(net, s_config(), dummy_input=images(side=28))
    check_s(made, made.compress()[1], 28)


@pytest.mark.parametrize("pruner", [SlimPruner, TaylorFOWeightPruner])
def test_slim_taylor_pruner(pruner: Any) -> None:  # [2]
    net = SimpleTorchModel()
    made = pruner(net, s_config(), evaluator_of(net), STEPS)
    check_s(made, made.compress()[1], 10)


def test_mvp_pruner() -> None:  # [2]
    net = SimpleTorchModel()
    made = MovementPruner(net, s_config(), evaluator_of(net), 2, 18)
    check_s(made, made.compress(STEPS)[1], 10)


@pytest.mark.parametrize("schedule", [LinearPruner, AGPPruner])
@pytest.mark.parametrize(
    "pruner", [LevelPruner, L1NormPruner, L2NormPruner, FPGMPruner, SlimPruner, TaylorFOWeightPruner]
)
def test_scheduled_pruner(schedule: Any, pruner: Any) -> None:  # [2]
    net = SimpleTorchModel()
    steps = [2] if pruner in (SlimPruner, TaylorFOWeightPruner) else []
    made = schedule(pruner(net, s_config(), evaluator_of(net), *steps), STEPS // 10, 10)
    check_s(made, made.compress(STEPS)[1], 10)


# -- NNI 2.x's checks on T -------------------------------------------------------------------------

FINE = {"granularity": [1, 1]}
PRUNERS: dict[str, Make] = {
    "level": LevelPruner,
    "l1": L1NormPruner,
    "l2": L2NormPruner,
    "fpgm": FPGMPruner,
    "slim": lambda m, c: SlimPruner(m, c, evaluator_of(m), 3, mode="global"),
    "apoz": lambda m, c: ActivationAPoZRankPruner(m, c, evaluator_of(m), 3),
    "mean": lambda m, c: ActivationMeanRankPruner(m, c, evaluator_of(m), 3),
    "taylor": lambda m, c: TaylorFOWeightPruner(m, c, evaluator_of(m), 3),
    "admm": lambda m, c: ADMMPruner(m, c, evaluator_of(m), 2, 1),
    "admm, channels": lambda m, c: ADMMPruner(m, c, evaluator_of(m), 2, 1, "coarse-grained"),
    "movement": lambda m, c: MovementPruner(m, c, evaluator_of(m), 1, 8),
    "linear": lambda m, c: LinearPruner(L1NormPruner(m, c), 3, 3, evaluator_of(m)),
    "agp": lambda m, c: AGPPruner(LevelPruner(m, c), 3, 3, evaluator_of(m)),
    "lottery": lambda m, c: LotteryTicketPruner(m, c, "level", 3, evaluator=evaluator_of(m)),
    "annealing": lambda m, c: SimulatedAnnealingPruner(m, c, evaluator_of(m), stop_temperature=70),
    "autocompress": lambda m, c: AutoCompressPruner(
        m, c, 3, {"iterations": 2, "training_epochs": 1}, {"stop_temperature": 80}, evaluator=evaluator_of(m)
    ),
}


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_reaches_eight_tenths(name: str) -> None:  # [11]
    net = TorchModel()
    config = [{"op_names": ["conv2", "fc1"], "sparse_ratio": 0.8}]
    if name == "annealing":
        config = [{"op_names": ["conv2", "fc1"], "total_sparsity": 0.8}]
    pruner = PRUNERS[name](net, config)
    _, masks = pruner.compress(*([10] if name in ("movement", "linear", "agp") else []))
    weights = [targets["weight"] for targets in masks.values()]
    masked = sum(float((weight == 0).sum()) for weight in weights)
    assert 0.78 < masked / sum(weight.numel() for weight in weights) < 0.82
    compact_equals_masked(pruner, batch_of(net))


def test_counts_of_rounds() -> None:  # [12]
    net = TorchModel()
    config = [{"op_names": ["fc1"], "sparse_ratio": 0.5}]
    assert len(AGPPruner(L1NormPruner(net, config), 1, 5).goals()) == 6
    net = TorchModel()
    assert len(LinearPruner(L1NormPruner(net, config), 1, 5).goals()) == 6
    net = TorchModel()
    ticket = LotteryTicketPruner(net, config, "l1", 5, evaluator=evaluator_of(net, 1))
    ticket.compress()
    assert len(ticket.results) == 5
    scores = iter(range(100))
    net = TorchModel()
    annealing = SimulatedAnnealingPruner(net, config, evaluator_of(net, evaluate=lambda model: next(scores)))
    annealing.compress()
    assert len(annealing.results) == 17
