"""The multiple-choice knapsack against every combination, and its bound against Lagrange's."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.selectors import choose, relaxed_bound

Rows = list[list[float]]


def best_by_trying(values: Rows, costs: Rows, limit: float) -> float | None:
    totals = [
        (sum(v[o] for v, o in zip(values, options, strict=True)))
        for options in itertools.product(*(range(len(row)) for row in values))
        if sum(c[o] for c, o in zip(costs, options, strict=True)) <= limit
    ]
    return max(totals, default=None)


@st.composite
def problems(draw) -> tuple[Rows, Rows, float]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    number = st.integers(-8, 20)
    values = [[float(draw(number)) for _ in range(n)] for n in sizes]
    costs = [[float(draw(number)) for _ in range(n)] for n in sizes]
    return values, costs, float(draw(st.integers(-30, 80)))


@given(problems())
def test_the_best_of_all_combinations_is_found(problem):
    values, costs, limit = problem
    choice = choose(values, costs, limit)
    best = best_by_trying(values, costs, limit)
    assert choice.feasible == (best is not None)
    if best is None:
        assert choice.cost == sum(map(min, costs))
        return
    assert choice.value == best
    assert choice.cost <= limit
    assert choice.gap == 0
    assert relaxed_bound(values, costs, limit) >= best - 1e-9


def layers(seed: int, bundles: int, widths: int) -> tuple[Rows, Rows, float]:
    """Something like a network: concave score, cost nearly linear in the width."""
    draw = np.random.default_rng(seed)
    values = [(np.sort(draw.random(widths))[::-1].cumsum() * draw.random()).tolist() for _ in range(bundles)]
    costs = [(np.arange(widths) * draw.random() + 0.2 * draw.random(widths)).tolist() for _ in range(bundles)]
    low, high = (sum(f(row) for row in costs) for f in (min, max))
    return values, costs, low + (high - low) * draw.uniform(0.1, 0.9)


@given(problems())
def test_the_relaxation_is_a_bound_that_mixtures_reach(problem):
    values, costs, limit = problem
    if sum(map(min, costs)) > limit:
        return
    bound = relaxed_bound(values, costs, limit)
    # At any price of cost there is a bound (Lagrange); the relaxation is the lowest of them.
    prices = np.concatenate([[0.0], slopes(values, costs)])
    others = [
        price * limit
        + sum(max(np.array(v) - price * np.array(c)) for v, c in zip(values, costs, strict=True))
        for price in prices
    ]
    assert bound == pytest.approx(min(others), abs=1e-6)


def slopes(values: Rows, costs: Rows) -> list[float]:
    """Prices at which two options of a bundle are equally good."""
    found = []
    for v, c in zip(values, costs, strict=True):
        for a, b in itertools.combinations(range(len(v)), 2):
            if c[a] != c[b] and (v[b] - v[a]) / (c[b] - c[a]) > 0:
                found.append((v[b] - v[a]) / (c[b] - c[a]))
    return found


def test_a_gap_that_will_do_is_not_closed():
    values, costs, limit = layers(3, bundles=30, widths=40)
    rough, best = choose(values, costs, limit, gap=1e-3), choose(values, costs, limit)
    assert rough.cost <= limit
    assert best.gap == 0 < rough.gap <= 1e-3
    assert rough.value <= best.value <= rough.bound


def test_nothing_is_printed(capfd):
    values, costs, limit = layers(4, bundles=20, widths=30)
    choose(values, costs, limit)
    assert capfd.readouterr() == ("", "")


def test_many_bundles_are_near_the_relaxation():
    values, costs, limit = layers(1, bundles=40, widths=64)
    choice = choose(values, costs, limit)
    assert 1 - choice.value / relaxed_bound(values, costs, limit) < 1e-3


def test_without_time_the_first_solution_comes_with_a_bound():
    values, costs, limit = layers(2, bundles=20, widths=30)
    hasty, full = choose(values, costs, limit, seconds=0.0), choose(values, costs, limit)
    assert hasty.cost <= limit
    assert hasty.value <= full.value <= hasty.bound
    assert 0 < hasty.gap < 0.01


def test_ties_and_single_options():
    assert choose([[1.0]], [[2.0]], 2.0).options == [0]
    assert choose([[1.0, 1.0]], [[2.0, 1.0]], 5.0).value == 1.0
    assert choose([[0.0, 0.0]], [[0.0, 0.0]], 0.0).gap == 0
