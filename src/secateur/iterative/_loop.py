"""The loop: score, cut a little, fine-tune."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .._errors import MeasurementError
from ..axes import Label
from ..cost import Macs, WidthCost, count_macs, count_parameters
from ..selectors import KnapsackLabelSelector, LabelSelector
from ._history import History, Step, checkpoint
from ._schedule import Schedule, shares_left

if TYPE_CHECKING:
    from .._ir import PruningIR


@dataclass
class Iterative:
    """What :func:`prune_iteratively` gives.

    Attributes:
        ir: the best model.
        history: all steps.
    """

    ir: PruningIR
    history: History

    @property
    def model(self) -> nn.Module:
        """The best model itself."""
        return self.ir.model

    @property
    def best(self) -> Step:
        """The step that it comes from."""
        return self.history.best


def prune_iteratively(
    ir: PruningIR,
    snapshot_name: str = "main",
    *,
    target: float = 0.5,
    steps: int = 5,
    schedule: Schedule | str = Schedule.CUBIC,
    score: Callable[[PruningIR], Any] | None = None,
    finetune: Callable[[nn.Module], Any] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    limit: float | None = None,
    higher_is_better: bool = True,
    checkpoints: str | os.PathLike[str] | None = None,
    cost: WidthCost | None = None,
    selector: Callable[[float], LabelSelector] | None = None,
    cut: Callable[[PruningIR, list[Label]], PruningIR] | None = None,
    verbose: bool = True,
) -> Iterative:
    """Prune in small steps, with fine-tuning after each.

    Every step scores the model as it is then, cuts it to the next share of the original cost, and
    hands it to ``finetune``. The model that was given stays as it is.

    Args:
        ir: the model. ``score`` may record it, by the first sample.
        snapshot_name: which snapshot to prune.
        target: share of the cost that is to be left after the last step.
        steps: number of steps.
        schedule: ``"linear"`` or ``"cubic"``, see :class:`secateur.iterative.Schedule`.
        score: leaves scores in the snapshot, as a criterion does that is used in it; by default labels
            have their magnitude.
        finetune: trains a model in place.
        evaluate: the user's metric of a model. It is called before the first step, and after the cut
            and after the fine-tuning of each.
        limit: the worst metric to accept: the loop ends after the first step whose metric, fine-tuned,
            is beyond it.
        higher_is_better: which way the metric is better.
        checkpoints: a folder to save the model of every step in; see
            :func:`secateur.iterative.load_best`.
        cost: what ``target`` is a share of; by default :class:`secateur.cost.Macs`.
        selector: from the cost not to exceed to the selector of a step; by default
            :class:`secateur.KnapsackLabelSelector`.
        cut: how to cut, by default ``ir.prune(labels=labels)``: the place for ``compensate=`` and other
            arguments of :meth:`secateur.PruningIR.prune`.
        verbose: print each step.

    Returns:
        The best model with the history of all steps. Which step is the best is said at
        :class:`secateur.iterative.History`.

    Raises:
        LabelError: for a target, schedule or number of steps that makes no sense.
        TargetError: if no selection reaches the cost of a step.
        MeasurementError: if the metric is no number.

    Example:
        >>> import tempfile, torch, secateur
        >>> def factory():
        ...     return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> ir = secateur.PruningIR(factory())
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 4),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = secateur.prune_iteratively(
        ...         ir, target=0.25, steps=3, schedule="linear", checkpoints=folder, verbose=False
        ...     )
        ...     again, history = secateur.iterative.load_best(factory, folder)
        >>> [step.macs for step in result.history.steps]
        [96, 72, 48, 24]
        >>> again[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    shares = shares_left(target, steps, schedule)
    work = _Work(snapshot_name, cost or Macs(), score, finetune, evaluate, selector, cut)
    history = History(limit=limit, higher_is_better=higher_is_better)
    folder = None if checkpoints is None else Path(checkpoints)

    def take(step: Step) -> None:
        history.steps.append(step)
        if folder is not None:
            checkpoint(ir.model, history, folder)
        if verbose:
            print(step, flush=True)

    take(work.begin(ir))
    best = ir
    for number, share in enumerate(shares, 1):
        ir, step = work.step(ir, number, share)
        take(step)
        if history.best is step:
            best = ir
        if not history.within_limit(step):
            break
    return Iterative(best, history)


class _Work:
    """The user's functions, and the cost that shares are taken of."""

    def __init__(
        self,
        name: str,
        cost: WidthCost,
        score: Callable[[PruningIR], Any] | None,
        finetune: Callable[[nn.Module], Any] | None,
        evaluate: Callable[[nn.Module], float] | None,
        selector: Callable[[float], LabelSelector] | None,
        cut: Callable[[PruningIR, list[Label]], PruningIR] | None,
    ) -> None:
        self._name, self._cost = name, cost
        self._score, self._finetune, self._evaluate = score, finetune, evaluate
        self._selector = selector or (lambda most: KnapsackLabelSelector(most, cost, verbose=False))
        self._cut = cut or (lambda ir, labels: ir.prune(self._name, labels=labels))
        self._full = math.nan
        self._scored = False

    def begin(self, ir: PruningIR) -> Step:
        """Step 0: the model as it is."""
        metric = self._metric(ir.model)
        if self._score is not None:  # may record the model; the first cut takes the scores
            self._score(ir)
            self._scored = True
        self._full = self._cost.bind(ir.snapshot(self._name))({})
        return self._describe(ir, 0, metric, metric, 0.0)

    def step(self, ir: PruningIR, number: int, share: float) -> tuple[PruningIR, Step]:
        """The model with ``share`` of the original cost left, fine-tuned."""
        start = time.perf_counter()
        if self._score is not None and not self._scored:
            self._score(ir)
        self._scored = False
        labels = self._selector(share * self._full).select(ir, self._name)
        small = self._cut(ir, labels)
        metric = after = self._metric(small.model)
        if self._finetune is not None:
            self._finetune(small.model)
            after = self._metric(small.model)
        return small, self._describe(small, number, metric, after, time.perf_counter() - start)

    def _describe(
        self, ir: PruningIR, number: int, cut: float | None, metric: float | None, seconds: float
    ) -> Step:
        snapshot = ir.snapshot(self._name)
        analysis = snapshot.structure.analysis
        return Step(
            number=number,
            share=self._cost.bind(snapshot)({}) / self._full,
            parameters=count_parameters(analysis),
            macs=count_macs(analysis),
            cut=cut,
            metric=metric,
            seconds=seconds,
        )

    def _metric(self, model: nn.Module) -> float | None:
        if self._evaluate is None:
            return None
        value = float(self._evaluate(model))
        if math.isnan(value):
            raise MeasurementError("evaluate gave NaN for a model: no step can be told to be better")
        return value
