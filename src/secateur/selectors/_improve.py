"""Improving a selection under a computed cost: raise what still fits, and exchange widths that gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._target import LevelCost

MOST_EXCHANGES = 500
NEAR = 12
"""How many levels up or down are looked at."""

Table = list[tuple[int, int, float, float]]
"""(bundle, level, change of value, change of cost)."""


def improve(cost: LevelCost, levels: Sequence[int], limit: float) -> tuple[int, ...]:
    """Levels of a higher value within ``limit``, one exchange after another until none gains.

    An exchange raises one bundle and lowers at most one other. What it would cost is first taken to
    be the sum of both changes, and computed before it is made.
    """
    now = list(levels)
    for _ in range(MOST_EXCHANGES):
        better = _exchange(cost, now, limit)
        if better is None:
            break
        now = better
    return tuple(now)


def lower(cost: LevelCost, levels: Sequence[int], limit: float) -> tuple[int, ...]:
    """Levels within ``limit``, or the lowest: one bundle down a level after another, cheap losses first."""
    now = list(levels)
    while any(now) and (base := cost.predict(now)) > limit:
        best = (float("inf"), -1)
        for index, bundle in enumerate(cost.bundles):
            if now[index] > 0:
                (there,) = cost.curve(now, index, [now[index] - 1])
                loss = bundle.values[now[index]] - bundle.values[now[index] - 1]
                best = min(best, (loss / max(base - there, 1e-12 * base), index))
        now[best[1]] -= 1
    return tuple(now)


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
