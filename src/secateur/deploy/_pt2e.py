"""The operators of PyTorch's PT2E quantisation, ``quantized_decomposed``, in place of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..operators import AVERAGE, DEQUANTIZE, LIMITS, QUANTIZE
from ._activations import bounds_of
from ._affine import LAYERS
from ._constants import Values, buffer, constants_of, drop_unread
from ._lookups import multiply_in_floats
from ._moves import pads_zeros

_ATEN = torch.ops.aten


def decompose(program: fx.GraphModule, activations: torch.dtype = torch.uint8) -> None:
    """Put the operators of PT2E in place of ours; in place.

    Args:
        program: of :func:`program_of`.
        activations: uint8, or int8 for a backend that takes no other: the same grid, its zero point 128 less.
    """
    multiply_in_floats(program)
    values = constants_of(program)
    for node in list(program.graph.nodes):
        if node.target not in (QUANTIZE, DEQUANTIZE, AVERAGE):
            continue
        with program.graph.inserting_before(node):
            if node.target is AVERAGE:
                new = _mean(program, node)
            else:
                new = _decomposed(program, node, values, activations)
        new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    drop_unread(program)
    program.recompile()


def _mean(program: fx.GraphModule, node: fx.Node) -> fx.Node:
    dims = list(range(2, node.meta["val"].dim()))
    return program.graph.call_function(torch.ops.aten.mean.dim, (node.args[0], dims, True))


def _decomposed(program: fx.GraphModule, node: fx.Node, values: Values, activations: torch.dtype) -> fx.Node:
    operators = torch.ops.quantized_decomposed
    given: tuple[Any, ...] = node.args
    source, scale, zero, axis = given
    dtype, zeros = values[zero].dtype, values[zero].to(torch.int64)
    if dtype is torch.int32:  # a bias: its kernels take floats
        return buffer(program, values[node], "bias")
    if dtype is torch.uint8 and source not in values:
        dtype, zeros = activations, zeros + LIMITS[activations][0]
    low, high = LIMITS[dtype]
    quantizes = node.target is QUANTIZE
    if axis is None:
        operator = operators.quantize_per_tensor if quantizes else operators.dequantize_per_tensor
        arguments = (source, float(values[scale]), int(zeros), low, high, dtype)
    else:
        operator = operators.quantize_per_channel if quantizes else operators.dequantize_per_channel
        arguments = (source, scale, buffer(program, zeros, "zero"), axis, low, high, dtype)
    return program.graph.call_function(operator.default, arguments)


class QuantizedGraph:
    """A program of PT2E's operators, and what backends have in common; all in place.

    The operators exist once torchao is imported, hence as attributes.
    """

    def __init__(self, program: fx.GraphModule) -> None:
        self.program, self.graph, self.values = program, program.graph, constants_of(program)
        self.operators = torch.ops.quantized_decomposed
        self.quantize = self.operators.quantize_per_tensor.default
        self.dequantize = self.operators.dequantize_per_tensor.default
        self.by_channel = self.operators.dequantize_per_channel.default

    def every(self, *targets: Any) -> list[fx.Node]:
        """The nodes that call one of these, in order."""
        return [node for node in self.graph.nodes if node.target in targets]

    def merge_activations(self, quantize: fx.Node) -> None:
        """Let a quantisation cut off instead of the activations before it, or one activation do it for all.

        Rounding keeps the order of values, so integers that are cut off at the rounded ends are what values
        that were cut off are rounded to.
        """
        given: tuple[Any, ...] = quantize.args
        source, scale, zero, lowest, highest, _ = given
        low, high = -torch.inf, torch.inf
        merged: list[fx.Node] = []
        while len(source.users) == 1 and (bounds := self._bounds(source)) is not None:
            low, high = (min(max(end, low), high) for end in bounds)
            merged.append(source)
            source = source.args[0]
        if not merged:
            return
        ends = torch.round(torch.tensor([low, high]) / scale) + zero
        if ends[0] > lowest or ends[1] < highest:
            with self.graph.inserting_before(quantize):
                if source.target not in LAYERS:  # whose kernels take an activation in
                    source = self._rounded(source, given[1:])
                source = self.graph.call_function(_ATEN.hardtanh.default, (source, low, high))
        quantize.update_arg(0, source)
        for node in merged:  # one that works in place would not count as dead code
            self.graph.erase_node(node)

    def _bounds(self, node: fx.Node) -> tuple[float, float] | None:
        """The ends of an activation, or those of a range that has fewer than 8 bits."""
        if node.target is not _ATEN.clamp.Tensor:
            return bounds_of(node)
        given: tuple[Any, ...] = node.args
        ends = [self.values[end] for end in given[1:] if end in self.values]
        if len(ends) != 2 or any(end.numel() != 1 for end in ends):
            return None
        return float(ends[0]), float(ends[1])

    def _rounded(self, source: Any, grid: tuple[Any, ...]) -> fx.Node:
        """Quantised and dequantised, where the graph stands."""
        steps = self.graph.call_function(self.quantize, (source, *grid))
        return self.graph.call_function(self.dequantize, (steps, *grid))

    def move_integers(self, move: fx.Node) -> None:
        """Move integers before they are dequantised, instead of floats behind that."""
        source: Any = move.args[0]
        if source.target is not self.dequantize:
            return
        steps, scale, zero, *rest = source.args
        target: Any = move.target
        arguments = (steps, *move.args[1:])
        if pads_zeros(move):
            target, arguments = _ATEN.pad.default, (steps, move.args[1], "constant", zero)
        with self.graph.inserting_after(move):
            moved = self.graph.call_function(target, arguments)
        with self.graph.inserting_after(moved):
            made = self.graph.call_function(self.dequantize, (moved, scale, zero, *rest))
        moved.meta["val"] = made.meta["val"] = move.meta["val"]
        move.replace_all_uses_with(made)
        self.graph.erase_node(move)
