"""Operator calls to judge rules on: gathered while ordinary code runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..axes import has_rule
from ..capture import below_autograd, is_composite, map_tree


@dataclass(frozen=True)
class Call:
    """One call of an operator (or of a module whose class has a rule), with tensors of its own."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def calls_of(code: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Call]:
    """The operator calls that ``code(*args, **kwargs)`` leads to, as the recorder sees them."""
    if isinstance(code, (nn.Module, torch._ops.OpOverload)):
        return [Call(code, args, kwargs)]
    collector = _Collector()
    state = torch.default_generator.get_state()
    try:
        with torch.no_grad(), below_autograd(), collector:
            code(*args, **kwargs)
    finally:
        torch.default_generator.set_state(state)
    return collector.calls


class _Collector(TorchDispatchMode):
    """Copies the arguments of every operator before it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_composite(func) and not has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self.calls.append(Call(func, *copied(args, kwargs)))
        return func(*args, **kwargs)


def copied(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The same arguments with tensors of their own; what was one tensor stays one."""
    copies: dict[int, torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        return copies[id(tensor)]

    new_args, new_kwargs = map_tree((tuple(args), kwargs), torch.Tensor, copy)
    return new_args, new_kwargs
