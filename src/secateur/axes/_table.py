"""The table of operator rules: one flat dict keyed by the operator; duplicates are refused."""

from __future__ import annotations

import inspect
import sys
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


# Rules of libraries that may be imported later: by module, the operators' names and rules.
_WAITING: dict[str, list[tuple[str, Rule]]] = {}


def overloads(operator: Any) -> Iterator[Any]:
    """The overloads of an operator packet that models call.

    Left out are those that write to ``out=``, and those that TorchScript keeps in the same packets
    for itself, such as its arithmetic on Python numbers.
    """
    if not isinstance(operator, torch._ops.OpOverloadPacket):
        yield operator
        return
    for name in operator.overloads():
        overload = getattr(operator, name)
        written = (a for a in overload._schema.arguments if a.alias_info and a.alias_info.is_write)
        if any(argument.kwarg_only for argument in written):
            continue
        if overload.namespace != "aten" or torch._C._dispatch_has_kernel(overload.name()):
            yield overload


def register_rule(
    *operators: Any, flow: FlowFunction = loses, samples: Samples | None = None
) -> Callable[[RuleFunction], RuleFunction]:
    """Decorator that registers the rule of one or several operators.

    Args:
        operators: overloads (``torch.ops.mylib.op.default``), packets (``torch.ops.mylib.op``, all
            of its overloads) or module classes (their calls are then recorded whole). An operator
            of a library that may be imported later, by name: ``"torchvision::nms"``.
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
            if isinstance(operator, str):
                _WAITING.setdefault(operator.partition("::")[0], []).append((operator, rule))
                _register_imported()
            elif isinstance(operator, (torch._ops.OpOverload, torch._ops.OpOverloadPacket, type)):
                _register(operator, rule)
            else:
                raise TypeError(f"expected an operator of torch.ops or a module class, got {operator!r}")
        return function

    return register


def _register(operator: Any, rule: Rule) -> None:
    for overload in overloads(operator):
        if overload in TABLE:
            other = TABLE[overload].function
            raise RuleError(
                f"{overload} has a rule already: {other.__module__}.{other.__qualname__}. "
                "Take it out of the table with secateur.axes.unregister_rule(operator) before you "
                "register another."
            )
        TABLE[overload] = rule


def _register_imported() -> None:
    """Register the rules of libraries that have been imported in the meantime."""
    for library in [name for name in _WAITING if name in sys.modules]:
        for name, rule in _WAITING.pop(library):
            packet = getattr(getattr(torch.ops, library), name.partition("::")[2], None)
            if packet is not None:  # some versions of the library lack it
                _register(packet, rule)


def unregister_rule(operator: Any) -> None:
    """Take the rule of an operator (or all overloads of a packet) out of the table."""
    for overload in overloads(operator):
        TABLE.pop(overload, None)


def has_rule(operator: Any) -> bool:
    """Whether an operator overload or a module class has a rule."""
    if _WAITING:
        _register_imported()
    return operator in TABLE


# Operators that a rule is written for and that this version of torch does not have.
ABSENT: list[str] = []


def aten(*names: str, in_place: bool = True) -> list[Any]:
    """Packets of ``torch.ops.aten`` by name, each with its in-place variant where there is one.

    Not so with ``in_place=False``: there the variant has a rule of its own.
    """
    found = []
    for name in names:
        variants = (name, f"{name}_") if in_place else (name,)
        packets = [getattr(torch.ops.aten, variant, None) for variant in variants]
        found += [packet for packet in packets if packet is not None]
        if not any(packets):
            ABSENT.append(name)
    return found
