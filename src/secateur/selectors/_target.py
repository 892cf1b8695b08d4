"""What selectors with a cost target share: the cost of levels, and targets that cannot be met."""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from torch import nn

from .._errors import LabelError, TargetError
from ..axes import Label
from ..cost import BoundCost, CostFunction, Measurable, MeasuredCost, WidthCost
from ._base import Candidates, LabelSelector, lowest_labels
from ._constraint import Constraints, staircase
from ._ranking import labels_of

if TYPE_CHECKING:
    from .._snapshot import Snapshot


class Infeasible(Enum):
    """What to do about a target below the smallest cost that any selection reaches."""

    RAISE = "raise"
    WARN = "warn"

    @classmethod
    def _missing_(cls, value: object) -> Infeasible:
        raise LabelError(f"on_infeasible is one of {[i.value for i in cls]}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a search.

    Attributes:
        number: from 1.
        requested: the cost that was asked for in this round.
        predicted: the cost that the selection was expected to have.
        measured: the cost that it has.
        kept: the sum of the scores that stay, as a share of all.
        seconds: since the search began.
    """

    number: int
    requested: float
    predicted: float
    measured: float
    kept: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"round {self.number:2}: requested {self.requested:.6g}, predicted {self.predicted:.6g}, "
            f"measured {self.measured:.6g}, {self.kept:.2%} of the score kept, {self.seconds:.1f} s"
        )


class LevelCost:
    """The cost of a model whose bundles stand at given levels.

    ``predict`` is the bound cost; ``measure`` what the model really takes there, which differs only for
    costs that predict a time and can measure it too. Such a cost is a staircase: unless ``constrained``,
    widths are multiples of its step.
    """

    def __init__(
        self, function: CostFunction, snapshot: Snapshot, candidates: Candidates, *, constrained: bool
    ) -> None:
        self._snapshot = snapshot
        self._whole = {group.name: group.size for group in candidates.structure.groups}
        self._measured: dict[tuple[int, ...], list[float]] = {}
        # A cost of widths that costs nothing to ask, or a function of models, a surgery each time.
        self.cheap = isinstance(function, WidthCost)
        if isinstance(function, WidthCost):
            self.bound: BoundCost = function.bind(snapshot)
        else:
            chosen = candidates

            def labels_for(widths: Any) -> list[Label]:
                return lowest_labels(chosen, widths)

            self.bound = MeasuredCost(snapshot, function, labels_for)
        if isinstance(self.bound, Measurable) and not constrained:
            candidates = replace(candidates, allowed=staircase(candidates.groups, self.bound.step))
        self.bundles = candidates.bundles()

    @property
    def exact(self) -> bool:
        """Whether what is predicted is what is measured."""
        return not isinstance(self.bound, Measurable)

    @property
    def top(self) -> list[int]:
        """The levels before anything is taken off."""
        return [bundle.top for bundle in self.bundles]

    def widths(self, levels: Sequence[int]) -> dict[str, int]:
        """Widths of all groups at these levels."""
        widths = dict(self._whole)
        for bundle, level in zip(self.bundles, levels, strict=True):
            widths.update(bundle.widths(level))
        return widths

    def predict(self, levels: Sequence[int]) -> float:
        """The expected cost at these levels."""
        return self.bound(self.widths(levels))

    def curve(self, levels: Sequence[int], index: int, options: Sequence[int]) -> list[float]:
        """Expected costs with one bundle at each of ``options`` and the others at their levels."""
        bundle = self.bundles[index]
        return self.bound.curve(self.widths(levels), [bundle.widths(option) for option in options])

    def measure(self, levels: Sequence[int], *, again: bool = False) -> float:
        """The cost that a model cut to these levels has; the same levels are measured once.

        With ``again`` once more; the result is the mean of all measurements.
        """
        labels = labels_of(self.bundles, levels)
        if not isinstance(self.bound, Measurable) or not labels:  # a prediction starts at the whole model
            return self.predict(levels)
        found = self._measured.setdefault(tuple(levels), [])
        if again or not found:
            found.append(self.bound.measure(self._snapshot.cut_copy(labels)))
        return sum(found) / len(found)

    def value(self, levels: Sequence[int]) -> float:
        """The sum of the scores that stay."""
        return sum(b.values[level] for b, level in zip(self.bundles, levels, strict=True))

    def share(self, levels: Sequence[int]) -> float:
        """How much of the score is kept; all of it where nothing has a score."""
        whole = self.value(self.top)
        return self.value(levels) / whole if whole else 1.0


class LatencyLabelSelector(LabelSelector):
    """What selectors that aim at a cost share.

    A target that the model meets as it is gives no labels.
    """

    def __init__(
        self,
        target_latency: float,
        latency_calculation_function: CostFunction,
        *,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
        on_infeasible: Infeasible | str = Infeasible.RAISE,
        verbose: bool = True,
    ) -> None:
        super().__init__(channels_constraint=channels_constraint, ignore=ignore)
        self.target_latency = _positive(target_latency)
        self.latency_calculation_function = latency_calculation_function
        self.on_infeasible = Infeasible(on_infeasible)
        self.verbose = verbose
        self.rounds: list[Round] = []

    @abstractmethod
    def _search(self, cost: LevelCost) -> list[int]:
        """The levels at which bundles are to stand."""

    def _select(self, snapshot: Snapshot, candidates: Candidates) -> list[Label]:
        self.rounds = []
        self._start = time.perf_counter()
        cost = LevelCost(
            self.latency_calculation_function,
            snapshot,
            candidates,
            constrained=self.channels_constraint is not None,
        )
        levels = cost.top
        if cost.measure(levels) > self.target_latency:
            lowest = cost.measure([0] * len(levels))
            if lowest > self.target_latency:
                self._refuse(lowest)
                levels = [0] * len(levels)
            else:
                levels = self._search(cost)
        return labels_of(cost.bundles, levels)

    def _refuse(self, reachable: float) -> None:
        text = (
            f"the target {self.target_latency:.6g} cannot be met: with every group at its smallest width the "
            f"cost is still {reachable:.6g}. Ask for more than that, or relax channels_constraint and ignore"
        )
        if self.on_infeasible is Infeasible.RAISE:
            raise TargetError(text, reachable)
        warnings.warn(f"{text}. The smallest widths are selected", UserWarning, stacklevel=4)

    def _note(self, requested: float, predicted: float, measured: float, kept: float) -> None:
        seconds = time.perf_counter() - self._start
        self.rounds.append(Round(len(self.rounds) + 1, requested, predicted, measured, kept, seconds))
        if self.verbose:
            print(self.rounds[-1], flush=True)


def _positive(target: float) -> float:
    if isinstance(target, bool) or not isinstance(target, (int, float)) or not target > 0:
        raise LabelError(f"target_latency is a positive number, got {target!r}")
    return float(target)
