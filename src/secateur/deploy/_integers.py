"""The simulation with integer arithmetic: what a runtime's kernels compute, run in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..operators import AVERAGE, DEQUANTIZE, QUANTIZE
from ._activations import bounds_of
from ._affine import CONVOLUTIONS, LAYERS
from ._constants import constants_of, drop_unread
from ._kernels import IntegerLayer, IntegerMean, IntegerSum
from ._moves import origin_of
from ._program import export_inputs, program_of

_ATEN = torch.ops.aten
_SUMS = {_ATEN.add.Tensor, _ATEN.add_.Tensor}
_TINY = torch.finfo(torch.float32).eps


def to_integers(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
) -> fx.GraphModule:
    """The model that simulates quantisation, with the arithmetic of integer kernels in place of floats.

    A simulation in floats rounds sums that lie (nearly) half way between two steps in one way, a kernel that
    adds integers in another, and in a deep network the layers behind it make more of that. This one computes
    with integers where ONNX Runtime's kernels for x86 do: layers between quantised tensors, sums of two of
    them, and means over images. So it says before deployment what the deployed model will answer.

    Args:
        model: in eval mode, with ranges that are known; left as it is.
        args: positional inputs; their first dimension is the batch.
        kwargs: keyword inputs.
        dynamic_batch: whether the batch may have another size.

    Returns:
        A model to be called like the one given, for evaluation: it has no gradients.

    Raises:
        DeploymentError: if ``torch.export`` cannot follow the model, or a range does not fit into 8 bits.

    Example:
        >>> from secateur.compression.quantization import PtqQuantizer
        >>> from secateur.deploy import int8_config_list
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)).eval()
        >>> x = torch.randn(4, 3, 8, 8)
        >>> simulated, _ = PtqQuantizer(net, int8_config_list(net, (x,))).calibrate([x])
        >>> integers = to_integers(simulated, (x,))
        >>> [type(part).__name__ for part in integers.children()]
        ['IntegerLayer', 'IntegerLayer']
        >>> (integers(x) - simulated(x)).abs().max() < 0.05
        tensor(True)
    """
    given, named = args, dict(kwargs or {})
    if dynamic_batch:
        given, named = export_inputs(given, named)
    return with_integer_kernels(program_of(model, given, named, dynamic_batch=dynamic_batch))


def with_integer_kernels(program: fx.GraphModule) -> fx.GraphModule:
    """A copy of a program in which integer kernels do what is between quantised tensors.

    A program without such computes in floats as before.
    """
    program = copy.deepcopy(program)
    _add_apart(program)
    rewriter = _Rewriter(program)
    for node in list(program.graph.nodes):
        if node.target is QUANTIZE:
            rewriter.requantized(node)
    for node in list(program.graph.nodes):
        if node.target is _ATEN.linear.default:
            rewriter.linear(node)
    _drop_activations(program)
    program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    drop_unread(program)
    program.recompile()
    return program


def _add_apart(program: fx.GraphModule) -> None:
    """Let biases of floats be added behind linear layers, as where kernels make floats of sums; in place."""
    for node in list(program.graph.nodes):
        bias = node.args[2] if node.target is _ATEN.linear.default and len(node.args) > 2 else None
        if not isinstance(bias, fx.Node) or bias.target is DEQUANTIZE:
            continue
        with program.graph.inserting_after(node):
            added = program.graph.call_function(_ATEN.add.Tensor, (node, bias))
        added.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(added, delete_user_cb=lambda user, added=added: user is not added)
        node.args = node.args[:2]


def _drop_activations(program: fx.GraphModule) -> None:
    """Take out activations that became part of a kernel; those in place do not count as dead code."""
    for node in reversed(program.graph.nodes):
        alone = all(len(source.users) == 1 for source in node.all_input_nodes)
        if bounds_of(node) is not None and not node.users and alone:
            program.graph.erase_node(node)


@dataclass(frozen=True)
class _Steps:
    """A tensor of integers in the graph: the node, its scale, its zero point."""

    node: fx.Node
    scale: Tensor
    zero: Tensor


class _Rewriter:
    def __init__(self, program: fx.GraphModule) -> None:
        self.program, self.values = program, constants_of(program)

    def requantized(self, node: fx.Node) -> None:
        """Put a kernel in place of what makes a quantised tensor of others, if there is one."""
        given: tuple[Any, ...] = node.args
        scale, zero = self._value(given[1]), self._value(given[2])
        if given[3] is not None:
            return
        source = self._before_activation(given[0], scale, zero)
        kernel = None if source is None else self._kernel(source, scale, zero)
        if kernel is not None:
            self._put(node, *kernel)

    def linear(self, node: fx.Node) -> None:
        """Put a kernel in place of a linear layer of integers whose output is of floats."""
        kernel = self._layer(node, None, None)
        if kernel is not None:
            self._put(node, *kernel)

    def _put(self, node: fx.Node, kernel: nn.Module, operands: list[fx.Node]) -> None:
        name = next(name for index in count() if not hasattr(self.program, name := f"kernel_{index}"))
        self.program.add_submodule(name, kernel)
        with self.program.graph.inserting_before(node):
            made = self.program.graph.call_module(name, tuple(operands))
        made.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(made)
        self.program.graph.erase_node(node)

    # -- kernels -----------------------------------------------------------------------------------

    def _kernel(self, node: fx.Node, scale: Tensor, zero: Tensor) -> tuple[nn.Module, list[fx.Node]] | None:
        if len(node.users) > 1:
            return None  # others read the floats
        if node.target in LAYERS:
            return self._layer(node, scale, zero)
        if node.target in _SUMS and node.kwargs.get("alpha", 1) == 1:
            return self._sum(node, scale, zero)
        source = self._steps(node.args[0]) if node.target is AVERAGE else None
        if source is None:
            return None
        mean = IntegerMean((source.scale, scale), (int(source.zero), int(zero)))
        return mean, [source.node]

    def _layer(
        self, node: fx.Node, scale: Tensor | None, zero: Tensor | None
    ) -> tuple[nn.Module, list[fx.Node]] | None:
        source, weight = self._steps(node.args[0]), self._constant(node.args[1])
        given = node.args[2] if len(node.args) > 2 else None
        bias = None if given is None else self._constant(given)
        if source is None or weight is None or (given is not None and bias is None):
            return None
        operator: Any = node.target
        factor = source.scale * weight.scale
        kernel = IntegerLayer(
            operator,
            tuple(node.args[3:]),
            self.values[weight.node],
            weight.zero,
            None if bias is None else self.values[bias.node],
            factor if scale is None else factor / scale,
            int(source.zero),
            None if zero is None else int(zero),
            1 if node.target in CONVOLUTIONS else node.meta["val"].dim() - 1,
        )
        return kernel, [source.node]

    def _sum(self, node: fx.Node, scale: Tensor, zero: Tensor) -> tuple[nn.Module, list[fx.Node]] | None:
        one, other = self._steps(node.args[0]), self._steps(node.args[1])
        if one is None or other is None or one.node.meta["val"].shape != other.node.meta["val"].shape:
            return None
        kernel = IntegerSum((one.scale, other.scale, scale), (int(one.zero), int(other.zero), int(zero)))
        return kernel, [one.node, other.node]

    # -- operands ----------------------------------------------------------------------------------

    def _value(self, argument: Any) -> Any:
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def _constant(self, argument: Any) -> _Steps | None:
        """Stored integers that are dequantised, a scale for each of their rows or one for all."""
        if not isinstance(argument, fx.Node) or argument.target is not DEQUANTIZE:
            return None
        given: tuple[Any, ...] = argument.args
        steps, scale, zero, axis = given
        if steps not in self.values or axis not in (None, 0):
            return None
        return _Steps(steps, self._value(scale), self._value(zero))

    def _steps(self, argument: Any) -> _Steps | None:
        """The integers of an activation, which may have been moved as floats since it was dequantised."""
        if not isinstance(argument, fx.Node):
            return None
        origin = origin_of(argument)
        given: tuple[Any, ...] = origin.args
        if origin.target is not DEQUANTIZE or given[0] in self.values or given[3] is not None:
            return None
        steps, scale, zero, _ = given
        if origin is not argument:
            with self.program.graph.inserting_after(argument):
                steps = self.program.graph.call_function(QUANTIZE, (argument, scale, zero, None))
            steps.meta["val"] = argument.meta["val"].to(torch.uint8)
        return _Steps(steps, self._value(scale), self._value(zero))

    def _before_activation(self, node: Any, scale: Tensor, zero: Tensor) -> fx.Node | None:
        """What is before activations that cut off no more than the integers' own ends do."""
        while isinstance(node, fx.Node) and len(node.users) == 1:
            bounds = bounds_of(node)
            if bounds is None:
                return node
            ends = [float((end - zero.to(torch.int64)) * scale) for end in (0, 255)]
            if bounds[0] > ends[0] + _TINY or bounds[1] < ends[1] - _TINY:
                return None
            node = node.args[0]
        return node if isinstance(node, fx.Node) else None
