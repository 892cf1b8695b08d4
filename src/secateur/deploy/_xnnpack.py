"""The form in which XNNPACK finds its integer kernels in a program of PT2E's operators."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.nn.functional import pad

from ._activations import bounds_of
from ._affine import LAYERS
from ._constants import buffer, drop_unread
from ._moves import is_move, pads_zeros
from ._pt2e import QuantizedGraph

_ATEN = torch.ops.aten
_SHAPED = {
    _ATEN.flatten.using_ints,
    _ATEN.view.default,
    _ATEN.reshape.default,
}


def suit_xnnpack(program: fx.GraphModule) -> None:
    """Rewrite a program so that XNNPACK's partitioner takes what it has integer kernels for; in place.

    An integer kernel is found as an operator between dequantised inputs and a quantised output. There is none
    from integers at a fixed scale to floats: a linear layer whose output nobody quantises uses the one that
    looks for a scale in each row of its input. Weights of other layers without an integer kernel are stored
    as floats.

    Args:
        program: with PT2E's operators (:func:`decompose`), activations of int8.
    """
    suit = _Suit(program)
    for node in suit.every(suit.quantize):
        suit.merge_activations(node)
    for node in [node for node in program.graph.nodes if is_move(node) and not pads_zeros(node)]:
        suit.infer_batch(node)
        suit.keep_integers(node)
    for node in suit.every(suit.quantize):
        suit.drop_repeated(node)
    program.graph.eliminate_dead_code()
    for node in suit.every(suit.dequantize):
        suit.read_alone(node)
    for node in suit.every(*LAYERS):
        suit.layer(node)
    program.graph.eliminate_dead_code()
    drop_unread(program)
    program.recompile()


class _Suit(QuantizedGraph):
    """The steps."""

    # -- integers between kernels ------------------------------------------------------------------

    def infer_batch(self, move: fx.Node) -> None:
        """Let a reshaping find the batch by itself: XNNPACK takes no size that is computed."""
        shape = move.meta["val"].shape
        free = [dim for dim, size in enumerate(shape) if not isinstance(size, int)]
        if move.target in _SHAPED and len(free) == 1:
            move.target, move.kwargs = _ATEN.reshape.default, {}
            move.args = (move.args[0], [-1 if dim in free else size for dim, size in enumerate(shape)])

    def keep_integers(self, move: fx.Node) -> None:
        """Quantise what was moved as it was before: values that are on a grid stay as they are."""
        source: Any = move.args[0]
        if source.target is self.dequantize:
            with self.graph.inserting_after(move):
                steps = self.graph.call_function(self.quantize, (move, *source.args[1:]))
            with self.graph.inserting_after(steps):
                made = self.graph.call_function(self.dequantize, (steps, *source.args[1:]))
            made.meta["val"] = move.meta["val"]
            move.replace_all_uses_with(made, delete_user_cb=lambda user: user is not steps)

    def drop_repeated(self, quantize: fx.Node) -> None:
        """Read the integers that were dequantised to the very grid on which they are quantised again."""
        source: Any = quantize.args[0]
        if source.target is self.dequantize and source.args[1:] == quantize.args[1:]:
            quantize.replace_all_uses_with(source.args[0])

    def read_alone(self, dequantize: fx.Node) -> None:
        """Give every reader a node of its own: the partitioner marks it as a part of one kernel."""
        for reader in [*dequantize.users][1:]:
            with self.graph.inserting_before(reader):
                own = self.graph.node_copy(dequantize)
            reader.replace_input_with(dequantize, own)

    # -- layers ------------------------------------------------------------------------------------

    def layer(self, layer: fx.Node) -> None:
        """Integer kernel, integer kernel with an input that is quantised at run time, or floats."""
        source, weight = layer.args[0], layer.args[1]
        assert isinstance(source, fx.Node) and isinstance(weight, fx.Node)
        if weight.target not in (self.dequantize, self.by_channel):
            return
        integers = self._comes_from_integers(source) and self._is_symmetric(weight)
        if integers and any(user.target is self.quantize for user in _behind(layer)):
            return
        with self.graph.inserting_before(layer):
            if integers and layer.target is _ATEN.linear.default:
                self._quantise_by_rows(layer, source, weight)
            else:
                layer.update_arg(1, buffer(self.program, self.values[weight], "weight", self.values))

    def _comes_from_integers(self, source: fx.Node) -> bool:
        """Whether it is dequantised; a convolution's kernel takes a padding with zeros in."""
        before = source.args[0] if pads_zeros(source) else source
        return isinstance(before, fx.Node) and before.target is self.dequantize

    def _is_symmetric(self, weight: fx.Node) -> bool:
        """Whether all zero points are 0, and scales are those of output channels."""
        _, _, zero, axis, *_ = self._arguments(weight)
        if weight.target is self.by_channel:
            return axis == 0 and not bool(self.values[zero].any())
        return not zero

    def _quantise_by_rows(self, layer: fx.Node, source: fx.Node, weight: fx.Node) -> None:
        """Let a linear layer find scale and zero point in each row of its input, and find the known ones.

        A row ends with the two ends of its grid, which meet weights of zero.
        """
        _, scale, zero, *limits, _ = self._arguments(source)
        ends = [end for end in ((limit - zero) * scale for limit in limits) if end]
        for end in ends:
            source = self.graph.call_function(_ATEN.constant_pad_nd.default, (source, [0, 1], end))
        find = self.operators.choose_qparams_per_token_asymmetric.default
        found = self.graph.call_function(find, (source, torch.int8))
        own = [self.graph.call_function(operator.getitem, (found, index)) for index in range(2)]
        grid = (*own, -128, 127, torch.int8)
        steps = self.graph.call_function(self.operators.quantize_per_token.default, (source, *grid))
        by_token = self.operators.dequantize_per_token.default
        layer.update_arg(0, self.graph.call_function(by_token, (steps, *grid, torch.float32)))
        layer.update_arg(1, self._widened(weight, len(ends)))

    def _widened(self, weight: fx.Node, columns: int) -> fx.Node:
        """A linear layer's weight with columns of zeros behind it, and a scale for each row."""
        steps, scale, zero, *limits = self._arguments(weight)
        given = self.values[steps]
        wide = buffer(self.program, pad(given, (0, columns)), "weight", self.values)
        if weight.target is self.dequantize:
            filled = torch.full((len(given),), scale), torch.full((len(given),), zero)
            scale, zero = (buffer(self.program, value, "scale") for value in filled)
            limits = [0, *limits]
        return self.graph.call_function(self.by_channel, (wide, scale, zero, *limits))

    @staticmethod
    def _arguments(node: fx.Node) -> tuple[Any, ...]:
        return node.args


def _behind(layer: fx.Node) -> Iterator[fx.Node]:
    """The one reader of a layer, and behind an activation the reader of that."""
    node = layer
    while len(node.users) == 1:
        (node,) = node.users
        yield node
        if bounds_of(node) is None:
            return
