"""The multiple-choice knapsack: one option of each bundle, the most value within a limit of cost.

Solved exactly by HiGHS, through ``scipy.optimize.milp``. Measured against a branch-and-bound of our
own design it needs no code here, proves its gap, and takes a time limit; see ``docs/selectors.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
SCALE = 1e3


@dataclass(frozen=True, slots=True)
class Choice:
    """A solution: the number of the option that is taken of each bundle.

    ``bound`` is a value that no solution exceeds; ``feasible`` is False where no choice is within the
    limit, and the cheapest one is given.
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
    gap: float = 1e-6,
) -> Choice:
    """One option of each bundle with the highest total value at a total cost within ``limit``.

    Args:
        values: for each bundle the value of each option.
        costs: likewise the cost; may be negative.
        limit: the highest total cost.
        seconds: time limit; the best solution until then is given, with its bound.
        gap: stop at this relative distance to the bound.

    Example:
        >>> choose([[0, 5, 6], [0, 4]], [[0, 3, 6], [0, 3]], limit=6).options
        [1, 1]
    """
    v = [np.asarray(row, np.float64) for row in values]
    c = [np.asarray(row, np.float64) for row in costs]
    cheapest = [int(np.lexsort((-value, cost))[0]) for value, cost in zip(v, c, strict=True)]
    if _total(c, cheapest) > limit:
        value = _total(v, cheapest)
        return Choice(cheapest, value, _total(c, cheapest), value, feasible=False)
    useful = [_undominated(value, cost) for value, cost in zip(v, c, strict=True)]
    picked, bound = _solve(
        [value[u] for value, u in zip(v, useful, strict=True)],
        [cost[u] for cost, u in zip(c, useful, strict=True)],
        limit,
        seconds,
        gap,
    )
    options = cheapest if picked is None else [int(u[i]) for u, i in zip(useful, picked, strict=True)]
    value = _total(v, options)
    return Choice(options, value, _total(c, options), max(bound, value))


def _total(rows: Sequence[Curve], options: Sequence[int]) -> float:
    return float(sum(row[option] for row, option in zip(rows, options, strict=True)))


def _undominated(value: Curve, cost: Curve) -> NDArray[np.int64]:
    """Options that no other beats in value at the same cost or less, by rising cost."""
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(value[order])
    first = np.concatenate([[True], value[order][1:] > best[:-1]])
    return order[first]


def _solve(
    values: list[Curve], costs: list[Curve], limit: float, seconds: float | None, gap: float
) -> tuple[list[int] | None, float]:
    """Numbers of the options (None if the time was too short for any), and the bound."""
    optimize = _optimizer()
    from scipy.sparse import csr_array

    sizes = [len(value) for value in values]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    bundle = np.repeat(np.arange(len(sizes)), sizes)
    # Gains over the worst and costs over the least, on a scale that the solver's tolerances fit: at
    # a scale of 1 it re-solves solutions for their rounding, and says so on the console.
    floor = sum(float(value.min()) for value in values)
    base = sum(float(cost.min()) for cost in costs)
    gain = np.concatenate([value - value.min() for value in values])
    weight = np.concatenate([cost - cost.min() for cost in costs])
    most, room = (float(gain.max()) or 1.0) / SCALE, limit - base
    scale = (max(float(weight.max()), room) or 1.0) / SCALE
    one_each = csr_array((np.ones(len(gain)), (bundle, np.arange(len(gain)))))
    result = optimize.milp(
        -gain / most,
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(weight[None] / scale, -np.inf, room / scale),
        ],
        integrality=np.ones(len(gain)),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": gap, **({} if seconds is None else {"time_limit": seconds})},
    )
    bound = floor - most * float(result.mip_dual_bound) if result.mip_dual_bound is not None else np.inf
    if result.x is None:
        return None, bound
    picked = [int(result.x[a:b].argmax()) for a, b in pairwise(starts)]
    return _within(picked, values, costs, limit), bound


def _within(picked: list[int], values: list[Curve], costs: list[Curve], limit: float) -> list[int]:
    """A solution that is over the limit by the solver's tolerance, made to keep it."""
    while _total(costs, picked) > limit:
        _, index = min(
            (float(values[i][option] - values[i][option - 1]), i)
            for i, option in enumerate(picked)
            if option > 0
        )
        picked[index] -= 1
    return picked


def _optimizer():
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError(
            "the knapsack is solved by HiGHS, which comes with scipy: pip install 'secateur[solver]'"
        ) from error
    return optimize


def relaxed_bound(values: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float) -> float:
    """The value of the linear relaxation: options may be mixed. No solution is better.

    Takes the steps along the upper hulls of all bundles, the most value for cost first.

    >>> relaxed_bound([[0, 5, 6], [0, 4]], [[0, 3, 6], [0, 3]], limit=7)
    9.333333333333334
    """
    total, room = 0.0, float(limit)
    steps: list[tuple[float, float]] = []
    for row, prices in zip(values, costs, strict=True):
        value, cost = np.asarray(row, np.float64), np.asarray(prices, np.float64)
        hull = _hull(value, cost, _undominated(value, cost))
        total += float(value[hull[0]])
        room -= float(cost[hull[0]])
        steps += [(float(value[b] - value[a]), float(cost[b] - cost[a])) for a, b in pairwise(hull)]
    for gain, price in sorted(steps, key=lambda step: -step[0] / step[1]):
        share = min(1.0, max(room, 0.0) / price)
        total, room = total + share * gain, room - share * price
    return total


def _hull(value: Curve, cost: Curve, order: NDArray[np.int64]) -> list[int]:
    """Options on the upper hull of value over cost, by rising cost."""
    hull: list[int] = []
    for option in order:
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            rise = (value[b] - value[a]) * (cost[option] - cost[b])
            if rise > (value[option] - value[b]) * (cost[b] - cost[a]):
                break
            hull.pop()
        hull.append(int(option))
    return hull
