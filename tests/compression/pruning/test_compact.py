"""From simulation to speed without a gap: the masked and the compact model predict the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compression.pruning.nets import (
    SmallTransformer,
    TorchModel,
    batch_of,
    compact_equals_masked,
    evaluator_of,
    parameters_of,
)
from secateur.compression.pruning import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    ADMMPruner,
    AGPPruner,
    AMCPruner,
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

Config = list[dict[str, Any]]
CHANNELS: dict[str, Callable[[nn.Module, Config], Pruner]] = {
    "level": LevelPruner,
    "l1": L1NormPruner,
    "l2": L2NormPruner,
    "fpgm": FPGMPruner,
    "slim": lambda m, c: SlimPruner(m, c, evaluator_of(m), 4),
    "apoz": lambda m, c: ActivationAPoZRankPruner(m, c, evaluator_of(m), 2),
    "mean": lambda m, c: ActivationMeanRankPruner(m, c, evaluator_of(m), 2),
    "taylor": lambda m, c: TaylorFOWeightPruner(m, c, evaluator_of(m), 2),
    "movement": lambda m, c: MovementPruner(m, c, evaluator_of(m), 1, 4),
    "admm": lambda m, c: ADMMPruner(m, c, evaluator_of(m), 2, 1, "coarse-grained"),
    "linear": lambda m, c: LinearPruner(L1NormPruner(m, c), 2, 2, evaluator_of(m)),
    "agp": lambda m, c: AGPPruner(TaylorFOWeightPruner(m, c, evaluator_of(m), 1), 2, 2),
    "lottery": lambda m, c: LotteryTicketPruner(m, c, "l1", 2, evaluator=evaluator_of(m)),
    "annealing": lambda m, c: SimulatedAnnealingPruner(
        m, c, evaluator_of(m), stop_temperature=80, pruning_algorithm="l1"
    ),
    "autocompress": lambda m, c: AutoCompressPruner(
        m, c, 2, {"iterations": 1, "granularity": "coarse-grained"},
        {"stop_temperature": 90, "pruning_algorithm": "l1"}, evaluator=evaluator_of(m),
    ),
    "amc": lambda m, c: AMCPruner(4, m, c, evaluator_of(m), ddpg_params={"warmup": 2}),
}  # fmt: skip
CONFIGS: dict[type, Config] = {
    TorchModel: [{"op_names": ["conv1", "conv2", "fc1"], "sparse_ratio": 0.5}],
    SmallTransformer: [{"op_names": ["fc1"], "sparse_ratio": 0.5}],
}
LENGTH = {"movement": 6, "linear": 6, "agp": 6}


@pytest.mark.parametrize("net", [TorchModel, SmallTransformer])
@pytest.mark.parametrize("name", CHANNELS)
def test_every_pruner(name: str, net: Any) -> None:
    model = net()
    config = [{**entry, "granularity": "out_channel"} for entry in CONFIGS[net]]
    before = parameters_of(model)
    pruner = CHANNELS[name](model, config)
    pruner.compress(*([LENGTH[name]] if name in LENGTH else []))
    small = compact_equals_masked(pruner, batch_of(model))
    assert parameters_of(small) < before


def test_heads_of_attention() -> None:
    model = SmallTransformer()
    config = [
        {"op_names": ["query", "key", "value"], "sparse_ratio": 0.5, "granularity": "heads",
         "dependency_group_id": "heads"},
    ]  # fmt: skip
    pruner = L1NormPruner(model, config)
    masks = pruner.compress()[1]
    assert masks["query"]["bias"].reshape(4, 6).any(1).sum() == 2
    small = compact_equals_masked(pruner, batch_of(model))
    assert small.query.out_features == small.out.in_features == 12 and small.num_heads == 2


def test_an_output_aligned_with_an_embedding_prunes_the_stream() -> None:
    model = SmallTransformer()
    stream = [
        {"op_names": ["embed"], "sparse_ratio": 0.25, "dependency_group_id": "auto"},
        {"op_names": ["out", "fc2"], "sparse_ratio": 0.25, "dependency_group_id": "auto"},
    ]
    pruner = L1NormPruner(model, stream, dummy_input=batch_of(model))
    masks = pruner.compress()[1]
    assert torch.equal(masks["embed"]["bias"], masks["fc2"]["bias"])
    compact_equals_masked(pruner, batch_of(model))


def test_masks_of_outputs_and_inputs() -> None:
    model = TorchModel()
    config = [
        {"op_names": ["conv1"], "target_names": ["_output_"], "sparse_ratio": 0.4},
        {"op_names": ["fc2"], "target_names": ["_input_"], "sparse_ratio": 0.5},
    ]
    pruner = L1NormPruner(model, config, dummy_input=batch_of(model))
    pruner.compress()
    small = compact_equals_masked(pruner, batch_of(model))
    assert small.conv1.out_channels == 3 and small.fc1.out_features == 50
