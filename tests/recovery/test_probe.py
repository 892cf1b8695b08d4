"""The probe's gradients have the covariance that it promises."""

import pytest
import torch
from torch import nn

from secateur import PruningIR, ReconstructionCriterion, RecoveryError
from secateur.recovery import output_probe


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gradients_of_many_draws_have_unit_covariance() -> None:
    draws, output = seeded(), torch.tensor([[0.3, -2.0, 5.0]], requires_grad=True)
    total = torch.zeros(3, 3)
    for _ in range(4000):
        (grad,) = torch.autograd.grad(output_probe(output, draws), output)
        total += grad[0][:, None] * grad[0]
    assert torch.allclose(total / 4000, torch.eye(3), atol=0.1)


def test_it_is_a_mean_over_examples_of_all_outputs() -> None:
    output = torch.randn(4, 3)
    found = output_probe(output, seeded())
    assert found == output_probe({"states": (output,), "length": 3}, seeded())
    assert torch.allclose(found, (output * torch.randn(4, 3, generator=seeded())).sum(1).mean())


def test_it_finds_what_outputs_do_not_need_and_leaves_the_random_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].weight[:, :3] *= 1e-3
    ir, state, draws = PruningIR(model), torch.get_rng_state(), seeded()
    ir.create_snapshot("main", args=(torch.ones(1, 4),))
    with ReconstructionCriterion(ir) as collect:
        for x in torch.randn(8, 32, 4, generator=seeded()):
            output_probe(collect(x), draws).backward()
    assert set(ir.scores()["0"].argsort()[:3].tolist()) == {0, 1, 2}
    assert torch.equal(torch.get_rng_state(), state)


def test_outputs_without_a_number_to_probe_are_refused() -> None:
    with pytest.raises(RecoveryError, match="no floating-point tensor"):
        output_probe({"ids": torch.arange(3)})
