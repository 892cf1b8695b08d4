"""The multiple-choice knapsack: one option of each bundle, the most value within a limit of cost.

Solved by HiGHS. Its linear relaxation prices cost in value; at that price an optimal solution can lose,
against the best option of each bundle, no more in total than the gap between the relaxation and a
first solution. Options that lose more are left out (variable fixing by reduced costs), and the few
hundred that remain of ten thousand are solved as an integer program: to the optimum, or as far as a
fixed number of nodes leads (:attr:`Choice.gap` then says how much could be missing; it is some
hundred-thousandths). Measured with and without in ``benchmarks/knapsack.py``.

Sources: Huangfu and Hall, "Parallelizing the dual revised simplex method" (HiGHS, 2018); Kellerer,
Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11, for the reduction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DependencyError

Curve = NDArray[np.float64]
Numbers = NDArray[np.int64]

GAP_UNITS = 100.0
"""The gap to the relaxation in units of the integer program's objective."""

MOST_NODES = 200
"""Nodes of HiGHS's search. Where many widths are worth the same for their cost, the last hundred-thousandth
of the value can take millions; a limit in nodes gives the same answer whatever the machine does."""

TRIES = 3
"""How often a solution that exceeds the limit by HiGHS's tolerance is asked for again, with less room."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A solution: the number of the option that is taken of each bundle.

    ``bound`` is a value that no solution exceeds; it is the value itself where the solution is proved
    to be the best. ``feasible`` is False where no choice is within the limit, and the cheapest one
    is given.
    """

    options: list[int]
    value: float
    cost: float
    bound: float
    feasible: bool = True

    @property
    def gap(self) -> float:
        """How much better a solution could be at most, as a share of the bound."""
        return max(0.0, self.bound - self.value) / abs(self.bound) if self.bound else 0.0


def choose(
    values: Sequence[Sequence[float]],
    costs: Sequence[Sequence[float]],
    limit: float,
    *,
    seconds: float | None = None,
    gap: float = 0.0,
) -> Choice:
    """One option of each bundle with the highest total value at a total cost within ``limit``.

    Args:
        values: for each bundle the value of each option.
        costs: likewise the cost; may be negative.
        limit: the highest total cost.
        seconds: time limit; the best solution until then is given, with its bound.
        gap: a solution that is short of the best by no more than this share will do.

    Raises:
        DependencyError: if HiGHS is not installed.

    Example:
        >>> choose([[0, 5, 6], [0, 4]], [[0, 3, 6], [0, 3]], limit=6).options
        [1, 1]
    """
    start = time.monotonic()
    problem = _Problem.of(values, costs, limit)
    cheapest = problem.pick(np.lexsort((-problem.values, problem.costs)))
    if problem.costs[cheapest].sum() > limit:
        return _choice(problem, cheapest, problem.values[cheapest].sum(), feasible=False)
    relaxed = _relax(problem)
    first = _fill(problem, relaxed, cheapest)
    left = None if seconds is None else max(0.0, seconds - (time.monotonic() - start))
    best, proved = _refine(problem, relaxed, first, left, gap)
    value = problem.values[best].sum()
    return _choice(problem, best, value if proved else max(relaxed.bound, value))


def relaxed_bound(values: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float) -> float:
    """The value of the linear relaxation, in which options may be mixed. No solution is better.

    >>> round(relaxed_bound([[0, 5, 6], [0, 4]], [[0, 3, 6], [0, 3]], limit=7), 9)
    9.333333333
    """
    return _relax(_Problem.of(values, costs, limit)).bound


def _choice(problem: _Problem, picked: Numbers, bound: float, *, feasible: bool = True) -> Choice:
    options = (picked - problem.starts).tolist()
    value, cost = problem.values[picked].sum(), problem.costs[picked].sum()
    return Choice(options, float(value), float(cost), float(bound), feasible)


# -- the problem, flat -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Problem:
    """All options in a row, with the number of the bundle of each and where each bundle starts."""

    values: Curve
    costs: Curve
    limit: float
    bundles: Numbers
    starts: Numbers

    @classmethod
    def of(
        cls, values: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float
    ) -> _Problem:
        sizes = [len(row) for row in values]
        bundles = np.repeat(np.arange(len(sizes)), sizes)
        starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        flat = [np.concatenate([np.asarray(row, np.float64) for row in rows]) for rows in (values, costs)]
        return cls(flat[0], flat[1], float(limit), bundles, starts)

    def pick(self, order: Numbers) -> Numbers:
        """The first option of each bundle in an order of all options."""
        found = np.unique(self.bundles[order], return_index=True)[1]
        return order[found]

    def lowest(self, numbers: Curve) -> Curve:
        """The lowest number of each bundle."""
        return np.minimum.reduceat(numbers, self.starts)


@dataclass(frozen=True, slots=True)
class _Relaxed:
    """The linear relaxation: a bound, what each option loses at its price of cost, and its options."""

    bound: float
    price: float
    losses: Curve
    used: NDArray[np.bool_]


def _relax(problem: _Problem) -> _Relaxed:
    scale, unit = _largest(problem.values), _largest(problem.costs)
    solved = _solve(-problem.values / scale, problem.bundles, problem.costs / unit, problem.limit / unit)
    # The bound holds at any price: how exact that of HiGHS is does not matter.
    price = max(0.0, -solved.price) * scale / unit
    priced = problem.values - price * problem.costs
    best = -problem.lowest(-priced)
    bound = float(best.sum()) + price * problem.limit
    return _Relaxed(bound, price, best[problem.bundles] - priced, solved.shares > 1e-9)


def _largest(numbers: Curve) -> float:
    return float(np.abs(numbers).max()) or 1.0


def _fill(problem: _Problem, relaxed: _Relaxed, cheapest: Numbers) -> Numbers:
    """A first solution: the cheaper options of the relaxation, improved bundle by bundle."""
    unused = np.where(relaxed.used, problem.costs, np.inf)
    picked = problem.pick(np.argsort(unused, kind="stable"))
    room = problem.limit - problem.costs[picked].sum()
    if room < 0:  # by no more than HiGHS's tolerance
        picked = cheapest.copy()
        room = problem.limit - problem.costs[picked].sum()
    ends = np.append(problem.starts[1:], len(problem.values))
    for bundle, (start, end) in enumerate(zip(problem.starts, ends, strict=True)):
        here = picked[bundle]
        fits = problem.costs[start:end] <= problem.costs[here] + room
        there = start + int(np.where(fits, problem.values[start:end], -np.inf).argmax())
        if problem.values[there] > problem.values[here]:
            room -= float(problem.costs[there] - problem.costs[here])
            picked[bundle] = there
    return picked


def _refine(
    problem: _Problem, relaxed: _Relaxed, first: Numbers, seconds: float | None, enough: float
) -> tuple[Numbers, bool]:
    """The best solution, and whether it is proved to be."""
    gap = relaxed.bound - float(problem.values[first].sum())
    if gap <= max(enough, 1e-12) * abs(relaxed.bound):
        return first, gap <= 1e-12 * abs(relaxed.bound)
    left = np.flatnonzero(relaxed.losses <= gap * (1 + 1e-9))
    small = _Problem(
        problem.values[left],
        problem.costs[left],
        problem.limit,
        problem.bundles[left],
        np.unique(problem.bundles[left], return_index=True)[1],
    )
    least = small.lowest(small.costs)
    costs, room = small.costs - least[small.bundles], problem.limit - float(least.sum())
    unit = _largest(costs)
    # Losses at the price of cost, and not values: these are large, and what tells them apart is small.
    losses = (relaxed.losses[left] - relaxed.price * costs) / gap * GAP_UNITS
    near = GAP_UNITS * max(enough * abs(relaxed.bound) / gap, 1e-8)
    for _ in range(TRIES):
        solved = _solve(losses, small.bundles, costs / unit, room / unit, near=near, seconds=seconds)
        picked = left[solved.shares > 0.5]
        excess = float(problem.costs[picked].sum()) - problem.limit
        if len(picked) == len(first) and excess <= 0:
            better = problem.values[picked].sum() >= problem.values[first].sum()
            return (picked if better else first), solved.proved and not enough
        room -= max(excess, 1e-9 * unit)
    return first, False


# -- HiGHS -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Solved:
    """What HiGHS says: the share of each option, the dual of the cost's row, whether it is optimal."""

    shares: Curve
    price: float
    proved: bool


def _solve(
    objective: Curve,
    bundles: Numbers,
    costs: Curve,
    limit: float,
    *,
    near: float | None = None,
    seconds: float | None = None,
) -> _Solved:
    """Minimise ``objective`` over shares that add up to 1 in each bundle, at a cost within ``limit``.

    With ``near`` shares are 0 or 1, and the objective is that near to the lowest.
    """
    highspy = _highspy()
    count, rows = len(objective), int(bundles[-1]) + 1
    program: Any = highspy.HighsLp()
    program.num_col_, program.num_row_ = count, rows + 1
    program.col_cost_ = objective
    program.col_lower_, program.col_upper_ = np.zeros(count), np.ones(count)
    program.row_lower_ = np.append(np.ones(rows), -np.inf)
    program.row_upper_ = np.append(np.ones(rows), limit)
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.arange(0, 2 * count + 1, 2)
    program.a_matrix_.index_ = np.column_stack([bundles, np.full(count, rows)]).ravel()
    program.a_matrix_.value_ = np.column_stack([np.ones(count), costs]).ravel()
    solver: Any = highspy.Highs()
    solver.silent()
    solver.setOptionValue("parallel", "off")
    if near is not None:
        program.integrality_ = [highspy.HighsVarType.kInteger] * count
        solver.setOptionValue("mip_rel_gap", 0.0)
        solver.setOptionValue("mip_abs_gap", near)
        solver.setOptionValue("mip_max_nodes", MOST_NODES)
    if seconds is not None:
        solver.setOptionValue("time_limit", seconds)
    solver.passModel(program)
    solver.run()
    solution = solver.getSolution()
    proved = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    if not solution.value_valid:
        return _Solved(np.zeros(count), 0.0, proved=False)
    price = float(solution.row_dual[rows]) if solution.dual_valid else 0.0
    return _Solved(np.asarray(solution.col_value), price, proved)


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise DependencyError(
            'the knapsack is solved by HiGHS, which is not installed: pip install "secateur[solver]"'
        ) from error
    return highspy
