"""The knapsack: as much score as fits under a cost target."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from .._errors import LabelError
from ..cost import CostFunction
from ._constraint import Constraints
from ._improve import improve, lower
from ._solver import choose
from ._target import Infeasible, LatencyLabelSelector, LevelCost

EXHAUSTIVE = 20_000
"""Up to so many combinations of levels are simply all tried, where the cost is computed."""


@dataclass(frozen=True)
class _Trial:
    levels: tuple[int, ...]
    value: float
    predicted: float
    measured: float


class KnapsackLabelSelector(LatencyLabelSelector):
    """Keeps as much score as a cost target allows.

    Score is value, cost is weight, and a bundle of coupled groups offers its widths as options. The
    cost of one bundle depends on the widths of the others, so the knapsack is solved in rounds:
    with the others at the widths of the round before, every width of every bundle gets its cost (finite
    differences over whole steps), an exact solver chooses one width each, and the cost there is
    computed or measured. A round asks for no more than ``max_relative_latency_step`` of the way. The
    best selection within the target is remembered; rounds end when it meets the target, or when
    selections repeat. Where cost is computed, widths are exchanged at last as long as that gains score.

    Sources: Shen et al., "Structural pruning via latency-saliency knapsack" (HALP, NeurIPS 2022), with
    widths as options of a multiple-choice knapsack, solved exactly.

    Args:
        target_latency: the cost not to exceed, in the units of the function.
        latency_calculation_function: from a (pruned copy of the) model to its cost; or
            :class:`secateur.cost.Macs`, :class:`secateur.cost.Parameters`,
            :class:`secateur.cost.LatencyTable`, which need no surgery to be asked.
        strict_label_order: remove the labels of a group in the order of their scores. The labels of a
            group cost the same, so no other order keeps more score, and False selects the same.
        channels_constraint: widths that groups may have; one round looks at all of them. Steps of 8 or
            more suit measured latencies.
        max_iterations: most rounds.
        solver_execution_time_limit: seconds for the solver in each round; None for no limit.
        verbose: print requested, predicted and measured cost in each round.
        max_relative_latency_step: most of the current cost to take off in one round, in (0, 1].
        tolerance: how near to the target a measured cost has to come, as a share of it.
        ignore: groups to leave alone.
        on_infeasible: ``"raise"`` a :class:`secateur.TargetError`, or ``"warn"`` and take the smallest.

    Raises:
        LabelError: for arguments out of range.
        TargetError: if no selection reaches the target; its ``reachable`` is the smallest cost.
        MeasurementError: if the function raises or gives no positive number.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(32, 32) for _ in range(4)))
        >>> ir = secateur.PruningIR(model)
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 32),))
        >>> selector = KnapsackLabelSelector(2048, secateur.cost.Macs(), verbose=False)
        >>> ir.prune(labels=selector.select(ir)).report.macs[1] <= 2048
        True
    """

    def __init__(
        self,
        target_latency: float,
        latency_calculation_function: CostFunction,
        strict_label_order: bool = True,
        channels_constraint: Constraints = None,
        max_iterations: int = 15,
        solver_execution_time_limit: float | None = 60,
        verbose: bool = True,
        *,
        max_relative_latency_step: float = 0.5,
        tolerance: float = 0.01,
        ignore: Iterable[str | nn.Module] = (),
        on_infeasible: Infeasible | str = Infeasible.RAISE,
    ) -> None:
        super().__init__(
            target_latency,
            latency_calculation_function,
            channels_constraint=channels_constraint,
            ignore=ignore,
            on_infeasible=on_infeasible,
            verbose=verbose,
        )
        if not 0 < max_relative_latency_step <= 1:
            raise LabelError(f"max_relative_latency_step is in (0, 1], got {max_relative_latency_step}")
        if max_iterations < 1 or tolerance < 0:
            raise LabelError("max_iterations is at least 1 and tolerance is not negative")
        self.strict_label_order = strict_label_order
        self.max_iterations = max_iterations
        self.solver_execution_time_limit = solver_execution_time_limit
        self.max_relative_latency_step = max_relative_latency_step
        self.tolerance = tolerance

    def _search(self, cost: LevelCost) -> list[int]:
        computed = cost.exact and cost.cheap
        if computed and prod(len(b.levels) for b in cost.bundles) <= EXHAUSTIVE:
            return self._best_of_all(cost)
        trials = self._rounds(cost)
        if computed:
            best = improve(cost, self._start_of_improvement(cost, trials), self.target_latency)
            self._report(cost, best)
            return list(best)
        feasible = [trial for trial in trials if self._meets_target(trial, cost)]
        # The smallest widths are within the target: that was seen before the search began.
        return list(max(feasible, key=lambda t: t.value).levels if feasible else [0] * len(cost.bundles))

    def _start_of_improvement(self, cost: LevelCost, trials: list[_Trial]) -> Sequence[int]:
        feasible = [trial for trial in trials if self._meets_target(trial, cost)]
        if feasible:
            return max(feasible, key=lambda trial: trial.value).levels
        nearest = min(trials, key=lambda trial: trial.measured)
        return lower(cost, nearest.levels, self.target_latency)

    def _meets_target(self, trial: _Trial, cost: LevelCost) -> bool:
        slack = 0.0 if cost.exact else self.tolerance
        return trial.measured <= self.target_latency * (1 + slack)

    def _best_of_all(self, cost: LevelCost) -> list[int]:
        combinations = itertools.product(*(range(len(bundle.levels)) for bundle in cost.bundles))
        affordable = (c for c in combinations if cost.predict(c) <= self.target_latency)
        best = max(affordable, key=cost.value)
        self._report(cost, best)
        return list(best)

    def _report(self, cost: LevelCost, levels: Sequence[int]) -> None:
        predicted = cost.predict(levels)
        self._note(self.target_latency, predicted, predicted, cost.value(levels) / cost.value(cost.top))

    def _rounds(self, cost: LevelCost) -> list[_Trial]:
        """All selections that were tried, until one meets the target or they repeat."""
        levels = tuple(cost.top)
        now = _Trial(levels, cost.value(levels), cost.predict(levels), cost.measure(levels))
        trials: list[_Trial] = []
        whole, seen, excess = now.value, {levels}, 0.0
        while len(trials) < self.max_iterations:
            goal = max(self.target_latency, now.measured * (1 - self.max_relative_latency_step))
            last = goal == self.target_latency
            levels = self._solve(cost, now, goal - (excess if last else 0.0))
            predicted = cost.predict(levels)
            expected = predicted * now.measured / now.predicted
            now = _Trial(levels, cost.value(levels), predicted, cost.measure(levels))
            # What is linearised saves less than it says: ask for as much less as it missed before.
            excess = max(0.0, excess + now.measured - goal) if last else 0.0
            self._note(goal, expected, now.measured, now.value / whole)
            done = levels in seen or (last and self._settled(now, trials, cost))
            trials.append(now)
            seen.add(levels)
            if done:
                break
        return trials

    def _settled(self, now: _Trial, before: list[_Trial], cost: LevelCost) -> bool:
        """Whether more rounds would gain little: on the target, and no better than what was on it."""
        near = abs(now.measured - self.target_latency) <= self.tolerance * self.target_latency
        if not (near and self._meets_target(now, cost)):
            return False
        best = max((t.value for t in before if self._meets_target(t, cost)), default=None)
        return not cost.exact or (best is not None and now.value <= best + 1e-3 * abs(best))

    def _solve(self, cost: LevelCost, now: _Trial, goal: float) -> tuple[int, ...]:
        """The levels of the highest value whose cost, linearised at the current ones, meets the goal."""
        ratio = now.measured / now.predicted
        values: list[list[float]] = []
        costs: list[list[float]] = []
        for index, bundle in enumerate(cost.bundles):
            values.append(bundle.values)
            costs.append([
                ratio * (there - now.predicted) for there in self._curve(cost, now, index)
            ])  # fmt: skip
        choice = choose(values, costs, goal - now.measured, seconds=self.solver_execution_time_limit)
        return tuple(choice.options)

    def _curve(self, cost: LevelCost, now: _Trial, index: int) -> list[float]:
        """The cost at every level of a bundle; by one difference where each costs a surgery."""
        bundle, here = cost.bundles[index], now.levels[index]
        options = list(range(len(bundle.levels)))
        if cost.cheap:
            return cost.curve(now.levels, index, options)
        near = here - 1 if here > 0 else here + 1
        if near > bundle.top:
            return [now.predicted] * len(options)
        (there,) = cost.curve(now.levels, index, [near])
        step = bundle.removed(near) - bundle.removed(here)
        slope = (there - now.predicted) / step
        return [now.predicted + slope * (bundle.removed(o) - bundle.removed(here)) for o in options]
