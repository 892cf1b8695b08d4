"""Cost functions: what a selector minimises, bound to a model before it asks for many widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from torch import nn

from .._errors import MeasurementError
from ..axes import Label, Structure
from ._polynomial import CostPolynomial, mac_cost, parameter_cost, settled_widths
from ._settle import Settling

if TYPE_CHECKING:
    from .._snapshot import Snapshot

Widths: TypeAlias = Mapping[str, int]


class BoundCost(Protocol):
    """The cost of one model as a function of the widths of its groups."""

    def __call__(self, widths: Widths) -> float:
        """The cost at these widths; a group that is not named is whole."""
        ...

    def curve(self, widths: Widths, alternatives: Sequence[Widths]) -> list[float]:
        """The costs at ``widths`` with each of the alternatives laid over it."""
        ...


@runtime_checkable
class Measurable(Protocol):
    """What a bound cost has in addition, if it predicts what can be measured.

    Attributes:
        step: widths that are multiples of it are the ones worth having: the cost is a staircase.
    """

    step: int

    def measure(self, model: nn.Module) -> float:
        """The cost that a pruned model really has."""
        ...


@runtime_checkable
class WidthCost(Protocol):
    """A cost that is computed from widths, without surgery."""

    def bind(self, snapshot: Snapshot) -> BoundCost:
        """The cost function of one model."""
        ...


CostFunction: TypeAlias = WidthCost | Callable[[nn.Module], float]
"""What selectors take: a cost of this package, or any function from a (pruned) model to a number."""


class ExactCost:
    """A cost polynomial at the widths that surgery gives."""

    def __init__(self, structure: Structure, polynomial: CostPolynomial) -> None:
        self._polynomial = polynomial
        self._settle = Settling(structure)

    def __call__(self, widths: Widths) -> float:
        """The cost at these widths."""
        return float(self._polynomial(self._settle(widths)))

    def curve(self, widths: Widths, alternatives: Sequence[Widths]) -> list[float]:
        """The costs at ``widths`` with each of the alternatives laid over it."""
        return [self({**widths, **alternative}) for alternative in alternatives]


class Macs:
    """Multiply-accumulates of one forward at the snapshot's inputs, computed from the graph.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)))
        >>> cost = Macs().bind(ir.create_snapshot("main", args=(torch.ones(1, 2),)))
        >>> cost({}), cost({"0": 3})
        (18.0, 9.0)
    """

    def bind(self, snapshot: Snapshot) -> BoundCost:
        """The multiply-accumulates of one model as a function of widths."""
        return ExactCost(snapshot.structure, mac_cost(snapshot.structure))


class Parameters:
    """Parameter elements, computed from the graph; a tied parameter counts once."""

    def bind(self, snapshot: Snapshot) -> BoundCost:
        """The parameters of one model as a function of widths."""
        return ExactCost(snapshot.structure, parameter_cost(snapshot.structure))


class MeasuredCost:
    """A user's function of the model, called on pruned copies and remembered by widths.

    Args:
        snapshot: the model.
        function: from a model to a positive number: milliseconds, joules, bytes, ...
        labels_for: which labels to take off to come to given widths.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        function: Callable[[nn.Module], Any],
        labels_for: Callable[[Widths], list[Label]],
    ) -> None:
        self._snapshot = snapshot
        self._function = function
        self._labels_for = labels_for
        self._memory: dict[tuple[int, ...], float] = {}
        self.measurements = 0

    def __call__(self, widths: Widths) -> float:
        """The cost at these widths; the same widths are measured once.

        Raises:
            MeasurementError: if the function raises, or gives no positive finite number.
        """
        settled = settled_widths(self._snapshot.structure, widths)
        key = tuple(settled.values())
        if key not in self._memory:
            self.measurements += 1
            self._memory[key] = self._measure(settled)
        return self._memory[key]

    def curve(self, widths: Widths, alternatives: Sequence[Widths]) -> list[float]:
        """The costs at ``widths`` with each of the alternatives laid over it."""
        return [self({**widths, **alternative}) for alternative in alternatives]

    def _measure(self, widths: Widths) -> float:
        model = self._snapshot.cut_copy(self._labels_for(widths))
        name = getattr(self._function, "__name__", type(self._function).__name__)
        try:
            value = float(self._function(model))
        except Exception as error:
            raise MeasurementError(
                f"the cost function {name} raised {type(error).__name__} on a pruned copy: {error}"
            ) from error
        if not (math.isfinite(value) and value > 0):
            raise MeasurementError(
                f"the cost function {name} gave {value}; a cost is a positive finite number"
            )
        return value
