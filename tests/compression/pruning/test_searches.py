"""Pruners that search or go in rounds: what they find, what they keep, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compression.pruning.nets import TorchModel, batch_of, compact_equals_masked, evaluator_of
from secateur import PruningError
from secateur.compression.pruning import (
    AgentSettings,
    AMCPruner,
    AutoCompressPruner,
    L1NormPruner,
    LotteryTicketPruner,
    SimulatedAnnealingPruner,
)
from secateur.compression.pruning._agent import Agent
from secateur.compression.pruning._splits import find_parts, fit
from secateur.compression.speedup import ModelSpeedup

CONFIG = [{"op_names": ["conv2", "fc1"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.7}]


def first_layer_matters(model: nn.Module) -> float:
    """A score that falls with what ``conv2`` loses."""
    return float((model.get_submodule("conv2").weight != 0).double().mean())


def annealing(**options: Any) -> tuple[SimulatedAnnealingPruner, nn.Module]:
    net = TorchModel()
    evaluator = evaluator_of(net, evaluate=first_layer_matters)
    return SimulatedAnnealingPruner(net, CONFIG, evaluator, **{"pruning_algorithm": "l1"} | options), net


def test_annealing_ends_with_the_best_split_on_the_model() -> None:
    pruner, net = annealing()
    before = torch.get_rng_state()
    pruner.compress()
    assert torch.equal(before, torch.get_rng_state())
    best = max(result.score or 0.0 for result in pruner.results)
    number, model, masks, score, config = pruner.get_best_result()
    assert score == best == first_layer_matters(net) and model is net
    assert pruner.results[number].score == best
    assert all(torch.equal(m, masks[a][b]) for a, t in pruner.get_masks().items() for b, m in t.items())
    by_name = {entry["op_names"][0]: entry["sparse_ratio"] for entry in config}
    assert all(0 <= ratio <= 0.7 for ratio in by_name.values())
    total = by_name["conv2"] * 1250 + by_name["fc1"] * 16000
    assert total == pytest.approx(0.5 * 17250)


def test_annealing_is_the_same_for_the_same_seed() -> None:
    torch.manual_seed(0)
    first, _ = annealing(seed=3)
    torch.manual_seed(0)
    second, _ = annealing(seed=3)
    first.compress()
    second.compress()
    assert [r.ratios for r in first.results] == [r.ratios for r in second.results]


def test_smaller_copies_score_the_same() -> None:
    torch.manual_seed(0)
    whole = SimulatedAnnealingPruner(net := TorchModel(), CONFIG, evaluator_of(net), stop_temperature=80)
    torch.manual_seed(0)
    small = SimulatedAnnealingPruner(
        net := TorchModel(), CONFIG, evaluator_of(net), stop_temperature=80, speedup=True
    )
    whole.compress()
    small.compress()
    scores = [result.score for result in whole.results]
    assert [result.score for result in small.results] == pytest.approx(scores, abs=1e-4)


def test_what_is_kept_of_every_round(tmp_path: Path) -> None:
    pruner, net = annealing(log_dir=tmp_path, keep_intermediate_result=True, stop_temperature=90)
    pruner.compress()
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == len(pruner.results) >= 2
    saved = torch.load(folders[0] / "model.pt", weights_only=True)
    masks = torch.load(folders[0] / "masks.pt", weights_only=True)
    assert bool((saved["fc1.weight"][masks["fc1"]["weight"] == 0] == 0).all())
    assert "weight_mask" not in dict(net.fc1.named_buffers()) or pruner.sites.wrapped


def test_splits_stay_within_their_bounds_or_are_refused() -> None:
    net = TorchModel()
    parts = find_parts(L1NormPruner(net, CONFIG))
    ratios = fit([0.9, 0.1], parts)
    assert ratios[0] == pytest.approx(0.7)
    assert sum(r * p.size for r, p in zip(ratios, parts, strict=True)) == pytest.approx(0.5 * 17250)
    config = [{**CONFIG[0], "total_sparsity": 0.69, "max_sparsity_per_layer": 0.4}]
    with pytest.raises((PruningError, ValueError), match=r"0\.4"):
        SimulatedAnnealingPruner(net := TorchModel(), config, evaluator_of(net), pruning_algorithm="l1")


def test_an_agent_learns_what_is_rewarded() -> None:
    agent = Agent(2, AgentSettings(warmup=30, noise=0.1, averaging=0.1), seed=1)
    before = torch.get_rng_state()
    states = [torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])]
    for _ in range(120):
        actions = [agent.act(state) for state in states]
        agent.learn(states, actions, -((actions[0] - 0.8) ** 2) - (actions[1] - 0.2) ** 2)
    assert agent.best(states[0]) > 0.55 and agent.best(states[1]) < 0.45
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("target", ["flops", "params"])
def test_amc_reaches_its_goal_in_every_episode(target: str) -> None:
    net = TorchModel()
    config = [{"op_names": ["conv1", "conv2", "fc1"], "sparse_ratio": 0.5}]
    pruner = AMCPruner(5, net, config, evaluator_of(net), target=target, ddpg_params={"warmup": 2})
    pruner.compress()
    assert len(pruner.results) == 5
    for result in pruner.results:
        saved = [result.ratios[part.targets[0].module, "weight"] for part in pruner.parts]
        total = sum(ratio * cost for ratio, cost in zip(saved, pruner.costs, strict=True))
        assert total >= 0.5 * sum(pruner.costs) * (1 - 1e-6)
    assert pruner.costs == (
        [8 * 24 * 24 * 125, 8 * 64 * 1250, 8 * 16000] if target == "flops" else [125, 1250, 16000]
    )
    compact_equals_masked(pruner, batch_of(net))


def test_a_ticket_has_its_first_weights_and_its_optimizer() -> None:
    net = TorchModel()
    start = {name: value.detach().clone() for name, value in net.named_parameters()}
    evaluator = evaluator_of(net)
    ticket = LotteryTicketPruner(
        net, [{"op_names": ["fc1"], "sparse_ratio": 0.75}], "l1", 2, evaluator=evaluator
    )
    ticket.compress()
    shares = [float((r.masks["fc1"]["bias"] == 0).double().mean()) for r in ticket.results]
    assert shares == [0.5, 0.75] and ticket.get_best_result()[0] == 1
    assert all(torch.equal(value, start[name]) for name, value in net.named_parameters())
    assert not evaluator.optimizers()[0].state  # as it was before the first round
    with pytest.raises(PruningError, match="all 2 rounds are over"):
        ticket.next_round()


def test_weights_stay_trained_without_rewinding() -> None:
    net = TorchModel()
    start = net.fc2.weight.detach().clone()
    LotteryTicketPruner(
        net, [{"op_names": ["fc1"], "sparse_ratio": 0.5}], "taylorfo", 2, evaluator=evaluator_of(net),
        reset_weight=False, pruning_params={"training_steps": 2},
    ).compress()  # fmt: skip
    assert not torch.equal(net.fc2.weight, start)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: LotteryTicketPruner(m, CONFIG, "l3", 2), "pruning_algorithm is one of"),
        (lambda m: LotteryTicketPruner(m, CONFIG, "l1", 0), "total_iteration is at least 1"),
        (lambda m: AutoCompressPruner(m, CONFIG, 1), "needs an evaluator"),
        (lambda m: AMCPruner(1, m, CONFIG, evaluator_of(m), target="watts"), "'flops' or 'params'"),
        (lambda m: AMCPruner(1, m, CONFIG, evaluator_of(m), ddpg_params={"gamma": 1}), "unknown settings"),
        (lambda m: AMCPruner(1, m, CONFIG), "dummy_input"),
        (lambda m: SimulatedAnnealingPruner(m, CONFIG, None, cool_down_rate=1.0), "cool_down_rate"),
        (lambda m: SimulatedAnnealingPruner(m, CONFIG).compress(), "needs an evaluator"),
        (lambda m: SimulatedAnnealingPruner(m, CONFIG, evaluator_of(m)).compress(5), "does not train"),
        (lambda m: L1NormPruner(m, CONFIG).compress(max_steps=3), "does not train that long"),
        (lambda m: L1NormPruner(m, CONFIG, mode="fast"), "mode is one of"),
        (lambda m: LotteryTicketPruner(m, CONFIG, "l1", 2).get_best_result(), "call compress"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        make(TorchModel())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_exported_files_make_the_same_model(tmp_path: Path, suffix: str) -> None:
    net, x = TorchModel().eval(), batch_of(TorchModel())
    pruner = L1NormPruner(net, [{"op_names": ["conv1", "conv2", "fc1"], "sparse_ratio": 0.5}])
    pruner.compress()
    with torch.no_grad():
        masked = net(x)
    files = tmp_path / f"model.{suffix}", tmp_path / f"masks.{suffix}"
    model, masks = pruner.export_model(*files)
    assert model is net and set(masks) == {"conv1", "conv2", "fc1"}
    assert torch.allclose(net(x), masked, atol=1e-6)  # masked weights are zero now
    other = TorchModel().eval()
    if suffix == "pt":
        other.load_state_dict(torch.load(files[0], weights_only=True))
    else:
        from safetensors.torch import load_file

        other.load_state_dict(load_file(files[0]))
    small = ModelSpeedup(other, x, files[1]).speedup_model()
    with torch.no_grad():
        assert torch.allclose(small(x), masked, atol=1e-5) and small.fc1.out_features == 50
