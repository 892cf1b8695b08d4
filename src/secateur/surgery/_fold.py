"""Folding a factor into parameters: where a tensor has to be multiplied, scale what makes it.

Going back from the tensor through operators that pass a factor on (views, sums, rotations), one
comes to the layers that make it. Scaling their rows scales the tensor; it is allowed if nothing
else reads those rows. Which rows those are, of a fused query-key-value projection say, is found by
sending row numbers through the recorded views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..axes import Analysis, Operand, Positions
from ..capture import Node, Ref, Source, Value, map_tree

aten = torch.ops.aten

MOVES = {
    p
    for name in (
        "view", "reshape", "_unsafe_view", "permute", "transpose", "unflatten", "flatten", "select", "slice",
        "split", "split_with_sizes", "chunk", "unbind", "unsqueeze", "squeeze", "contiguous", "t", "movedim",
        "narrow", "swapaxes", "expand", "broadcast_to", "alias", "clone", "mT",
    )
    for p in (getattr(aten, name),)
}  # fmt: skip
# Views of a parameter that are used in its place.
_TURNS = {
    getattr(aten, name)
    for name in ("t", "numpy_T", "transpose", "permute", "mT", "swapaxes", "movedim", "alias", "detach")
}
_SUMS = {aten.add, aten.sub, aten.cat, aten.stack, aten.concat}
PASSES = {
    getattr(aten, name)
    for name in ("neg", "to", "_to_copy", "dropout", "roll", "flip", "repeat", "repeat_interleave")
}
_FACTORS = {aten.mul, aten.div, aten.matmul, aten.bmm, aten.mm, aten.einsum}
_ROWS: dict[Any, dict[str, int]] = {
    # Of each parameter, the dimension that runs along the result's features.
    aten.linear: {"weight": 0, "bias": 0},
    **{conv: {"weight": 0, "bias": 0} for conv in (aten.conv1d, aten.conv2d, aten.conv3d)},
    aten.addmm: {"mat2": 1, "self": -1},
    **{product: {"other": -1} for product in (aten.matmul, aten.mm)},
    **{norm: {"weight": -1, "bias": -1} for norm in (aten.layer_norm, aten.rms_norm)},
    aten.batch_norm: {"weight": 0, "bias": 0},
}
_CHANNELS = {aten.conv1d, aten.conv2d, aten.conv3d, aten.batch_norm}


Followed = dict[int, frozenset[int]]
"""Operators by index, each with the operands through which a factor passes."""


@dataclass(frozen=True)
class Fold:
    """Parameter rows to multiply: (name, dimension, positions before the cut)."""

    rows: tuple[tuple[str, int, Positions], ...]


class Folder:
    """Finds folds in one analysed graph."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._graph = analysis.graph
        self._folds: dict[tuple[int, int], Fold | None] = {}
        self._producer: dict[int, Node | None] = {}
        self._readers = self._graph.readers()
        for node in self._graph.nodes:
            for id_ in node.outputs:
                # Written twice (in place): what made it is no longer one operator.
                self._producer[id_] = None if id_ in self._producer or id_ in node.inputs else node

    def fold(self, target: int, reader: Node) -> Fold | None:
        """How to multiply tensor ``target``, as ``reader`` reads it, by scaling parameters."""
        key = (target, reader.index)
        if key not in self._folds:
            self._folds[key] = self._find(target, reader)
        return self._folds[key]

    def _find(self, target: int, reader: Node) -> Fold | None:
        path: Followed = {reader.index: frozenset({target})}
        ends: list[Node] = []
        if reader.inputs.count(target) > 1 or not self._back(target, path, ends):
            return None
        rows: list[tuple[str, int, Positions]] = []
        for end in {node.index: node for node in ends}.values():
            found = self._rows_of(end, path)
            if found is None:
                return None
            rows += found
        nodes = (self._graph.nodes[index] for index in path if index != reader.index)
        for node in nodes:
            if self._moves(node) or node in ends:
                continue
            if not all(self._stays_inside(id_, path) for id_ in node.outputs):
                return None
        return Fold(tuple(rows))

    def _back(self, id_: int, path: Followed, ends: list[Node]) -> bool:
        """Follow a factor back to the layers that can take it; collects the operators on the way."""
        node = self._producer.get(id_)
        if node is None:
            return False
        if node.index in path:
            return True
        operator, kind = self._analysis.operators[node.index], packet(node)
        if operator is None:
            return False
        if kind in _ROWS and self._has_parameters(operator.arguments, kind):
            path[node.index] = frozenset()
            ends.append(node)
            return True
        tensors = [operand.id for operand in _operands(operator.arguments)]
        if self._moves(node) or kind in PASSES:
            tensors = tensors[:1]
        elif kind in _FACTORS:
            return self._back_through_factor(node, tensors, path, ends)
        elif kind not in _SUMS or _adds_number(operator.arguments):
            return False
        path[node.index] = frozenset(tensors)
        return bool(tensors) and all(self._back(id_, path, ends) for id_ in tensors)

    def _back_through_factor(self, node: Node, tensors: list[int], path: Followed, ends: list[Node]) -> bool:
        # Only one of the factors takes it in; a square would take it in twice.
        for id_ in tensors[: 1 if packet(node) is aten.div else None]:
            trial, found = dict(path), list(ends)
            trial[node.index] = frozenset({id_})
            if tensors.count(id_) == 1 and self._back(id_, trial, found):
                path.update(trial)
                ends[:] = found
                return True
        return False

    def _has_parameters(self, arguments: dict[str, Any], kind: Any) -> bool:
        given = [arguments.get(name) for name in _ROWS[kind]]
        return isinstance(given[0], Operand) and all(
            operand is None or self._parameter(operand.id) is not None for operand in given
        )

    def _moves(self, node: Node) -> bool:
        """Whether a call is a view, or picks positions that its code counts off."""
        if packet(node) is not aten.index:
            return packet(node) in MOVES
        picked = [self._graph.constants.get(id_) for id_ in node.inputs[1:]]
        return all(positions is not None and not positions.is_meta for positions in picked)

    def _parameter(self, id_: int) -> tuple[Value, list[int]] | None:
        """The parameter that a tensor is, or is the transpose of: it, and which dimensions they are.

        None for other tensors, and if anything else reads the parameter.
        """
        value = self._graph.values[id_]
        if len(self._readers[id_]) > 1:
            return None  # a shared layer
        if value.source is Source.PARAMETER:
            return value, list(range(len(value.shape)))
        node = self._producer.get(id_)
        if node is None or packet(node) not in _TURNS:
            return None
        found = self._parameter(node.inputs[0])
        if found is None:
            return None
        # Sizes of which no two are equal tell where each dimension goes.
        probe = torch.empty([*range(1, len(value.shape) + 1)], device="meta")
        turned = node.op(*map_tree(node.args, Ref, lambda ref: probe), **node.kwargs)
        return found[0], [found[1][size - 1] for size in turned.shape]

    def _rows_of(self, end: Node, path: Followed) -> list[tuple[str, int, Positions]] | None:
        """The rows of a layer that reach the path, or None if something else reads them too."""
        (out,) = end.outputs
        shape = self._graph.values[out].shape
        dim = 1 if packet(end) in _CHANNELS else len(shape) - 1
        index = torch.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
        ours, others = torch.zeros(2, shape[dim], dtype=torch.bool)
        for reader, id_, rows in self._uses(out, index.expand(shape)):
            # Of a product only one operand is meant: queries and keys go there both.
            inside = id_ in path.get(reader.index, ())
            (ours if inside else others).index_fill_(0, rows.reshape(-1), True)
        if out in self._graph.outputs.values() or bool((ours & others).any()) or not bool(ours.any()):
            return None
        positions = np.flatnonzero(ours.numpy())
        operator = self._analysis.operators[end.index]
        assert operator is not None
        found = []
        for name, row in _ROWS[packet(end)].items():
            operand = operator.arguments.get(name)
            if operand is not None:
                parameter = self._parameter(operand.id)
                assert parameter is not None, "an end of a fold has parameters"
                value, dims = parameter
                found.append((value.name, dims[row], positions))
        return found

    def _uses(self, id_: int, rows: torch.Tensor) -> Iterator[tuple[Node, int, torch.Tensor]]:
        """Every operator other than a view that reads the tensor: it, what it reads, its row numbers."""
        for reader in self._readers[id_]:
            if not self._moves(reader):
                yield reader, id_, rows
                continue
            args, kwargs = map_tree((reader.args, reader.kwargs), Ref, partial(self._rows_or_constant, rows))
            results = reader.op(*args, **kwargs)
            results = [results] if isinstance(results, torch.Tensor) else results
            for out, result in zip(reader.outputs, results, strict=True):
                yield from self._uses(out, result)

    def _rows_or_constant(self, rows: torch.Tensor, ref: Ref) -> torch.Tensor:
        constant = self._graph.constants.get(ref.id)
        return rows if constant is None else constant.cpu()

    def _stays_inside(self, id_: int, path: Followed) -> bool:
        if id_ in self._graph.outputs.values():
            return False
        for reader in self._readers[id_]:
            if self._moves(reader):  # also of a view on the path: others may read what it shows
                inside = all(self._stays_inside(out, path) for out in reader.outputs)
            else:
                inside = id_ in path.get(reader.index, ())
            if not inside:
                return False
        return True


def packet(node: Node) -> Any:
    """The operator packet of a node, without its overload."""
    return getattr(node.op, "overloadpacket", node.op)


def _adds_number(arguments: dict[str, Any]) -> bool:
    """Whether a sum has a term that is a number, which does not scale with the others."""
    terms = (arguments.get("self"), arguments.get("other"))
    return any(isinstance(term, (bool, int, float, complex)) for term in terms)


def _operands(arguments: dict[str, Any]) -> Iterator[Operand]:
    for value in arguments.values():
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Operand))
