"""The multiple-choice knapsack against every combination, and against HiGHS."""

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


@pytest.mark.parametrize("seed", range(5))
def test_highs_finds_nothing_better(seed):
    optimize = pytest.importorskip("scipy.optimize")
    values, costs, limit = layers(seed, bundles=12, widths=20)
    choice = choose(values, costs, limit)
    each = np.kron(np.eye(12), np.ones(20))
    result = optimize.milp(
        -np.concatenate(values),
        constraints=[
            optimize.LinearConstraint(each, 1, 1),
            optimize.LinearConstraint(np.concatenate(costs), -np.inf, limit),
        ],
        integrality=np.ones(240),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 1e-9},
    )
    assert choice.gap == 0
    assert choice.cost <= limit
    assert choice.value == pytest.approx(-result.fun, rel=1e-7)
    relaxation = optimize.linprog(
        -np.concatenate(values),
        A_ub=np.concatenate(costs)[None],
        b_ub=[limit],
        A_eq=each,
        b_eq=np.ones(12),
    )
    assert relaxed_bound(values, costs, limit) == pytest.approx(-relaxation.fun, rel=1e-9)


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
