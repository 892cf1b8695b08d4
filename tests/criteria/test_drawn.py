"""Drawn classes: the mean square of the gradient is Fisher information."""

import torch
from torch.nn import functional as F

from secateur.criteria import drawn_cross_entropy


def test_outer_products_of_the_gradient_are_fisher_information():
    answer = torch.tensor([0.5, 1.0, -1.0, 0.0])
    logits = answer.repeat(20000, 1).requires_grad_()
    drawn_cross_entropy(logits, torch.Generator().manual_seed(0)).backward()
    gradients = logits.grad * len(logits)
    chances = answer.softmax(0)
    torch.testing.assert_close(
        gradients.t() @ gradients / len(logits), torch.diag(chances) - torch.outer(chances, chances),
        atol=6e-3, rtol=0,
    )  # fmt: skip
    soft = answer.repeat(3, 1).requires_grad_()
    F.cross_entropy(soft, soft.detach().softmax(1)).backward()
    assert float(soft.grad.abs().max()) < 1e-6  # why it is needed


def test_classes_are_drawn_for_every_place():
    logits = torch.full((2, 3, 4, 5), -30.0)
    wanted = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    logits.scatter_(1, wanted[:, None], 30.0)
    assert float(drawn_cross_entropy(logits, torch.Generator().manual_seed(0))) < 1e-6


def test_a_generator_keeps_torchs_own_state():
    state, logits = (
        torch.random.get_rng_state(),
        torch.randn(4, 3, generator=torch.Generator().manual_seed(2)),
    )
    first = drawn_cross_entropy(logits, torch.Generator().manual_seed(3))
    assert torch.equal(first, drawn_cross_entropy(logits, torch.Generator().manual_seed(3)))
    assert torch.equal(torch.random.get_rng_state(), state)
