"""What is solved for: the operators that read a pruned axis with weights of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from ..axes import Analysis, Keep, Operand, Operator, Positions, kept, kept_size
from ..capture import Graph, Node
from ..criteria import Origins
from ._layouts import Convolution, Dense, Layout, Stacked
from ._problems import Channels, Problem, Weights


@dataclass(frozen=True)
class Sum:
    """A weighted sum in a recorded graph: ids of its operands there, and how they are laid out."""

    node: Node
    activation: int
    weight: int
    bias: int | None
    layout: Layout


@dataclass(frozen=True)
class Candidate:
    """A weighted sum of the original that reads a pruned axis.

    Attributes:
        name: of its weight, without the ``.weight``.
        sum: the operator.
        features: weights that an output of the small model's has.
        results: outputs of the small model's, of all groups.
        problem: what is unknown.
    """

    name: str
    sum: Sum
    features: int
    results: int
    problem: Problem

    @property
    def node(self) -> Node:
        """Its place in the graph."""
        return self.sum.node


def find_candidates(
    analysis: Analysis, keep: Keep, most_features: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Weighted sums that read what ``keep`` shortens, and those that cannot be solved, with the reason.

    Of layers with more than ``most_features`` unknowns an output only the mixing of channels is solved.
    """
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    origins = Origins(analysis)
    for operator in analysis.operators:
        own = weighted_sum(operator)
        if own is None or origins.parameter(own.weight) is None:
            continue
        if kept(_features(analysis, own), keep) is None:
            continue
        name = _name(origins, own)
        why = _unsolvable(analysis, own, keep)
        if why:
            skipped[name] = why
        else:
            found.append(_candidate(analysis, own, keep, name, most_features))
    return found, skipped


def find_twins(original: Graph, small: Graph) -> dict[int, int]:
    """The node of the small model that stands for each node of the original, by their indices.

    Operators are matched by module, by name, and by their order in the module.
    """
    places = {place: node.index for place, node in _placed(small)}
    return {node.index: places[place] for place, node in _placed(original) if place in places}


def _placed(graph: Graph) -> Iterator[tuple[tuple[str, str, int], Node]]:
    """Every node with its module, its operator, and how many of them the module has run before."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for node in graph.nodes:
        key = (node.module, str(node.op))
        yield (*key, counts[key]), node
        counts[key] += 1


# -- operators -------------------------------------------------------------------------------------


def weighted_sum(operator: Operator | None) -> Sum | None:
    """How an operator is a weighted sum; None if it is none that can be solved for."""
    if operator is None:
        return None
    build = _BUILDERS.get(getattr(operator.node.op, "overloadpacket", None))
    return build(operator, operator.arguments) if build else None


def _sum(
    operator: Operator, activation: Operand, weight: Operand, bias: Operand | None, layout: Layout
) -> Sum:
    return Sum(operator.node, activation.id, weight.id, None if bias is None else bias.id, layout)


def _linear(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    return _sum(operator, given["input"], given["weight"], given.get("bias"), Dense())


def _addmm(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    return _sum(operator, given["mat1"], given["mat2"], given["self"], Dense(transposed=True))


def _matmul(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    left, right = given["self"], given["other"]
    if len(right) == 2:
        return _sum(operator, left, right, None, Dense(transposed=True))
    return _sum(operator, left, right, None, Stacked()) if len(left) == len(right) == 3 else None


def _convolution(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    weight = given["weight"]
    space = len(weight) - 2

    def numbers(name: str, default: int) -> tuple[int, ...] | str:
        value = given.get(name, default)
        if isinstance(value, str):
            return value
        row = [value] if isinstance(value, int) else list(value)
        return tuple(row * space if len(row) == 1 else row)

    layout = Convolution(
        stride=tuple(map(int, numbers("stride", 1))),
        padding=numbers("padding", 0),
        dilation=tuple(map(int, numbers("dilation", 1))),
        groups=given.get("groups", 1),
        output_padding=tuple(map(int, numbers("output_padding", 0))),
        transposed=given.get("transposed", "transpose" in str(operator.node.op)),
    )
    return _sum(operator, given["input"], weight, given.get("bias"), layout)


def _recurrent(operator: Operator, given: Mapping[str, Any]) -> Sum | None:
    """The input projection of the first layer; of two directions the forward one."""
    if "input" not in given or "params" not in given or given.get("bidirectional"):
        return None
    params = given["params"]
    bias = params[2] if given.get("has_biases") else None
    return _sum(operator, given["input"], params[0], bias, Dense())


_aten = torch.ops.aten
_BUILDERS: dict[Any, Callable[[Operator, Mapping[str, Any]], Sum | None]] = {
    _aten.linear: _linear,
    _aten.addmm: _addmm,
    _aten.matmul: _matmul,
    _aten.mm: _matmul,
    _aten.bmm: _matmul,
    **dict.fromkeys(
        [
            _aten.conv1d,
            _aten.conv2d,
            _aten.conv3d,
            _aten.conv_transpose1d,
            _aten.conv_transpose2d,
            _aten.conv_transpose3d,
            _aten.convolution,
        ],
        _convolution,
    ),
    **dict.fromkeys([_aten.lstm, _aten.gru, _aten.rnn_tanh, _aten.rnn_relu], _recurrent),
}


# -- what is pruned of them ------------------------------------------------------------------------


def _name(origins: Origins, own: Sum) -> str:
    return (origins.parameter(own.weight) or own.node.module).removesuffix(".weight")


def _candidate(analysis: Analysis, own: Sum, keep: Keep, name: str, most_features: int) -> Candidate:
    outputs = _outputs(analysis, own, keep)
    weight = analysis.dims_of(own.weight)
    results = own.layout.outputs([dim.size for dim in weight]) if outputs is None else len(outputs)
    features = max(1, prod(kept_size(dim, keep) for dim in weight) // max(1, results))
    inputs = kept(_features(analysis, own), keep)
    mixable = isinstance(own.layout, Convolution) and own.layout.groups == 1 and not own.layout.transposed
    if features > most_features and mixable and inputs is not None:
        return Candidate(name, own, len(inputs), _features(analysis, own).size, Channels(outputs, inputs))
    return Candidate(name, own, features, results, Weights(outputs, _groups(analysis, own, keep)))


def _features(analysis: Analysis, own: Sum) -> Any:
    return analysis.dims_of(own.activation)[own.layout.channel]


def _outputs(analysis: Analysis, own: Sum, keep: Keep) -> Positions | None:
    """Features of the result that stay; with stacked weights, of all groups in a row."""
    weight = analysis.dims_of(own.weight)
    if isinstance(own.layout, Stacked):
        return _product([weight[0], weight[2]], keep)
    if isinstance(own.layout, Convolution):
        result = analysis.dims_of(own.node.outputs[0])
        return kept(result[own.layout.channel], keep)
    return kept(weight[1 if isinstance(own.layout, Dense) and own.layout.transposed else 0], keep)


def _product(dims: list[Any], keep: Keep) -> Positions | None:
    rows = [kept(dim, keep) for dim in dims]
    if all(row is None for row in rows):
        return None
    first, second = (np.arange(d.size) if r is None else r for d, r in zip(dims, rows, strict=True))
    return (first[:, None] * dims[1].size + second).reshape(-1)


def _groups(analysis: Analysis, own: Sum, keep: Keep) -> int:
    if isinstance(own.layout, Stacked):
        return kept_size(analysis.dims_of(own.weight)[0], keep)
    if not isinstance(own.layout, Convolution) or own.layout.groups == 1:
        return 1
    # The inputs of a group: channels of the weight, or of a transposed one what its groups leave.
    inputs = kept_size(_features(analysis, own), keep)
    if own.layout.transposed:
        outputs = kept_size(analysis.dims_of(own.node.outputs[0])[own.layout.channel], keep)
        return outputs // kept_size(analysis.dims_of(own.weight)[1], keep)
    return inputs // kept_size(analysis.dims_of(own.weight)[1], keep)


def _unsolvable(analysis: Analysis, own: Sum, keep: Keep) -> str:
    """Why the weights cannot be solved for, or an empty string."""
    graph = analysis.graph
    dims = analysis.dims_of(own.activation)
    channel = own.layout.channel % len(dims)
    if any(kept(dim, keep) is not None for place, dim in enumerate(dims) if place != channel):
        stacked = isinstance(own.layout, Stacked)
        if not stacked or kept(dims[1], keep) is not None:
            return "the positions that it works on are cut too"
    readers = [node for node in graph.nodes if own.weight in node.inputs]
    return f"its weights are used {len(readers)} times" if len(readers) > 1 else ""
