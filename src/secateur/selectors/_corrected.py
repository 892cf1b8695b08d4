"""Aiming a predicted cost at a measured one: ask, cut, measure, and ask for more or for less."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ._bracket import Bracket
from ._improve import spend
from ._target import LevelCost

Levels: TypeAlias = tuple[int, ...]

NEAR = 1.03
"""Asked costs nearer to each other than this ratio give nothing new."""

LEAST_SHARE = 1 / 16
"""Of what is left below the target: smaller parts of it are not worth a measurement."""


@dataclass
class MeasuredSearch:
    """Levels whose measured cost meets a target, by a search that knows predicted costs only.

    What is asked of the prediction is moved by the error seen, between what has turned out too slow and
    too fast. Selections that are asked for nearly the same cost can still differ by more than the
    tolerance, since predictions err differently on each. So what the slowest within the target leaves
    is then spent on a few more labels: there predictions err by what those labels cost.

    Measured times vary, so the aim is below the target by the tolerance, and what is taken has been
    measured twice.

    Attributes:
        cost: of levels, predicted and measured.
        target: the measured cost not to exceed.
        tolerance: as a share of the target; what is below by no more than twice that is taken.
        most: most selections to measure.
        under: the best levels that are predicted to cost no more than a number, from given levels.
        note: told of each selection: requested, predicted and measured cost, and the share of the score.
    """

    cost: LevelCost
    target: float
    tolerance: float
    most: int
    under: Callable[[float, Levels], Levels]
    note: Callable[[float, float, float, float], None]
    _tried: dict[Levels, float] = field(default_factory=dict, init=False)

    def run(self) -> Levels:
        """The levels found."""
        return self._ask() or self._spend() or self._best() or self._least()

    @property
    def _aim(self) -> float:
        return self.target * (1 - self.tolerance)

    def _on_target(self, measured: float) -> bool:
        return self.target * (1 - 2 * self.tolerance) <= measured <= self.target

    def _try(self, levels: Levels, predicted: float) -> bool:
        """Measure; whether that is on the target, also when measured once more."""
        measured = self.cost.measure(levels)
        if self._on_target(measured):  # a lucky measurement is not enough
            measured = self.cost.measure(levels, again=True)
        self.note(self.target, predicted, measured, self.cost.share(levels))
        self._tried[levels] = measured
        return self._on_target(measured)

    def _ask(self) -> Levels | None:
        """Move what is asked of the prediction between what has been too slow and too fast."""
        levels, goal, ratio = tuple(self.cost.top), self._aim, 1.0
        bracket = Bracket()
        for _ in range(self.most):
            levels = self.under(goal, levels)
            predicted = self.cost.predict(levels)
            if levels not in self._tried and self._try(levels, ratio * predicted):
                return levels
            measured = self._tried[levels]
            ratio = measured / predicted
            bracket.add(goal, too_high=measured > self._aim)
            goal = bracket.inside(goal * self._aim / measured)
            if bracket.nearer_than(NEAR):
                break
        return None

    def _spend(self) -> Levels | None:
        """Spend what the slowest selection within the aim leaves, or less where that was too much."""
        share = 1.0
        while len(self._tried) < self.most and share > LEAST_SHARE:
            within = [levels for levels, measured in self._tried.items() if measured <= self._aim]
            if not within:
                break
            base = max(within, key=self._tried.__getitem__)
            predicted = self.cost.predict(base)
            scale = predicted / self._tried[base]
            limit = predicted + share * scale * (self._aim - self._tried[base])
            levels = spend(self.cost, base, limit, self.tolerance / 2)
            if levels not in self._tried and self._try(levels, self.cost.predict(levels) / scale):
                return levels
            if levels == base or self._tried[levels] > self._aim or self._tried[levels] <= self._tried[base]:
                share /= 2
        return None

    def _best(self) -> Levels | None:
        """The most score within the target, also when measured once more.

        Where nothing is, less is asked for until something is.
        """
        measure = self.cost.measure
        for levels in sorted(self._tried, key=self.cost.value, reverse=True):
            if measure(levels) <= self.target and measure(levels, again=True) <= self.target:
                return levels
        base = min(self._tried, key=measure)
        goal = self.cost.predict(base) * self._aim / measure(base)
        for _ in range(self.most - len(self._tried)):
            goal *= 1 - self.tolerance
            levels = self.under(goal, base)
            if levels not in self._tried and (self._try(levels, goal) or self._tried[levels] <= self.target):
                return levels
        return None

    def _least(self) -> Levels:
        """The least cost that was measured, with a warning that it is above the target."""
        least = min(self._tried, key=self.cost.measure)
        lowest = self.cost.measure(least)
        warnings.warn(
            f"after {len(self._tried)} rounds the lowest cost measured is {lowest:.6g}, above the "
            f"target {self.target:.6g}: its labels are selected. Allow a larger tolerance or more "
            "max_iterations, or measure on a quieter machine",
            UserWarning,
            stacklevel=7,
        )
        return least
