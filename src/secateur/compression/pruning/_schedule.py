"""Schedules: sparsity that grows while the model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..._errors import PruningError
from ..config import PruningSettings, Resolved
from ..sites import key_of
from ._allocate import with_settings
from ._collecting import CollectingPruner
from ._driving import DrivingPruner
from ._pruner import Masks, Pruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator


def linear(part: float) -> float:
    """Share of the goal after a part of the time: the same amount in every interval."""
    return part


def cubic(part: float) -> float:
    """Share of the goal after a part of the time: much at first, little at the end.

    Source: Zhu and Gupta, "To prune, or not to prune" (2017).

    >>> [round(cubic(t / 4), 3) for t in range(5)]
    [0.0, 0.578, 0.875, 0.984, 1.0]
    """
    return 1 - (1 - part) ** 3


def scaled(resolved: Resolved, share: float) -> Resolved:
    """The configuration with ratios, thresholds and their bounds times ``share``."""
    return with_settings(
        resolved, {key_of(t): _scaled(t.settings, share) for t in resolved.targets if t.settings.active}
    )


def _scaled(settings: PruningSettings, share: float) -> dict[str, float]:
    values = {"min_sparse_ratio": settings.min_sparse_ratio * share}
    if settings.max_sparse_ratio < 1:
        values["max_sparse_ratio"] = settings.max_sparse_ratio * share
    for name in ("sparse_ratio", "sparse_threshold"):
        value = getattr(settings, name)
        if value is not None:
            values[name] = value * share
    return values


class _ScheduledPruner(DrivingPruner):
    """Raises the goals of another pruner in intervals; see :class:`LinearPruner`."""

    curve: ClassVar[Any] = staticmethod(linear)

    def __init__(
        self, pruner: Pruner, interval_steps: int, total_times: int, evaluator: Evaluator | None = None
    ) -> None:
        name = type(self).__name__
        if not isinstance(pruner, Pruner) or isinstance(pruner, _ScheduledPruner):
            raise PruningError(f"{name} schedules another pruner, got {type(pruner).__name__}")
        if interval_steps < 1 or total_times < 1:
            raise PruningError(
                f"{name}: at least one interval of at least one step, got {total_times} of {interval_steps}"
            )
        if isinstance(pruner, CollectingPruner) and interval_steps < pruner.training_steps:
            raise PruningError(
                f"{type(pruner).__name__} collects for {pruner.training_steps} steps, which is longer than "
                f"an interval of {interval_steps}: raise interval_steps or lower training_steps"
            )
        super().__init__(pruner, evaluator)
        self.interval_steps, self.total_times = interval_steps, total_times
        self._set_goals(0)

    def _set_goals(self, done: int) -> None:
        """The goals after some intervals."""
        self.set_goals(scaled(self.goal, self.goals()[min(done, self.total_times)]))

    def goals(self) -> list[float]:
        """Shares of the final goals: before the first interval, and after each."""
        return [self.curve(t / self.total_times) for t in range(self.total_times + 1)]

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Pruner.step`."""
        self.steps += 1
        done, rest = divmod(self.steps, self.interval_steps)
        if done > self.total_times or (done == self.total_times and rest):
            return
        if isinstance(self.pruner, CollectingPruner):
            self.pruner.collect(grad_scale)
        if rest == 0:
            self._set_goals(done)
            self.generate_masks()

    def generate_masks(self) -> Masks:
        """See :meth:`Pruner.generate_masks`."""
        masks = self.pruner.generate_masks()
        if isinstance(self.pruner, CollectingPruner):
            self.pruner.begin()
            if self.steps >= self.interval_steps * self.total_times:
                self.pruner.end()
        return masks

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        need = self.interval_steps * self.total_times
        if max_steps is None and max_epochs is None:
            raise PruningError(
                f"{type(self).__name__} needs compress(max_steps, max_epochs) to know how long to train"
            )
        if max_steps is not None and max_steps < need:
            raise PruningError(
                f"max_steps={max_steps} is over before {self.total_times} intervals of "
                f"{self.interval_steps} steps are: train for at least {need}"
            )

    @property
    def needed_steps(self) -> int:
        """See :meth:`Compressor.needed_steps`."""
        return max(0, self.interval_steps * self.total_times - self.steps)

    def _finished(self) -> None:
        need = self.interval_steps * self.total_times
        if self.steps < need:
            raise PruningError(
                f"training was over after {self.steps} of {need} steps: the goals are not reached"
            )

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._set_goals(self.steps // self.interval_steps)


class LinearPruner(_ScheduledPruner):
    """Raises the goals of another pruner by the same amount in every interval.

    After ``t`` of ``T`` intervals: ``goal * t / T``. All of ``sparse_ratio``, ``sparse_threshold``,
    ``min_sparse_ratio`` and ``max_sparse_ratio`` grow together. Granularity is that of the other pruner.

    Args:
        pruner: makes the masks.
        interval_steps: steps of the optimizer between two increases.
        total_times: number of increases.
        evaluator: that of ``pruner`` unless given.

    Raises:
        PruningError: for another schedule in the place of a pruner, or intervals in which the pruner has
            too little time to collect.
    """


class AGPPruner(_ScheduledPruner):
    """Raises the goals of another pruner fast at first and slowly at the end.

    After ``t`` of ``T`` intervals: ``goal * (1 - (1 - t / T)**3)``. Source: Zhu and Gupta, "To prune, or not
    to prune: exploring the efficacy of pruning for model compression" (2017). Arguments: see
    :class:`LinearPruner`.
    """

    curve = staticmethod(cubic)
