"""Timing single operators of the recorded graph at other sizes, on tensors made up for the purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from ..axes import Analysis, Concat, Dim, Leaf, Product
from ..capture import ModuleCall, Node, Ref, map_tree
from ._latency import Clock


def part_key(dim: Dim) -> Any:
    """What equal parts have in common."""
    if isinstance(dim, Leaf):
        return id(dim)
    items = dim.parts if isinstance(dim, Concat) else dim.factors
    return (type(dim).__name__, *map(part_key, items))


@dataclass
class OperatorCall:
    """One recorded operator, ready to be called at other sizes.

    A dimension is a product of *parts*: axes, and concatenations as a whole. Sizes are given for
    parts, by their :func:`part_key`; the others are as they were recorded.
    """

    analysis: Analysis
    node: Node

    def __post_init__(self) -> None:
        self._operator = self.analysis.operators[self.node.index]

    @property
    def callable(self) -> bool:
        """Whether it can be called on tensors of one's own: whole modules cannot."""
        return not isinstance(self.node.op, ModuleCall)

    def parts(self) -> dict[Any, Dim]:
        """All parts of the dimensions of its operands, by key."""
        dims = (dim for id_ in dict.fromkeys(self.node.inputs) for dim in self.analysis.dims_of(id_))
        return {part_key(part): part for dim in dims for part in _parts(dim)}

    def size(self, dim: Dim, sizes: Mapping[Any, int]) -> int:
        """Size of a dimension at other sizes of its parts."""
        parts = _parts(self.analysis.algebra.resolve(dim))
        return prod(sizes.get(part_key(part), part.size) for part in parts)

    def shape(self, id_: int, sizes: Mapping[Any, int]) -> tuple[int, ...]:
        """Shape of one of its tensors at other sizes."""
        return tuple(self.size(dim, sizes) for dim in self.analysis.dims_of(id_))

    def describe(self, sizes: Mapping[Any, int]) -> str:
        """What makes two calls cost the same, as text: operator, shapes, types, other arguments."""
        args, kwargs = self._arguments(sizes, lambda id_: _Shown(self._text(id_, sizes)))
        named = [f"{name}={value}" for name, value in kwargs.items() if value is not None]
        return f"{self.node.op}({', '.join([*map(str, args), *named])})"

    def _text(self, id_: int, sizes: Mapping[Any, int]) -> str:
        value = self.analysis.graph.values[id_]
        shape = "x".join(map(str, self.shape(id_, sizes)))
        return f"{str(value.dtype).removeprefix('torch.')}[{shape}]"

    def prepare(self, sizes: Mapping[Any, int]) -> Callable[[], Any]:
        """The call at other sizes, on random tensors that are made now."""
        args, kwargs = self._arguments(sizes, lambda id_: self._tensor(id_, sizes))
        return lambda: self.node.op(*args, **kwargs)

    def _tensor(self, id_: int, sizes: Mapping[Any, int]) -> torch.Tensor:
        value = self.analysis.graph.values[id_]
        shape = self.shape(id_, sizes)
        if value.dtype.is_floating_point:
            return torch.rand(shape, device=value.device).to(value.dtype)
        return torch.zeros(shape, dtype=value.dtype, device=value.device)  # a valid index anywhere

    def _arguments(self, sizes: Mapping[Any, int], make: Callable[[int], Any]) -> tuple[Any, Any]:
        made: dict[int, Any] = {}

        def tensor(ref: Ref) -> Any:
            if ref.id not in made:
                made[ref.id] = make(ref.id)
            return made[ref.id]

        args, kwargs = map_tree((self.node.args, self.node.kwargs), Ref, tensor)
        if self._operator is None:
            return args, kwargs
        places = {name: index for index, name in enumerate(self._operator.arguments)}
        args = list(args)
        for number in self._operator.numbers:
            change = (number.position, number.dim.size, self.size(number.dim, sizes))
            place = places.get(number.argument, len(args))
            if number.argument in kwargs:
                kwargs[number.argument] = _with_number(kwargs[number.argument], *change)
            elif place < len(args):
                args[place] = _with_number(args[place], *change)
        return args, kwargs


def _parts(dim: Dim) -> tuple[Dim, ...]:
    return dim.factors if isinstance(dim, Product) else (dim,)


class _Shown:
    """A piece of text that shows as it is among arguments."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _with_number(value: Any, position: int | None, before: int, after: int) -> Any:
    """An argument with the size that it holds replaced, where it does hold it."""
    if position is None:
        return after if value == before else -after if value == -before else value
    if not isinstance(value, (list, tuple)) or position >= len(value):
        return value
    items = list(value)
    items[position] = _with_number(items[position], None, before, after)
    return type(value)(items)


def time_call(
    call: Callable[[], Any], *, seconds: float = 0.01, least: int = 5, clock: Clock = time.perf_counter
) -> float:
    """Seconds of a call: the fastest of at least ``least`` runs, in about ``seconds``.

    What disturbs a run only ever makes it slower, so the fastest is the most repeatable.
    """
    call()
    once = _timed(call, clock)
    runs = max(least, min(50, int(seconds / max(once, 1e-7))))
    return min(_timed(call, clock) for _ in range(runs))


def _timed(call: Callable[[], Any], clock: Clock) -> float:
    start = clock()
    result = call()
    if isinstance(result, torch.Tensor) and result.is_cuda:
        torch.cuda.synchronize()
    return clock() - start
