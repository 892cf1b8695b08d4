"""Recalibrated statistics are those of the data, and nothing else changes."""

import pytest
import torch
from torch import nn

from secateur import ScoreError, recalibrate_batchnorm


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.Flatten())


def test_statistics_are_the_means_over_the_batches():
    model = net().eval()
    batches = [torch.randn(6, 3, 5, 5) + i for i in range(3)]
    assert recalibrate_batchnorm(model, batches) == 1
    features = [model[0](batch) for batch in batches]
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    var = torch.stack([f.var((0, 2, 3)) for f in features]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)


def test_flags_momentum_and_weights_stay():
    model = net().train()
    model[2].eval()
    weights = [p.clone() for p in model.parameters()]
    recalibrate_batchnorm(model, [(torch.randn(6, 3, 5, 5), torch.zeros(6))] * 5, batches=2)
    assert [m.training for m in model] == [True, True, False, True]
    assert model[1].momentum == 0.3
    assert int(model[1].num_batches_tracked) == 2
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_models_without_batch_norm_are_left_alone():
    assert recalibrate_batchnorm(nn.Linear(2, 2), []) == 0


def test_no_batch_is_said():
    with pytest.raises(ScoreError, match="cannot be recalibrated without a batch"):
        recalibrate_batchnorm(net(), [])
