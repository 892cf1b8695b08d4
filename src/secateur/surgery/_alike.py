"""Alike modules: what went wrong in one layer of a stack will go wrong in all that are built alike.

A replay that ends in the first layer of a stack has not seen the others. Their calls stand in the
graph: same line of code, same operator, a module of the same class. What they will ask for is
foreseen here, so that one replay does for a stack what would take one for each layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ..axes import Analysis, Number
from ..capture import Node
from ._replay import Mismatch, Reader

Key = tuple[Any, ...]


class AlikeCalls:
    """The calls of a graph by the line of code that made them, whichever module ran it.

    Args:
        analysis: the analysed graph.
        paths: path of every module that the code holds.
    """

    def __init__(self, analysis: Analysis, paths: Mapping[nn.Module, str]) -> None:
        self._graph, self._operators = analysis.graph, analysis.operators
        self._paths = paths
        self._modules = {path: module for module, path in paths.items()}
        self._keys: dict[int, Key] = {}
        self._calls: dict[Key, list[Node]] = {}
        count: Counter[Key] = Counter()
        for node in analysis.graph.nodes:
            if node.site is None:
                continue
            line = (node.site.code, node.site.line, node.op)
            count[(*line, node.module)] += 1
            kind = analysis.graph.module_types.get(node.module)
            key = self._keys[node.index] = (*line, kind, count[(*line, node.module)])
            self._calls.setdefault(key, []).append(node)

    def foreseen(self, mismatches: Iterable[Mismatch], reached: int) -> Iterator[Mismatch]:
        """Mismatches to expect at calls from ``reached`` on; nobody saw their ``actual``: it is None."""
        for mismatch in mismatches:
            key = self._keys.get(mismatch.node.index)
            if key is None or mismatch.number is None:
                continue
            for node in self._calls[key]:
                number = self._number(node, mismatch.number) if node.index >= reached else None
                if number is not None:
                    recorded = number.at(number.dim.size)
                    readers = list(self.counterparts(mismatch.readers, mismatch.node.module, node.module))
                    yield Mismatch(node, number, recorded, None, None, node.site, readers)

    def _number(self, node: Node, like: Number) -> Number | None:
        """The number of a call that stands where ``like`` does in its own."""
        operator = self._operators[node.index]
        for number in operator.numbers if operator else ():
            if (number.argument, number.position) == (like.argument, like.position):
                return number
        return None

    def path_of(self, module: nn.Module) -> str | None:
        """Where a module is, None for one that the model does not hold."""
        return self._paths.get(module)

    def modules_like(self, path: str, reached: int) -> list[str]:
        """A module, and those of its class that run for the first time at a call from ``reached`` on."""
        first: dict[str, int] = {}
        for node in self._graph.nodes:
            first.setdefault(node.module, node.index)
        kinds, depth = self._graph.module_types, path.count(".")
        return [path] + [
            other
            for other, kind in kinds.items()
            if other != path and kind is kinds.get(path) and other.count(".") == depth
            and self._begins(other, first) >= reached
        ]  # fmt: skip

    def _begins(self, path: str, first: Mapping[str, int]) -> int:
        """The first call inside a module; -1 for one that is never run."""
        inside = (index for name, index in first.items() if f"{name}.".startswith(f"{path}."))
        return min(inside, default=-1)

    def counterparts(self, readers: Iterable[Reader], here: str, there: str) -> Iterator[Reader]:
        """What module ``there`` will have in hand where ``here`` had ``readers``."""
        old, new = here.split("."), there.split(".")
        for reader in readers:
            if reader.module not in self._paths:
                continue
            steps = self._paths[reader.module].split(".")
            differ = (i for i, (a, b) in enumerate(zip(steps, old, strict=False)) if a != b)
            common = next(differ, min(len(steps), len(old)))
            counterpart = self._modules.get(".".join([*new[:common], *steps[common:]]))
            if counterpart is not None:
                yield Reader(counterpart, reader.names)
