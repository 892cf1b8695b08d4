"""The operator graph: what one real run of a model dispatched, in the order that it ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import CodeType
from typing import Any

import torch


class Source(Enum):
    """Where a tensor of the graph comes from."""

    INPUT = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    ATTRIBUTE = "attribute"
    CONSTANT = "constant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor in the recorded arguments and results of a node."""

    id: int


@dataclass(slots=True)
class Value:
    """A tensor of the graph: its shape and dtype when it first appeared, and where it came from.

    ``names`` holds every path of a parameter, buffer or attribute (several when it is tied), or
    the path of an input inside the arguments. ``base`` is the id of the tensor whose memory it
    may share, itself where it shares none. ``strides`` are those of a tensor that was not contiguous.
    """

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    source: Source
    names: tuple[str, ...] = ()
    base: int = -1
    requires_grad: bool = False
    strides: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The first path, or ``%id`` for a tensor without one."""
        return self.names[0] if self.names else f"%{self.id}"


@dataclass(frozen=True, slots=True)
class Site:
    """The line of source code that called an operator."""

    code: CodeType
    line: int

    def __str__(self) -> str:
        return f"{self.code.co_filename}:{self.line} in {self.code.co_name}"


@dataclass(slots=True)
class Node:
    """One operator call: arguments with every tensor replaced by a :class:`Ref`.

    ``inputs`` are the ids of the tensors that it reads, in argument order, and ``outputs`` of those that
    it returned; one that it changed in place keeps its id.
    """

    index: int
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    module: str
    site: Site | None
    inputs: list[int]
    outputs: list[int]

    def __str__(self) -> str:
        return f"{self.op} in {self.module or 'the model'}"


@dataclass(slots=True)
class Graph:
    """Everything that one run of the model dispatched.

    Attributes:
        nodes: operator calls in the order that they ran.
        values: all tensors, by id.
        inputs: ids of the model's inputs by path.
        outputs: ids of its outputs by path.
        constants: tensors that the code used and the model does not own, by id.
        call: leaves (tensors as :class:`Ref`) and pytree spec of ``(args, kwargs)``.
        result: likewise of what the model returned.
        module_types: class of every module by path.
        called: paths of the modules whose forward was called; a list of modules is never.
        shadow: the copy of the model, with ghosts for tensors, that was run; None after a real run.
        seconds: wall time of the recorded run.
    """

    nodes: list[Node] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    constants: dict[int, torch.Tensor] = field(default_factory=dict)
    call: tuple[list[Any], Any] = field(default_factory=lambda: ([], None))
    result: tuple[list[Any], Any] = field(default_factory=lambda: ([], None))
    module_types: dict[str, type] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    shadow: torch.nn.Module | None = None
    seconds: float = 0.0

    def state(self, *sources: Source) -> Iterator[Value]:
        """The values that come from any of ``sources``, in the order that they were met."""
        return (value for value in self.values if value.source in sources)

    def readers(self) -> defaultdict[int, list[Node]]:
        """For each tensor, by its id: the nodes that read it, once each, in the order that they run."""
        found: defaultdict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for id_ in dict.fromkeys(node.inputs):
                found[id_].append(node)
        return found


def map_tree(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """``tree`` with ``change`` applied to every leaf that is a ``kind``; Python's own numbers are none.

    >>> map_tree([1, (2.0, "a")], str, str.upper)
    [1, (2.0, 'A')]
    """
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        items = [item if type(item) in _NUMBERS else map_tree(item, kind, change) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, dict):
        return {key: map_tree(item, kind, change) for key, item in tree.items()}
    return tree


_NUMBERS = {bool, int, float}
