"""The table of operator rules: one flat dict keyed by the operator; duplicates are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .._errors import RuleError
from ._flow import Flow, Signal, loses
from ._operator import Operator

RuleFunction = Callable[..., Any]
FlowFunction = Callable[[Flow], Signal]
Samples = Callable[[], Iterable[tuple[Any, ...]]]


@dataclass(frozen=True)
class Rule:
    """How the dimensions of one operator relate.

    Attributes:
        function: called as ``function(op, *args, **kwargs)`` with the operator's own arguments,
            tensors as :class:`Operand`; returns the dimensions of the result (a list of lists for
            several results).
        flow: what becomes of zeros (see ``_flow``); by default nothing is known.
        samples: makes tuples of arguments on which a test judges the rule against the operator.
    """

    function: RuleFunction
    flow: FlowFunction = loses
    samples: Samples | None = None
    signature: inspect.Signature | None = None

    def bind(self, op: Operator, args: Any, kwargs: Any) -> dict[str, Any]:
        """Arguments by the names of the rule's parameters, defaults filled in."""
        assert self.signature is not None
        bound = self.signature.bind(op, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        arguments.pop(next(iter(self.signature.parameters)))
        return arguments


TABLE: dict[Any, Rule] = {}


def overloads(operator: Any) -> Iterator[Any]:
    """The overloads of an operator packet, without those that write to ``out=``."""
    if isinstance(operator, torch._ops.OpOverloadPacket):
        for name in operator.overloads():
            if "out" not in name.split("_"):
                yield getattr(operator, name)
    else:
        yield operator


def register_rule(
    *operators: Any, flow: FlowFunction = loses, samples: Samples | None = None
) -> Callable[[RuleFunction], RuleFunction]:
    """Decorator that registers the rule of one or several operators.

    Args:
        operators: overloads (``torch.ops.mylib.op.default``), packets (``torch.ops.mylib.op``, all
            of its overloads) or module classes (their calls are then recorded whole).
        flow: what becomes of zeros: one of the functions of ``secateur.axes.flow``.
        samples: function that yields argument tuples to judge the rule on
            (:func:`secateur.testing.check_rule`).

    Raises:
        RuleError: if one of the operators has a rule already.
        TypeError: if something is neither an operator nor a module class.

    Example:
        >>> import torch, secateur
        >>> @torch.library.custom_op("secateur_doc::swish", mutates_args=())
        ... def swish(x: torch.Tensor) -> torch.Tensor:
        ...     return x * x.sigmoid()
        >>> @secateur.register_rule(torch.ops.secateur_doc.swish, flow=secateur.axes.flow.keeps)
        ... def _(op, x):
        ...     return list(x)
    """

    def register(function: RuleFunction) -> RuleFunction:
        rule = Rule(function, flow, samples, inspect.signature(function))
        for operator in operators:
            if not isinstance(operator, (torch._ops.OpOverload, torch._ops.OpOverloadPacket, type)):
                raise TypeError(f"expected an operator of torch.ops or a module class, got {operator!r}")
            for overload in overloads(operator):
                if overload in TABLE:
                    raise RuleError(
                        f"{overload} has a rule already: {TABLE[overload].function.__module__}."
                        f"{TABLE[overload].function.__qualname__}. Take it out of the table with "
                        "secateur.axes.unregister_rule(operator) before you register another."
                    )
                TABLE[overload] = rule
        return function

    return register


def unregister_rule(operator: Any) -> None:
    """Take the rule of an operator (or all overloads of a packet) out of the table."""
    for overload in overloads(operator):
        TABLE.pop(overload, None)


def has_rule(operator: Any) -> bool:
    """Whether an operator overload or a module class has a rule."""
    return operator in TABLE


def aten(*names: str) -> list[Any]:
    """Packets of ``torch.ops.aten`` by name, each with its in-place variant where there is one."""
    found = []
    for name in names:
        for variant in (name, f"{name}_"):
            packet = getattr(torch.ops.aten, variant, None)
            if packet is not None:
                found.append(packet)
    if len({p.__name__.rstrip("_") for p in found}) < len({n.rstrip("_") for n in names}):
        missing = [n for n in names if not hasattr(torch.ops.aten, n)]
        raise RuleError(f"torch.ops.aten has no {', '.join(missing)}")
    return found
