"""Moments of activations against scikit-learn and torch."""

import pytest
import torch
from sklearn.covariance import ledoit_wolf

from secateur.criteria import Moments


def moments(x: torch.Tensor, dim: int = -1) -> Moments:
    found = Moments.of(x.shape[dim], products=True)
    found.add(x, dim)
    return found


@pytest.mark.parametrize("examples", [6, 40, 4000])
def test_the_share_of_the_identity_is_that_of_scikit_learn(examples):
    torch.manual_seed(0)
    x = torch.randn(examples, 12) @ torch.randn(12, 12) + 3
    wanted, _ = ledoit_wolf(x.double().numpy())
    torch.testing.assert_close(moments(x).shrunk(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "dim"), [((7, 5, 6, 6), 1), ((7, 30, 5), -1), ((7, 2, 5), 2), ((5,), 0)])
def test_places_of_all_kinds_of_layers(shape, dim):
    torch.manual_seed(0)
    x = torch.randn(shape)
    found, rows = moments(x, dim), x.movedim(dim, -1).reshape(-1, 5).double()
    assert int(found.count) == len(rows)
    torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    wanted = torch.cov(rows.t(), correction=0).reshape(5, 5) if len(rows) > 1 else torch.zeros(5, 5).double()
    torch.testing.assert_close(found.covariance, wanted, rtol=1e-4, atol=1e-5)


def test_places_of_one_example_are_no_independent_draws():
    torch.manual_seed(0)
    draws = torch.randn(8, 12)
    repeated = draws[:, None].expand(8, 50, 12)
    torch.testing.assert_close(moments(repeated).shrunk(), moments(draws).shrunk(), rtol=1e-4, atol=1e-5)


def test_batches_add_up():
    torch.manual_seed(0)
    x = torch.randn(64, 12)
    whole, parts = moments(x), Moments.of(12, products=True)
    for part in x.split(16):
        parts.add(part, 1)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.shrunk(), whole.shrunk(), rtol=0.05, atol=0.05)
