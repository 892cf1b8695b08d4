"""Operator families, name by name: as many groups as one would count by hand, and a half of each goes."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("torchvision")  # some of its operators are among the networks

import secateur
from operator_networks import NETWORKS, sequence
from oracle import check_cut, count, outputs, random_labels, randomise, snapshot_of
from peer_networks import inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_those_counted_by_hand(name: str) -> None:
    build, sizes = NETWORKS[name]
    torch.manual_seed(0)
    model = randomise(build().double())
    args = inputs(model)
    ir = snapshot_of(model, args)
    groups = ir.groups()
    assert not ir.snapshot().analysis.opaque
    assert sorted(group.size for group in groups) == sizes, ir.pinned()
    for share in (0.5, None):
        exact = [group for group in groups if group.exact]
        check_cut(ir, random_labels(exact, 0, share), args, exact=True)
        check_cut(ir, random_labels(groups, 0, share), args, exact=False)
    assert count(check_cut(ir, random_labels(groups, 0), args, exact=False)) < count(model)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(mode: str) -> None:
    model = nn.Sequential(nn.EmbeddingBag(11, 8, mode=mode), nn.Linear(8, 3)).double()
    args = (torch.randint(11, (4, 6)),)
    ir = snapshot_of(model, args)
    assert [(group.size, group.exact) for group in ir.groups()] == [(8, True)]
    small = check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)
    assert small[0].embedding_dim == 4


def test_a_region_under_autocast() -> None:
    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 7), nn.Linear(7, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x = self.second(x).relu()
            return self.head(x.float())

    model, args = Autocast(), (torch.randn(4, 5),)
    ir = snapshot_of(model, args)
    assert [(group.size, group.exact) for group in ir.groups()] == [(8, True), (7, True)]
    labels = random_labels(ir.groups(), 0)
    masked, small = ir.masked(labels=labels), ir.prune(labels=labels, verify=False).model
    assert small.second.weight.shape == (4, 4)
    left, right = (outputs(m, args, {})["output"] for m in (masked, small))
    assert torch.allclose(left, right, atol=2e-2)  # bfloat16 has 8 bits


def test_a_reentrant_checkpoint() -> None:
    model = nn.Sequential(nn.Linear(5, 8), _Checkpointed(), nn.Linear(7, 3)).double()
    args = (torch.randn(4, 5, dtype=torch.float64),)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # torch's, under no_grad
        ir = snapshot_of(model, args)
        assert [group.size for group in ir.groups()] == [8, 7]
        check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=True)


def test_an_operator_of_another_library_is_listed_and_pins_only_what_it_touches() -> None:
    @torch.library.custom_op("secateur_test::halve", mutates_args=())
    def halve(x: torch.Tensor) -> torch.Tensor:
        return x * 0.5

    build = sequence(lambda x, a, b: b(halve(a(x)).relu()), 7, a=nn.Linear(8, 6), b=nn.Linear(6, 7))
    model = randomise(build().double())
    args = inputs(model)
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", args)
    assert sorted(group.size for group in ir.groups()) == [7, 8]
    reasons = {pin.name: pin.reason for pin in ir.pinned()}
    assert reasons["parts.a.weight[0]"] == "no rule for secateur_test.halve.default"
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)
