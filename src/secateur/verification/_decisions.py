"""Decisions that data takes: recorded on one model, imposed on the other.

A detector's boxes, a router's experts: tiny differences in scores may flip a choice, and then
outputs cannot be compared at all. So the choices of the reference run (which positions a ``topk``,
a threshold or a non-maximum suppression took) are imposed on the candidate, whose numbers remain
its own. How many it would have taken otherwise is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..capture import Graph

_RANKS = {"aten::topk", "aten::sort", "aten::kthvalue", "aten::mode", "aten::median"}
_INDICES = {
    "aten::argmax", "aten::argmin", "aten::argsort", "aten::nonzero", "aten::multinomial",
    "aten::bernoulli", "torchvision::nms", "aten::searchsorted", "aten::bucketize",
}  # fmt: skip
_TESTS = {"aten::gt", "aten::lt", "aten::ge", "aten::le", "aten::eq", "aten::ne"}


def _name(op: Any) -> str:
    schema = getattr(op, "_schema", None)
    return schema.name if schema is not None else ""


def _decides(op: Any, args: Iterable[Any]) -> bool:
    name = _name(op)
    if name in _RANKS or name in _INDICES:
        return True
    return name in _TESTS and any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args)


def takes_decisions(graph: Graph) -> list[str]:
    """Names of the operators in a graph that choose by value, each once."""
    names = (_name(node.op) for node in graph.nodes)
    return list(dict.fromkeys(n.partition("::")[2] for n in names if n in _RANKS | _INDICES))


class Decisions(TorchDispatchMode):
    """Records what is chosen in a run, or imposes what was chosen in an earlier one."""

    def __init__(self, imposed: list[torch.Tensor] | None = None) -> None:
        super().__init__()
        self.taken: list[torch.Tensor] = []
        self.flipped = 0
        self._imposed = imposed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _decides(func, args):
            return result
        ranked = isinstance(result, (tuple, list))
        choice = result[1] if ranked else result
        if self._imposed is None:
            self.taken.append(choice.clone())
            return result
        wanted = self._imposed[len(self.taken)] if len(self.taken) < len(self._imposed) else choice
        self.taken.append(wanted)
        if wanted.shape == choice.shape and torch.equal(wanted, choice):
            return result
        self.flipped += 1
        if not ranked:
            return wanted
        dim = _dim(func, args, kwargs or {})
        values = args[0].gather(dim, wanted) if wanted.dim() == args[0].dim() else result[0]
        return type(result)((values, wanted)) if isinstance(result, list) else (values, wanted)


def _dim(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == "dim":
            given = args[position] if position < len(args) else kwargs.get("dim", argument.default_value)
            return -1 if given is None else int(given)
    return -1
