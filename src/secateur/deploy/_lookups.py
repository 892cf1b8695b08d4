"""Stored integers that no integer kernel takes: tables of embeddings, and weights by input channel."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from ..operators import DEQUANTIZE, along
from ._affine import LAYERS
from ._constants import attribute, buffer, call

_ATEN = torch.ops.aten
_LOOKUP = _ATEN.embedding.default


def look_up_integers(program: fx.GraphModule) -> None:
    """Let every lookup in a table that is stored as integers read integers, in place.

    ``embedding(dequantize(q, s, z), ids)`` would make floats of the whole table in every run. It becomes
    ``dequantize(embedding(q, ids), s, z)`` where the table has one scale, or one for each column; a scale for
    each row is looked up too: ``(embedding(q, ids) - embedding(z, ids)) * embedding(s, ids)``. The values are
    the same, to the last bit.
    """
    tables: dict[fx.Node, _Table] = {}
    for node in list(program.graph.nodes):
        source = node.args[0] if node.target is _LOOKUP else None
        if isinstance(source, fx.Node) and source.target is DEQUANTIZE and _stored(source):
            if source not in tables:
                tables[source] = _Table(program, source)
            with program.graph.inserting_before(node):
                made = tables[source].looked_up(node.args[1], node.meta["val"])
            node.replace_all_uses_with(made)
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def multiply_in_floats(program: fx.GraphModule, layers: Collection[Any] = frozenset(LAYERS)) -> None:
    """Dequantise layers' weights with scales along another dimension than the output channels, in place.

    Their products have no common scale, so no integer kernel can add them up; runtimes that look at the
    number of scales only take them for those of the outputs, or fail. Written as a cast and a product, a
    weight is as small in the file, and nobody does.

    Args:
        program: of weights that are stored.
        layers: the operators that are looked at.
    """
    for node in list(program.graph.nodes):
        weight = node.args[1] if node.target in layers else None
        if isinstance(weight, fx.Node) and weight.target is DEQUANTIZE and weight.args[3] not in (None, 0):
            with program.graph.inserting_before(node):
                node.update_arg(1, _in_floats(program, weight))
    program.graph.eliminate_dead_code()


def _in_floats(program: fx.GraphModule, weight: fx.Node) -> fx.Node:
    given: tuple[Any, ...] = weight.args
    steps, like = given[0], weight.meta["val"]
    scale, zero = (along(attribute(program, part.target), like, given[3]) for part in given[1:3])
    made = call(program, _ATEN.to.dtype, (steps, scale.dtype), like)
    if bool(zero.any()):
        made = call(program, _ATEN.sub.Tensor, (made, buffer(program, zero.to(scale.dtype), "zero")), like)
    return call(program, _ATEN.mul.Tensor, (made, buffer(program, scale, "scale")), like)


def _stored(table: fx.Node) -> bool:
    return all(source.op == "get_attr" for source in table.all_input_nodes)


class _Table:
    """A stored table of integers, by the node that dequantises all of it."""

    def __init__(self, program: fx.GraphModule, node: fx.Node) -> None:
        self.program = program
        given: tuple[Any, ...] = node.args
        self.steps, self.scale, self.zero, axis = given
        self.dtype = attribute(program, self.steps.target).dtype
        self.axis = None if axis is None else axis % 2
        if self.axis == 0:
            scale, zero = (attribute(program, part.target) for part in (self.scale, self.zero))
            with program.graph.inserting_before(node):
                self.scale = buffer(program, scale[:, None], "scale")
                self.zero = buffer(program, zero[:, None].to(scale.dtype), "zero") if zero.any() else None

    def looked_up(self, ids: Any, like: torch.Tensor) -> fx.Node:
        """The rows of these ids as floats, of shape and dtype of ``like``."""
        rows = self._made(_LOOKUP, (self.steps, ids), like.to(self.dtype))
        if self.axis != 0:
            axis = None if self.axis is None else like.dim() - 1
            return self._made(DEQUANTIZE, (rows, self.scale, self.zero, axis), like)
        steps = self._made(_ATEN.to.dtype, (rows, like.dtype), like)
        if self.zero is not None:
            zeros = self._made(_LOOKUP, (self.zero, ids), like[..., :1])
            steps = self._made(_ATEN.sub.Tensor, (steps, zeros), like)
        scales = self._made(_LOOKUP, (self.scale, ids), like[..., :1])
        return self._made(_ATEN.mul.Tensor, (steps, scales), like)

    def _made(self, target: Any, args: tuple[Any, ...], value: torch.Tensor) -> fx.Node:
        return call(self.program, target, args, value)
