"""Decisions that data takes: recorded on one model, imposed on the other.

A detector's boxes, a router's experts: tiny differences in scores may flip a choice, and then
outputs cannot be compared at all. So the choices of the reference run (which positions a ``topk``,
a threshold or a non-maximum suppression took) are imposed on the candidate, whose numbers remain
its own. How many it would have taken otherwise is counted. Where the candidate has fewer positions to
choose among (experts have gone), their numbers mean nothing to it: from there on it decides itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..capture import Graph

_RANKS = {"aten::topk", "aten::sort", "aten::kthvalue", "aten::mode", "aten::median"}
_INDICES = {
    "aten::argmax", "aten::argmin", "aten::argsort", "aten::nonzero", "aten::multinomial",
    "aten::bernoulli", "torchvision::nms", "aten::searchsorted", "aten::bucketize",
}  # fmt: skip
_TESTS = {"aten::gt", "aten::lt", "aten::ge", "aten::le", "aten::eq", "aten::ne"}
# Counts and positions; narrower integers are codes of numbers, which are to be compared.
_COUNTS = {torch.int64, torch.int32}
_CONVERSIONS = {"aten::_to_copy", "aten::to"}


def _name(op: Any) -> str:
    schema = getattr(op, "_schema", None)
    return schema.name if schema is not None else ""


def _decides(op: Any, args: Sequence[Any], result: Any) -> bool:
    name = _name(op)
    if name in _RANKS or name in _INDICES:
        return True
    if name == "aten::_to_copy":
        return _counts(args[0].dtype, result.dtype)
    return name in _TESTS and any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args)


def _counts(before: torch.dtype, after: torch.dtype) -> bool:
    """Whether numbers become counts: a duration in frames, the position of a point in a grid."""
    return before.is_floating_point and after in _COUNTS


class Choice(NamedTuple):
    """What was chosen, and among how many."""

    positions: torch.Tensor
    among: int | None


def takes_decisions(graph: Graph) -> list[str]:
    """Names of the operators in a graph that choose by value, each once."""
    return list(dict.fromkeys(_choosing(graph)))


def _choosing(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        name = _name(node.op)
        if name in _RANKS or name in _INDICES:
            yield name.partition("::")[2]
        elif name in _CONVERSIONS:
            before, after = (graph.values[ids[0]].dtype for ids in (node.inputs, node.outputs))
            if _counts(before, after):
                yield "conversion to integers"


class Decisions(TorchDispatchMode):
    """Records what is chosen in a run, or imposes what was chosen in an earlier one.

    Attributes:
        taken: the choices, in order.
        flipped: how many were others than this run would have taken.
        free: whether some were left to this run, since it chooses among another number of positions.
    """

    def __init__(self, imposed: list[Choice] | None = None) -> None:
        super().__init__()
        self.taken: list[Choice] = []
        self.flipped = 0
        self.free = False
        self._imposed = imposed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _decides(func, args, result):
            return result
        ranked = isinstance(result, (tuple, list))
        choice = result[1] if ranked else result
        among = _among(func, args, kwargs or {})
        if self._imposed is None:
            self.taken.append(Choice(choice.clone(), among))
            return result
        if len(self.taken) < len(self._imposed) and self._imposed[len(self.taken)].among != among:
            self._imposed = self._imposed[: len(self.taken)]
            self.free = True
        imposed = len(self.taken) < len(self._imposed)
        wanted = self._imposed[len(self.taken)].positions if imposed else choice
        self.taken.append(Choice(wanted, among))
        if wanted.shape == choice.shape and torch.equal(wanted, choice):
            return result
        self.flipped += 1
        if not ranked:
            return wanted
        dim = _dim(func, args, kwargs or {})
        values = args[0].gather(dim, wanted) if wanted.dim() == args[0].dim() else result[0]
        return type(result)((values, wanted)) if isinstance(result, list) else (values, wanted)


def _among(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many positions a call ranks or takes the best of; None where that is not what it does."""
    ranks = _name(func) in _RANKS or _name(func) in ("aten::argmax", "aten::argmin", "aten::argsort")
    tensor = args[0] if args else None
    if not ranks or not isinstance(tensor, torch.Tensor) or not tensor.dim():
        return None
    return tensor.shape[_dim(func, args, kwargs)]


def _dim(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == "dim":
            given = args[position] if position < len(args) else kwargs.get("dim", argument.default_value)
            return -1 if given is None else int(given)
    return -1
