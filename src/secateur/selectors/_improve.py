"""Improving a selection under a computed cost: raise what still fits, and exchange widths that gain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._target import LevelCost

MOST_EXCHANGES = 500
NEAR = 12
"""How many levels up or down are looked at."""

STAIRS = 4
"""How many levels up are looked at to get over a step of a staircase."""

MOST_STAIRS = 8
"""How many such steps are tried."""

NEARLY = 0.05
"""The share of the score that may be given for using the cost that is allowed. That many labels of one
group do as little as their scores added up say is less certain than that wider layers do more."""

Table = list[tuple[int, int, float, float]]
"""(bundle, level, change of value, change of cost)."""


def improve(
    cost: LevelCost, levels: Sequence[int], limit: float, *, enough: float = math.inf
) -> tuple[int, ...]:
    """Levels of a higher value within ``limit``, one exchange after another until none gains.

    An exchange raises one bundle and lowers at most one other. What it would cost is first taken to
    be the sum of both changes, and computed before it is made. Once the cost has come to ``enough``,
    no more is looked for.
    """
    now = list(levels)
    for _ in range(MOST_EXCHANGES):
        if cost.predict(now) >= enough:
            break
        better = _exchange(cost, now, limit)
        if better is None:
            break
        now = better
    return tuple(now)


def spend(cost: LevelCost, levels: Sequence[int], limit: float, tolerance: float) -> tuple[int, ...]:
    """Levels that cost up to ``limit``, short of it by no more than ``tolerance`` of it where that can be."""
    enough = limit * (1 - tolerance)
    improved = improve(cost, levels, limit, enough=enough)
    return improved if cost.predict(improved) >= enough else fill(cost, improved, enough, limit)


def lower(
    cost: LevelCost,
    levels: Sequence[int],
    limit: float,
    *,
    fixed: int | None = None,
    worth: float = -math.inf,
) -> tuple[int, ...]:
    """Levels within ``limit``, or the lowest: bundles go down a level, those that lose little first.

    Savings are looked up again after every eighth of the bundles. The ``fixed`` bundle stays, and the
    search is given up once the value is no more than ``worth``.
    """
    now = list(levels)
    while (base := cost.predict(now)) > limit and cost.value(now) > worth:
        downs: list[tuple[float, float, int]] = []
        for index, bundle in enumerate(cost.bundles):
            if now[index] > 0 and index != fixed:
                (there,) = cost.curve(now, index, [now[index] - 1])
                loss = bundle.values[now[index]] - bundle.values[now[index] - 1]
                downs.append((loss / max(base - there, 1e-12 * base), base - there, index))
        if not downs:
            break
        for _, saved, index in sorted(downs)[: 1 + len(downs) // 8]:
            now[index] -= 1
            base -= saved
            if base <= limit:
                break
    return tuple(now)


def fill(cost: LevelCost, levels: Sequence[int], low: float, high: float) -> tuple[int, ...]:
    """Levels that cost between ``low`` and ``high``, of nearly the value of levels that cost less.

    A bundle whose cost is a staircase can be too dear by one step and leave much unspent without it.
    Here one bundle goes up by some levels, and others go down to pay for it. The best of these
    is taken if its value is short by ``NEARLY`` at most; else the levels stay as they are.
    """
    best, worth = tuple(levels), cost.value(levels) * (1 - NEARLY)
    for index, option in _promising(cost, levels, high):
        raised = [*levels[:index], option, *levels[index + 1 :]]
        changed = lower(cost, raised, high, fixed=index, worth=worth)
        value = cost.value(changed)
        if value > worth and low <= cost.predict(changed) <= high:
            best, worth = changed, value
    return best


def _promising(cost: LevelCost, levels: Sequence[int], high: float) -> list[tuple[int, int]]:
    """Bundles and higher levels for them that are likely to keep the most, paid for at the lowest price."""
    base = cost.predict(levels)
    up, down = _moves(cost, list(levels), base)
    price = min((loss / spent for _, _, loss, spent in down if spent < 0), default=0.0)
    near = [move for move in up if move[1] <= levels[move[0]] + STAIRS]
    near.sort(key=lambda move: price * max(0.0, base + move[3] - high) - move[2])
    return [(index, option) for index, option, _, _ in near[:MOST_STAIRS]]


def _exchange(cost: LevelCost, levels: list[int], limit: float) -> list[int] | None:
    """The levels after the exchange that gains the most, or None."""
    base = cost.predict(levels)
    up, down = _moves(cost, levels, base)
    if not up:
        return None
    gains, spent = np.array([m[2] for m in up]), np.array([m[3] for m in up])
    losses = np.array([0.0, *(m[2] for m in down)])
    saved = np.array([0.0, *(m[3] for m in down)])
    total = gains[:, None] + losses
    fits = base + spent[:, None] + saved <= limit + 1e-9 * abs(limit)
    owners = np.array([-1, *(m[0] for m in down)])
    fits &= np.array([m[0] for m in up])[:, None] != owners
    total = np.where(fits & (total > 1e-12 * abs(gains).max()), total, -np.inf)
    return _first_affordable(cost, levels, limit, total, (up, down))


def _first_affordable(
    cost: LevelCost,
    levels: list[int],
    limit: float,
    total: NDArray[np.float64],
    moves: tuple[Table, Table],
    tries: int = 20,
) -> list[int] | None:
    up, down = moves
    for flat in np.argsort(total, axis=None)[::-1][:tries]:
        row, column = divmod(int(flat), total.shape[1])
        if not np.isfinite(total[row, column]):
            return None
        changed = list(levels)
        changed[up[row][0]] = up[row][1]
        if column:
            changed[down[column - 1][0]] = down[column - 1][1]
        if cost.predict(changed) <= limit:
            return changed
    return None


def _moves(cost: LevelCost, levels: list[int], base: float) -> tuple[Table, Table]:
    """Single changes of one bundle, up and down."""
    up: Table = []
    down: Table = []
    for index, bundle in enumerate(cost.bundles):
        here = levels[index]
        options = [o for o in range(max(0, here - NEAR), min(bundle.top, here + NEAR) + 1) if o != here]
        for option, there in zip(options, cost.curve(levels, index, options), strict=True):
            change = bundle.values[option] - bundle.values[here]
            (up if option > here else down).append((index, option, change, there - base))
    return up, down
