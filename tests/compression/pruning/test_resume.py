"""Training that is interrupted and goes on elsewhere comes to the same masks and weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compression.pruning.nets import TorchModel, batch_of
from secateur.compression.pruning import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    ADMMPruner,
    AGPPruner,
    L1NormPruner,
    LinearPruner,
    LotteryTicketPruner,
    MovementPruner,
    Pruner,
    SlimPruner,
    TaylorFOWeightPruner,
)

CONFIG = [{"op_names": ["conv1", "conv2", "fc1"], "sparse_ratio": 0.6}]
STEPS = 12
PRUNERS: dict[str, Callable[[nn.Module], Pruner]] = {
    "taylor": lambda m: TaylorFOWeightPruner(m, CONFIG, training_steps=9),
    "apoz": lambda m: ActivationAPoZRankPruner(m, CONFIG, training_steps=9),
    "mean": lambda m: ActivationMeanRankPruner(m, CONFIG, training_steps=9),
    "slim": lambda m: SlimPruner(m, CONFIG, training_steps=9),
    "movement": lambda m: MovementPruner(m, CONFIG, None, 2, 10),
    "admm": lambda m: ADMMPruner(m, CONFIG, None, 3, training_steps=3),
    "agp": lambda m: AGPPruner(L1NormPruner(m, CONFIG), 3, 4),
    "linear taylor": lambda m: LinearPruner(TaylorFOWeightPruner(m, CONFIG, training_steps=3), 4, 3),
    "agp slim": lambda m: AGPPruner(SlimPruner(m, CONFIG, training_steps=2), 3, 3),
}


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, numbers: range) -> None:
    """Some steps of a loop of one's own, always the same for the same numbers."""
    net.train()
    x = batch_of(net)
    for number in numbers:
        random = torch.Generator().manual_seed(number)
        batch = x + 0.1 * torch.randn(x.shape, generator=random)
        labels = torch.randint(10, (len(x),), generator=random)
        optimizer.zero_grad()
        (F.cross_entropy(net(batch), labels) + 0.01 * pruner.penalty()).backward()
        optimizer.step()
        pruner.step()


def fresh(name: str) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    torch.manual_seed(0)
    net = TorchModel()
    pruner = PRUNERS[name](net)
    return net, torch.optim.Adam(net.parameters(), 1e-2), pruner


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", PRUNERS)
def test_an_interrupted_training_ends_the_same(name: str) -> None:
    net, optimizer, pruner = fresh(name)
    steps(net, optimizer, pruner, range(STEPS))
    for stop in (1, 7):
        first = fresh(name)
        steps(*first, range(stop))
        saved = through_a_file([part.state_dict() for part in first])
        again = fresh(name)
        with torch.no_grad():
            for parameter in again[0].parameters():
                parameter.zero_()
        for part, state in zip(again, saved, strict=True):
            part.load_state_dict(state)
        steps(*again, range(stop, STEPS))
        for module, targets in pruner.get_masks().items():
            for target, mask in targets.items():
                assert torch.equal(mask, again[2].get_masks()[module][target]), (stop, module, target)
        wanted = dict(net.state_dict())
        assert all(torch.equal(value, wanted[key]) for key, value in again[0].state_dict().items())
    assert any(bool((mask == 0).any()) for t in pruner.get_masks().values() for mask in t.values())


def test_rounds_go_on_where_they_were() -> None:
    def made() -> tuple[nn.Module, LotteryTicketPruner]:
        torch.manual_seed(0)
        net = TorchModel()
        return net, LotteryTicketPruner(net, CONFIG, "l1", 2)

    def train(net: nn.Module, ticket: LotteryTicketPruner) -> None:
        steps(net, torch.optim.SGD(net.parameters(), 0.1), ticket, range(2))

    net, ticket = made()
    start = {name: value.clone() for name, value in net.named_parameters()}
    for _ in range(2):
        train(net, ticket)
        ticket.next_round()
    first, half = made()
    train(first, half)
    half.next_round()
    saved = through_a_file(half.state_dict())
    other, rest = made()
    other.load_state_dict(first.state_dict())
    rest.load_state_dict(saved)
    train(other, rest)
    rest.next_round()
    masks = ticket.get_masks()
    assert all(torch.equal(mask, rest.get_masks()[m][n]) for m, t in masks.items() for n, mask in t.items())
    assert all(torch.equal(value, start[name]) for name, value in net.named_parameters())  # rewound
    assert int((masks["fc1"]["bias"] == 0).sum()) == 60
