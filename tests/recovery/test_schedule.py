import torch
from torch import nn

import secateur
from secateur.recovery._schedule import live_bytes, plan_schedule, sampled_positions


def analysis():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(16, 8, 3), nn.Flatten()
    )
    ir = secateur.PruningIR(model)
    return ir.create_snapshot("main", args=(torch.ones(2, 3, 16, 16),)).analysis


def test_live_bytes_count_what_is_still_needed() -> None:
    found = live_bytes(analysis())
    wide = 2 * 16 * 16 * 16 * 4
    small = 2 * 16 * 4 * 4 * 4
    assert found[0] == wide  # the convolution's result
    assert found[1] == 2 * wide  # with that of the activation
    assert found[2] == wide + small


def test_live_bytes_count_what_the_callers_of_a_module_hold() -> None:
    model = nn.Sequential(nn.Linear(4, 100), nn.Sequential(nn.Linear(100, 3), nn.ReLU(), nn.Linear(3, 3)))
    ir = secateur.PruningIR(model)
    found = live_bytes(ir.create_snapshot("main", args=(torch.ones(2, 4),)).analysis)
    wide, small = 2 * 100 * 4, 2 * 3 * 4
    assert found == [wide, wide + small, wide + 2 * small, wide + 2 * small]


def test_early_layers_get_few_batches_and_late_ones_all() -> None:
    recorded = analysis()
    plan = plan_schedule(
        recorded, {1: 9, 3: 144}, batches=10, share=1.0, memory=4 * 2 * 2 * 16 * 16 * 16 * 4, per_feature=64
    )
    assert plan.batches == {1: 4, 3: 10}
    assert plan.rows[3] == -(-64 * 144 // 10)


def test_a_tiny_limit_still_lets_one_in() -> None:
    assert plan_schedule(analysis(), {3: 144}, batches=10, share=1.0, memory=1, per_feature=2).batches == {
        3: 1
    }


def test_samples_are_repeatable_spread_and_rising() -> None:
    first, again = (sampled_positions(10_000, 100, (3, 7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sampled_positions(10_000, 100, (3, 8)))
    assert (first.diff() > 0).all()
    assert first.min() < 100
    assert first.max() >= 9_900
