"""What other pruners fail on: cut to half, and equal to the masked model."""

import pytest
import torch
from torch import nn

import secateur
from oracle import check_cut, count, difference, outputs, random_labels, randomise, snapshot_of
from peer_networks import MODEL_OPT, TORCH_PRUNING, inputs

NETWORKS = {**TORCH_PRUNING, **MODEL_OPT}
# Channels by their numbers: index_select's are data, the others stand in the code as literals.
LEAST_REACH = {"index_select": 0.6, "uneven split": 0.6, "channel slice": 0.6}
LITERAL = ["uneven split", "channel slice"]


@pytest.mark.parametrize("name", NETWORKS)
def test_an_operator_that_peers_fail_on(name: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = randomise(NETWORKS[name]().double())
    args = inputs(model)
    ir = snapshot_of(model, args)
    assert not ir.snapshot().analysis.opaque
    assert ir.reach() >= LEAST_REACH.get(name, 0.95), ir.pinned()
    exact = [group for group in ir.groups() if group.exact]
    assert exact
    for share in (0.5, None):
        check_cut(ir, random_labels(exact, 0, share), args, exact=True)
        check_cut(ir, random_labels(ir.groups(), 0, share), args, exact=False)
    assert count(check_cut(ir, random_labels(ir.groups(), 0), args, exact=False)) < 0.8 * count(model)


@pytest.mark.parametrize("name", LITERAL)
def test_a_rewritten_graph_follows_where_the_code_has_literals(name: str) -> None:
    torch.manual_seed(0)
    model = randomise(NETWORKS[name]().double())
    args = inputs(model)
    ir = secateur.PruningIR(model, output="graph")
    ir.create_snapshot("main", args)
    assert ir.reach() >= 0.95
    labels = random_labels(ir.groups(), 0)
    small = ir.prune(labels=labels).model
    assert difference(outputs(ir.masked(labels=labels), args, {}), outputs(small, args, {})) < 1e-9
