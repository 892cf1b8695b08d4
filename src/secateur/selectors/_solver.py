"""The multiple-choice knapsack: one option of each bundle, the most value within a limit of cost.

Solved exactly, by the method that suits this problem: the linear relaxation is a greedy along upper
hulls; it prices cost in value; and at that price an optimal solution can lose, against each
bundle's best option, no more in total than the gap between relaxation and a first solution. The gap
is tiny where there are many bundles, so few options remain, and dynamic programming over
undominated partial solutions goes through them.

Source: Pisinger, "A minimal algorithm for the multiple-choice knapsack problem" (EJOR 83, 1995).
Measured against HiGHS in ``benchmarks/knapsack.py``, with the reasons for the choice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
Numbers = NDArray[np.int64]

MOST_STATES = 200_000


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
) -> Choice:
    """One option of each bundle with the highest total value at a total cost within ``limit``.

    Args:
        values: for each bundle the value of each option.
        costs: likewise the cost; may be negative.
        limit: the highest total cost.
        seconds: time limit; the best solution until then is given, with its bound.

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
    relaxed = _relax(v, c, limit)
    first = _fill(v, c, limit, relaxed.options)
    options, proved = _search(v, c, limit, relaxed, first, seconds)
    value = _total(v, options)
    bound = value if proved else max(relaxed.bound, value)
    return Choice(options, value, _total(c, options), bound)


def relaxed_bound(values: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float) -> float:
    """The value of the linear relaxation, in which options may be mixed. No solution is better.

    >>> relaxed_bound([[0, 5, 6], [0, 4]], [[0, 3, 6], [0, 3]], limit=7)
    9.333333333333334
    """
    v = [np.asarray(row, np.float64) for row in values]
    c = [np.asarray(row, np.float64) for row in costs]
    return _relax(v, c, limit).bound


def _total(rows: Sequence[Curve], options: Sequence[int]) -> float:
    return float(sum(row[option] for row, option in zip(rows, options, strict=True)))


# -- relaxation ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Relaxed:
    """The linear relaxation: its value, the price of cost, and its options without the mixed one."""

    bound: float
    price: float
    options: list[int]


def _relax(values: Sequence[Curve], costs: Sequence[Curve], limit: float) -> _Relaxed:
    """Steps along the upper hulls of all bundles, the most value for cost first."""
    hulls = [_hull(value, cost) for value, cost in zip(values, costs, strict=True)]
    options = [hull[0] for hull in hulls]
    bound, room = _total(values, options), limit - _total(costs, options)
    steps: list[tuple[float, int, int]] = []
    for index, hull in enumerate(hulls):
        value, cost = values[index], costs[index]
        rates = ((value[b] - value[a]) / (cost[b] - cost[a]) for a, b in pairwise(hull))
        steps += [(-float(rate), index, b) for rate, b in zip(rates, hull[1:], strict=True)]
    for negated, index, option in sorted(steps):
        spent = float(costs[index][option] - costs[index][options[index]])
        if spent > room:
            return _Relaxed(bound - negated * room, -negated, options)
        bound, room = bound - negated * spent, room - spent
        options[index] = option
    return _Relaxed(bound, 0.0, options)


def _hull(value: Curve, cost: Curve) -> list[int]:
    """Options on the upper hull of value over cost, by rising cost and value."""
    hull: list[int] = []
    for option in np.lexsort((-value, cost)):
        if hull and value[option] <= value[hull[-1]]:
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            rise = (value[b] - value[a]) * (cost[option] - cost[b])
            if rise > (value[option] - value[b]) * (cost[b] - cost[a]):
                break
            hull.pop()
        hull.append(int(option))
    return hull


def _fill(values: Sequence[Curve], costs: Sequence[Curve], limit: float, start: list[int]) -> list[int]:
    """A first solution: the relaxation without its mixed option, improved bundle by bundle."""
    options = list(start)
    room = limit - _total(costs, options)
    for _ in range(3):
        for index, (value, cost) in enumerate(zip(values, costs, strict=True)):
            here = options[index]
            fits = np.where(cost - cost[here] <= room, value, -np.inf)
            best = int(fits.argmax())
            if fits[best] > value[here]:
                options[index] = best
                room -= float(cost[best] - cost[here])
    return options


# -- search ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _States:
    """Partial solutions over the bundles so far: cost and value, and how they came about."""

    cost: Curve
    value: Curve
    parents: list[Numbers]
    picks: list[Numbers]

    def trace(self, last: int) -> list[int]:
        """The option of every bundle of one of the last states."""
        found: list[int] = []
        for parents, picks in zip(reversed(self.parents), reversed(self.picks), strict=True):
            found.append(int(picks[last]))
            last = int(parents[last])
        return found[::-1]


def _search(
    values: Sequence[Curve],
    costs: Sequence[Curve],
    limit: float,
    relaxed: _Relaxed,
    first: list[int],
    seconds: float | None,
) -> tuple[list[int], bool]:
    """The best solution, and whether it is proved to be."""
    deadline = None if seconds is None else time.monotonic() + seconds
    priced = [value - relaxed.price * cost for value, cost in zip(values, costs, strict=True)]
    losses = [row.max() - row for row in priced]
    lowest = _total(values, first)
    gap = relaxed.bound - lowest
    if gap <= 1e-12 * abs(relaxed.bound):
        return first, True
    gap *= 1 + 1e-9
    useful = [np.flatnonzero(loss <= gap) for loss in losses]
    order = sorted(range(len(values)), key=lambda index: len(useful[index]))
    # What the bundles that are still to come take at the least, by place in the order.
    least = np.array([costs[index][useful[index]].min() for index in order])
    remaining = np.concatenate([least[::-1].cumsum()[::-1][1:], [0.0]])
    states = _States(np.zeros(1), np.zeros(1), [], [])
    lost, proved = np.zeros(1), True
    for place, index in enumerate(order):
        if deadline is not None and time.monotonic() > deadline:
            return first, False
        keep = useful[index]
        total = (lost[:, None] + losses[index][keep]).ravel()
        cost = (states.cost[:, None] + costs[index][keep]).ravel()
        value = (states.value[:, None] + values[index][keep]).ravel()
        chosen = np.flatnonzero((total <= gap) & (cost + remaining[place] <= limit))
        chosen = chosen[_undominated(value[chosen], cost[chosen])]
        if len(chosen) > MOST_STATES:
            proved = False
            chosen = chosen[np.argsort(total[chosen], kind="stable")[:MOST_STATES]]
        states.parents.append(chosen // len(keep))
        states.picks.append(keep[chosen % len(keep)])
        states.cost, states.value, lost = cost[chosen], value[chosen], total[chosen]
        if not len(chosen):  # nothing but the first solution is that good
            return first, proved
    best = int(states.value.argmax())
    if states.value[best] <= lowest:
        return first, proved
    picked = states.trace(best)
    return [picked[order.index(index)] for index in range(len(values))], proved


def _undominated(value: Curve, cost: Curve) -> Numbers:
    """Entries that no other beats in value at the same cost or less, by rising cost."""
    order = np.lexsort((-value, cost))
    if not len(order):
        return order
    best = np.maximum.accumulate(value[order])
    return order[np.concatenate([[True], value[order][1:] > best[:-1]])]
