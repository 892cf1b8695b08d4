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
from ._corrected import Levels, MeasuredSearch
from ._improve import improve, lower, spend
from ._solver import choose
from ._target import Infeasible, LatencyLabelSelector, LevelCost

EXHAUSTIVE = 20_000
"""Up to so many combinations of levels are simply all tried, where the cost is computed."""


PREDICTED_GAP = 1e-3
"""How near to the best a choice has to be, as a share, where costs are only predicted."""


@dataclass(frozen=True)
class _Trial:
    levels: Levels
    value: float
    predicted: float


class KnapsackLabelSelector(LatencyLabelSelector):
    """Keeps as much score as a cost target allows.

    Score is value, cost is weight, and a bundle of coupled groups offers its widths as options. The
    cost of one bundle depends on the widths of the others, so the knapsack is solved in rounds:
    with the others at the widths of the round before, every width of every bundle gets its cost (finite
    differences over whole steps), an exact solver chooses one width each, and the cost there is
    looked up. A round asks for no more than ``max_relative_latency_step`` of the way. The best
    selection within the target is remembered; rounds end when it settles on the target, or when
    selections repeat. Where asking is cheap, widths are exchanged at last as long as that gains score.
    A cost that predicts a time is then measured on the cut model, and the search repeated with what is
    asked of the prediction corrected by that, until the measured time, the mean of two measurements, is
    below the target by no more than twice the ``tolerance``. Time that predictions leave unused is
    spent on labels that are put back; at most 5 % of the score are given for that, where a group goes
    over a step of its staircase and others pay for it.

    Sources: Shen et al., "Structural pruning via latency-saliency knapsack" (HALP, NeurIPS 2022), with
    widths as options of a multiple-choice knapsack, solved exactly.

    Args:
        target_latency: the cost not to exceed, in the units of the function.
        latency_calculation_function: from a (pruned copy of the) model to its cost; or
            :class:`secateur.cost.Macs`, :class:`secateur.cost.Parameters`,
            :class:`secateur.cost.LatencyTable`, which need no surgery to be asked.
        strict_label_order: remove the labels of a group in the order of their scores. The labels of a
            group cost the same, so no other order keeps more score, and False selects the same.
        channels_constraint: widths that groups may have; one round looks at all of them. By default any,
            and multiples of the table's step (8) with a latency table: other widths gain little time.
        max_iterations: most rounds.
        solver_execution_time_limit: seconds for the solver in each round; None for no limit.
        verbose: print requested, predicted and measured cost in each round.
        max_relative_latency_step: most of the current cost to take off in one round, in (0, 1].
        tolerance: how much the measured cost may vary, as a share of the target: rounds aim that much
            below it.
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
        if not cost.exact:
            search = MeasuredSearch(
                cost,
                self.target_latency,
                self.tolerance,
                self.max_iterations,
                lambda goal, start: self._under(cost, goal, start),
                self._note,
            )
            return list(search.run())
        if cost.cheap and prod(len(b.levels) for b in cost.bundles) <= EXHAUSTIVE:
            return self._best_of_all(cost)
        levels = self._under(cost, self.target_latency, cost.top, show=True)
        if cost.cheap:
            self._report(cost, levels)
        return list(levels)

    def _under(self, cost: LevelCost, target: float, start: Sequence[int], *, show: bool = False) -> Levels:
        """The best levels that are predicted to meet a target."""
        trials = self._rounds(cost, target, start, show=show)
        affordable = [trial for trial in trials if trial.predicted <= target]
        if affordable:
            best = max(affordable, key=lambda trial: trial.value).levels
        elif cost.cheap:
            best = lower(cost, min(trials, key=lambda trial: trial.predicted).levels, target)
        else:  # the smallest widths are within the target: that was seen before the search began
            best = (0,) * len(cost.bundles)
        if not cost.cheap:
            return best
        # What a prediction is off by is more than exchanges gain: then only what is left is spent.
        return improve(cost, best, target) if cost.exact else spend(cost, best, target, self.tolerance)

    def _best_of_all(self, cost: LevelCost) -> list[int]:
        combinations = itertools.product(*(range(len(bundle.levels)) for bundle in cost.bundles))
        affordable = (c for c in combinations if cost.predict(c) <= self.target_latency)
        best = max(affordable, key=cost.value)
        self._report(cost, best)
        return list(best)

    def _report(self, cost: LevelCost, levels: Sequence[int]) -> None:
        predicted = cost.predict(levels)
        self._note(self.target_latency, predicted, predicted, cost.share(levels))

    def _rounds(self, cost: LevelCost, target: float, start: Sequence[int], *, show: bool) -> list[_Trial]:
        """All selections that were tried, until one meets the target or they repeat."""
        levels = tuple(start)
        now = _Trial(levels, cost.value(levels), cost.predict(levels))
        trials: list[_Trial] = []
        seen, excess = {levels}, 0.0
        while len(trials) < self.max_iterations:
            goal = max(target, now.predicted * (1 - self.max_relative_latency_step))
            last = goal == target
            levels, expected = self._solve(cost, now, goal - (excess if last else 0.0))
            now = _Trial(levels, cost.value(levels), cost.predict(levels))
            # What is linearised saves less than it says: ask for as much less as it missed before.
            excess = max(0.0, excess + now.predicted - goal) if last else 0.0
            if show:
                self._note(goal, expected, now.predicted, cost.share(levels))
            done = levels in seen or (last and self._settled(now, trials, target))
            trials.append(now)
            seen.add(levels)
            if done:
                break
        return trials

    def _settled(self, now: _Trial, before: list[_Trial], target: float) -> bool:
        """Whether more rounds would gain little: on the target, and no better than what was on it."""
        if not target * (1 - self.tolerance) <= now.predicted <= target:
            return False
        best = max((trial.value for trial in before if trial.predicted <= target), default=None)
        return best is not None and now.value <= best + 1e-3 * abs(best)

    def _solve(self, cost: LevelCost, now: _Trial, goal: float) -> tuple[Levels, float]:
        """The levels of the highest value whose linearised cost meets the goal, and that cost."""
        curves = [self._curve(cost, now, index) for index in range(len(cost.bundles))]
        costs = [[there - now.predicted for there in curve] for curve in curves]
        values = [bundle.values for bundle in cost.bundles]
        limit = goal - now.predicted
        # Predictions are off by more than a nearly best choice is short of the best.
        gap = 0.0 if cost.exact else PREDICTED_GAP
        choice = choose(values, costs, limit, seconds=self.solver_execution_time_limit, gap=gap)
        return tuple(choice.options), now.predicted + choice.cost

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
