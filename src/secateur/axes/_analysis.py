"""Run the rules over a graph: dimensions of every tensor, and everything stated about them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .._errors import RuleError
from ..capture import Graph, ModuleCall, Node, Ref, Source, map_tree
from ._addresses import Address, carried, moves
from ._algebra import Algebra, Dim, leaf
from ._operator import Number, Operand, Operator
from ._table import TABLE, Rule

STATE = (Source.PARAMETER, Source.BUFFER, Source.ATTRIBUTE)


@dataclass
class Analysis:
    """What is known of a graph after every operator's rule has spoken.

    ``operators`` has an entry for each node, None where nothing is known (``opaque`` says why). ``weights``
    are parameters, buffers and what is taken out of them; ``addresses`` are tensors whose values are
    positions of a dimension.
    """

    graph: Graph
    algebra: Algebra
    dims: dict[int, list[Dim]]
    operators: list[Operator | None] = field(default_factory=list)
    opaque: dict[int, str] = field(default_factory=dict)
    addresses: dict[int, Address] = field(default_factory=dict)
    weights: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def dims_of(self, id_: int) -> list[Dim]:
        """Resolved dimension expressions of a tensor."""
        return [self.algebra.resolve(dim) for dim in self.dims[id_]]

    def rule_of(self, node: Node) -> Rule | None:
        """The rule of a node, if it was used."""
        return None if node.index in self.opaque else self._table.get(key_of(node))

    _table: Mapping[Any, Rule] = field(default_factory=lambda: TABLE)


def key_of(node: Node) -> Any:
    """What the rule of a node is registered under."""
    op = node.op
    if isinstance(op, ModuleCall):
        return None if op.opaque else op.type
    return op


def analyse(graph: Graph, table: Mapping[Any, Rule] | None = None, *, strict: bool = False) -> Analysis:
    """Apply the rules in ``table`` to every node of ``graph``.

    With ``strict`` an operator without a rule, or a rule that the operator contradicts, raises
    :class:`RuleError` and names it; otherwise its operands and results are pinned and it is listed.
    """
    start = time.perf_counter()
    table = dict(TABLE) if table is None else table
    algebra = Algebra()
    analysis = Analysis(graph, algebra, {}, _table=table)
    for value in graph.values:
        analysis.dims[value.id] = [leaf(size) for size in value.shape]
        if value.source in STATE:
            analysis.weights.add(value.id)
    _pin_sources(analysis)
    for node in graph.nodes:
        algebra.context = node
        operator, why = _apply(analysis, node, table.get(key_of(node)))
        if node.inputs and node.inputs[0] in analysis.weights and moves(node):
            analysis.weights.update(node.outputs)
        analysis.operators.append(operator)
        if operator is None:
            if strict:
                raise RuleError(f"{node}: {why}")
            analysis.opaque[node.index] = why
            for id_ in (*node.inputs, *node.outputs):
                for dim in analysis.dims[id_]:
                    algebra.pin(dim, why)
            _pin_addresses(analysis, node.inputs)
    algebra.context = None
    for path, id_ in graph.outputs.items():
        for dim in analysis.dims[id_]:
            algebra.pin(dim, f"it is a dimension of the model's {path}")
    _pin_addresses(analysis, graph.outputs.values())
    _judge_competitions(analysis)
    analysis.seconds = time.perf_counter() - start
    return analysis


def _judge_competitions(analysis: Analysis) -> None:
    """What competes is pinned, unless it routes: then taking it off is only inexact."""
    algebra = analysis.algebra
    operators = [operator for operator in analysis.operators if operator is not None]
    routed = {axis for op in operators for dim in op.routes for axis in algebra.leaves(dim)}
    for operator in operators:
        algebra.context = operator.node
        for dim, reason in operator.competing:
            for axis in algebra.leaves(dim):
                if axis in routed:
                    operator.inexact(axis, f"{reason}, and to be zero is not to be absent")
                else:
                    algebra.pin(axis, reason)
    algebra.context = None


def _pin_sources(analysis: Analysis) -> None:
    read = {id_ for node in analysis.graph.nodes for id_ in node.inputs}
    for value in analysis.graph.values:
        if value.source is Source.INPUT:
            reason = f"it is a dimension of the model's input {value.name}"
        elif value.source in STATE and value.id not in read:
            reason = "the recorded run does not use it"
        elif value.source is Source.CONSTANT:
            reason = "it is a dimension of a constant tensor that the model does not own"
        else:
            continue
        for dim in analysis.dims[value.id]:
            analysis.algebra.pin(dim, reason)


def _apply(analysis: Analysis, node: Node, rule: Rule | None) -> tuple[Operator | None, str]:
    """The operator with all statements of its rule, or None and the reason."""
    if rule is None:
        kind = "kept whole (leaf_modules)" if isinstance(node.op, ModuleCall) else "no rule"
        return None, f"{kind} for {node.op}"
    values = analysis.graph.values

    def operand(ref: Ref) -> Operand:
        value = values[ref.id]
        address = analysis.addresses.get(ref.id)
        constant = analysis.graph.constants.get(ref.id)
        is_state = ref.id in analysis.weights
        dims, strides = analysis.dims[ref.id], value.strides
        return Operand(ref.id, dims, value.dtype, is_state, address, constant, strides)

    shapes = [values[id_].shape for id_ in node.outputs]
    op = Operator(node, analysis.algebra, shapes)
    args = map_tree(node.args, Ref, operand)
    kwargs = map_tree(node.kwargs, Ref, operand)
    try:
        op.arguments = rule.bind(op, args, kwargs)
        result = rule.function(op, *args, **kwargs)
        _check_result(analysis, node, result)
        _follow_addresses(analysis, op)
    except (TypeError, ValueError, IndexError, KeyError, NotImplementedError, AttributeError) as error:
        return None, f"the rule for {node.op} does not fit this call ({type(error).__name__}: {error})"
    return op, ""


def _follow_addresses(analysis: Analysis, op: Operator) -> None:
    """Note which results hold positions of a dimension; pin it where they are read as numbers."""
    node, known = op.node, analysis.addresses
    first = known.get(node.inputs[0]) if known and node.inputs else None
    if first is not None and carried(node, first) and not op.addresses:
        booleans = (analysis.graph.values[id_].dtype is torch.bool for id_ in node.outputs)
        op.addresses = {n: first for n, boolean in enumerate(booleans) if not boolean}
    read = set(op.addressed)
    if op.addresses:
        read.add(node.inputs[0])
    _pin_addresses(analysis, [id_ for id_ in node.inputs if id_ not in read])
    for result, address in op.addresses.items():
        known[node.outputs[result]] = address


def _pin_addresses(analysis: Analysis, ids: Iterable[int]) -> None:
    """Positions of a dimension are read as numbers: it has to stay as it is."""
    for id_ in ids:
        address = analysis.addresses.get(id_)
        if address is not None and not address.counted:
            analysis.algebra.pin(address.dim, "the code reads its positions as numbers")


def _check_result(analysis: Analysis, node: Node, result: Any) -> None:
    outputs = node.outputs
    if isinstance(node.result, Ref):
        result = [result]
    elif result is None:
        if not outputs:
            return
        raise ValueError("no result stated")
    if len(result) != len(outputs):
        raise ValueError(f"{len(result)} results stated, {len(outputs)} returned")
    for id_, stated in zip(outputs, result, strict=True):
        if stated is None:
            continue
        dims = analysis.dims[id_]
        sizes = tuple(dim.size for dim in stated)
        if sizes != tuple(dim.size for dim in dims):
            shape = analysis.graph.values[id_].shape
            raise ValueError(f"shape {sizes} stated, {shape} returned")
        for dim, new in zip(dims, stated, strict=True):
            analysis.algebra.unify(dim, new)


def number_value(node: Node, number: Number, arguments: Mapping[str, Any]) -> int | None:
    """The recorded integer that ``number`` talks about, None where the code wrote none."""
    value = arguments.get(number.argument)
    if number.position is not None and isinstance(value, Sequence):
        value = value[number.position] if number.position < len(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
