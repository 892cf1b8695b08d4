"""Which masked positions of a tensor hold zeros: the ground on which a cut is called exact.

A :class:`Signal` says, for one tensor, which axes it carries and for which of them its masked
positions may be something else than zero (``dirty``). Parameters are clean: the masked model has
zeros there. A rule's ``flow`` says what its operator makes of its operands' signals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._algebra import Leaf
from ._operator import Operand, operands_in

Axes = frozenset[Leaf]
NONE: Axes = frozenset()


@dataclass(frozen=True, slots=True)
class Signal:
    """Axes that a tensor carries, and those at whose masked positions it may not be zero."""

    carried: Axes = NONE
    dirty: Axes = NONE

    @property
    def clean(self) -> Axes:
        """Axes at whose masked positions the tensor is zero."""
        return self.carried - self.dirty


@dataclass(frozen=True, slots=True)
class Flow:
    """The signals of one operator's operands, by the names of its rule's parameters."""

    arguments: dict[str, Any]
    signal_of: Callable[[int], Signal]

    def __getitem__(self, name: str) -> Signal | None:
        value = self.arguments.get(name)
        return self.signal_of(value.id) if isinstance(value, Operand) else None

    def tensors(self) -> list[Signal]:
        """Signals of all tensor operands, lists of tensors included."""
        return [self.signal_of(operand.id) for operand in operands_in(self.arguments.values())]


def multiply(*signals: Signal | None) -> Signal:
    """Zero where any factor that carries the axis is zero."""
    factors = [signal for signal in signals if signal is not None]
    carried = NONE.union(*(s.carried for s in factors))
    return Signal(carried, carried.difference(*(s.clean for s in factors)))


def add(*signals: Signal | None) -> Signal:
    """Zero where every term carries the axis and is zero there."""
    terms = [signal for signal in signals if signal is not None]
    carried = NONE.union(*(s.carried for s in terms))
    clean = carried.intersection(*(s.clean for s in terms)) if terms else NONE
    return Signal(carried, carried - clean)


# The kinds of operators, as the ``flow`` of their rules.


def adds(*names: str) -> Callable[[Flow], Signal]:
    """The flow of a result that is zero where each of these arguments is, numbers included."""

    def flow(flow: Flow) -> Signal:
        numbers = (flow.arguments.get(name) for name in names)
        if any(isinstance(n, (int, float, complex)) and n != 0 for n in numbers):
            return loses(flow)
        terms = [signal for name in names if (signal := flow[name]) is not None]
        return add(*terms) if terms else ZERO

    return flow


def keeps(flow: Flow) -> Signal:
    """f(0) = 0, or positions are only moved: zero where every operand is."""
    signals = flow.tensors()
    carried = NONE.union(*(s.carried for s in signals))
    return Signal(carried, NONE.union(*(s.dirty for s in signals)))


def multiplies(flow: Flow) -> Signal:
    """Operands are multiplied: one zero is enough."""
    return multiply(*flow.tensors())


def loses(flow: Flow) -> Signal:
    """Nothing is known of the result where operands are zero."""
    carried = NONE.union(*(s.carried for s in flow.tensors()))
    return Signal(carried, carried)


def weighs(flow: Flow) -> Signal:
    """``input * weight + bias``: convolutions, linear layers and the like."""
    weighted = multiply(flow["input"], flow["weight"])
    return add(weighted, flow["bias"]) if flow["bias"] else weighted


def normalizes(flow: Flow) -> Signal:
    """Normalised input is not zero where the input was; an affine weight and bias make it so."""
    source = flow["input"] or Signal()
    moved = Signal(source.carried, source.carried)
    if flow["weight"] is None:
        return moved
    return (
        add(multiply(moved, flow["weight"]), flow["bias"])
        if flow["bias"]
        else multiply(moved, flow["weight"])
    )


ZERO = Signal()


def zeros(flow: Flow) -> Signal:
    """The result is zero everywhere."""
    return ZERO
