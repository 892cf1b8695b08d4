"""Dimensions near a call that went wrong: of the tensors that a module and its submodules handle."""

from __future__ import annotations

from collections.abc import Iterator

from ..axes import Analysis, Dim, Leaf, Number
from ..capture import Node
from ._alike import AlikeCalls
from ._raised import readers_of
from ._replay import Mismatch, Reader, Replayed

Sizes = dict[int, list[Dim]]


def dims_inside(analysis: Analysis, module: str) -> Sizes:
    """Different dimensions of all tensors that a module's calls read and make, by size."""
    found: dict[int, dict[tuple[Leaf, ...], Dim]] = {}
    ids = (id_ for node in _inside(analysis, module) for id_ in (*node.inputs, *node.outputs))
    for id_ in dict.fromkeys(ids):
        for dim in analysis.dims_of(id_):
            if dim.size > 1:
                found.setdefault(dim.size, {})[tuple(analysis.algebra.leaves(dim))] = dim
    return {size: list(dims.values()) for size, dims in found.items()}


def _inside(analysis: Analysis, module: str) -> Iterator[Node]:
    """Calls in a module and in its submodules: a width may come in through a layer of it."""
    prefix = f"{module}."
    return (node for node in analysis.graph.nodes if not module or f"{node.module}.".startswith(prefix))


class Complaint:
    """What the code may have been about when it raised or took another path, there and in modules alike.

    Args:
        analysis: the analysed graph.
        alike: its calls by line.
        found: a replay that ended before its time.
        axes: the axes that are cut.
    """

    def __init__(self, analysis: Analysis, alike: AlikeCalls, found: Replayed, axes: set[Leaf]) -> None:
        self._analysis = analysis
        self._axes = axes
        self._places: list[tuple[str, list[Reader], Sizes]] = []
        readers = [reader for reader in readers_of(found) if alike.path_of(reader.module) is not None]
        here = alike.path_of(readers[0].module) if readers else None
        for there in [] if here is None else alike.modules_like(here, found.reached):
            sizes = dims_inside(analysis, there)
            self._places.append((there, list(alike.counterparts(readers, str(here), there)), sizes))

    def numbers(self) -> Iterator[list[Mismatch]]:
        """For each dimension that is cut: that some number is its size, in all modules that are alike."""
        for size, rank in self._cut_dims():
            yield [
                self._mismatch(path, readers, sizes[size][rank])
                for path, readers, sizes in self._places
                if len(sizes.get(size, ())) > rank
            ]

    def equal_dims(self) -> Iterator[list[tuple[Dim, ...]]]:
        """For each size, the largest first: that all dimensions of it that may be cut stay equal."""
        for size in dict.fromkeys(size for size, _ in self._cut_dims()):
            sets = [tuple(filter(self._is_cut, sizes.get(size, ()))) for _, _, sizes in self._places]
            yield [dims for dims in sets if len(dims) > 1]

    def _is_cut(self, dim: Dim) -> bool:
        return not self._axes.isdisjoint(self._analysis.algebra.leaves(dim))

    def _cut_dims(self) -> list[tuple[int, int]]:
        """Size and rank of each dimension that a cut makes smaller where the code raised, largest first."""
        return [
            (size, rank)
            for size, dims in (sorted(self._places[0][2].items(), reverse=True) if self._places else ())
            for rank, dim in enumerate(dims)
            if self._is_cut(dim)
        ]

    def _mismatch(self, path: str, readers: list[Reader], dim: Dim) -> Mismatch:
        node = next(_inside(self._analysis, path))
        return Mismatch(node, Number("", None, dim), dim.size, None, None, None, readers)
