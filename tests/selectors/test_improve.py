"""Spending what a selection leaves of a cost, where the cost is a staircase."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from secateur.selectors._improve import NEARLY, fill, lower, spend

LIMIT = 100.0


class Steps:
    """Bundles whose costs add up: what a search asks of a cost, with tables in place of a model."""

    def __init__(self, *bundles: tuple[list[float], list[float]]) -> None:
        self.bundles: list[Any] = [SimpleNamespace(values=v, top=len(v) - 1) for v, _ in bundles]
        self.costs = [costs for _, costs in bundles]

    def predict(self, levels):
        return sum(costs[level] for costs, level in zip(self.costs, levels, strict=True))

    def value(self, levels):
        return sum(b.values[level] for b, level in zip(self.bundles, levels, strict=True))

    def curve(self, levels, index, options):
        return [self.predict([*levels[:index], option, *levels[index + 1 :]]) for option in options]


def coarse_and_fine(value: float) -> Steps:
    """One bundle with a step of 30 that gains ``value``, and two fine ones."""
    fine = [100 + i for i in range(21)]
    return Steps(([0.0, value], [0.0, 30.0]), *[([*map(float, fine)], [20.0 + i for i in range(21)])] * 2)


def test_a_group_goes_over_a_dear_step_and_others_pay_for_it():
    cost = coarse_and_fine(20.0)
    start = (0, 20, 20)  # 80 of 100, and the step would make it 110
    found = spend(cost, start, LIMIT, 0.02)
    assert found[0] == 1
    assert 0.98 * LIMIT <= cost.predict(found) <= LIMIT
    allowed = (c for c in itertools.product(range(2), range(21), range(21)) if cost.predict(c) <= LIMIT)
    assert cost.value(found) == max(map(cost.value, (c for c in allowed if c[0])))


@pytest.mark.parametrize(("value", "taken"), [(10.0, True), (0.0, True), (-10.0, False)])
def test_no_more_score_is_given_for_it_than_is_allowed(value, taken):
    cost = coarse_and_fine(value)
    start = (0, 20, 20)
    found = fill(cost, start, 0.98 * LIMIT, LIMIT)
    assert (found != start) is taken
    assert cost.value(found) >= (1 - NEARLY) * cost.value(start)


def test_what_fits_is_put_back_without_a_loss():
    cost = coarse_and_fine(20.0)
    found = spend(cost, (1, 5, 5), LIMIT, 0.001)
    assert cost.predict(found) == LIMIT
    assert cost.value(found) == cost.value((1, 5, 5)) + 20


def test_lowering_takes_what_loses_least_and_leaves_what_is_fixed():
    cost = Steps(([0.0, 1.0, 9.0], [0.0, 10.0, 20.0]), ([0.0, 5.0, 6.0], [0.0, 10.0, 20.0]))
    assert lower(cost, (2, 2), 30.0) == (2, 1)
    assert lower(cost, (2, 2), 30.0, fixed=1) == (1, 2)
    assert lower(cost, (2, 2), 5.0, fixed=1) == (0, 2)
    assert lower(cost, (2, 2), 0.0, worth=13.0) == (2, 0)  # given up on the way
