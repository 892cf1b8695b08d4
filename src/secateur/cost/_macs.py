"""Multiply-accumulate operations and parameters, from the recorded graph, for any keep sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..axes import Analysis, Dim, Keep, Operand, kept_size
from ..capture import ModuleCall, Node, Source

Term = Sequence[Dim]
"""Dimensions whose sizes multiply to a number of operations."""


def count_macs(analysis: Analysis, keep: Keep | None = None) -> int:
    """Multiply-accumulates of one forward at the recorded inputs, with only ``keep`` left.

    Counted: convolutions, linear layers, matrix products and einsum (attention included), bilinear
    and recurrent layers. Not counted: everything element-wise, norms, pooling.
    """
    return sum(_size(analysis, term, keep or {}) for term in mac_terms(analysis))


def count_parameters(analysis: Analysis, keep: Keep | None = None) -> int:
    """Elements of all parameters that are left; a tied one counts once."""
    values = analysis.graph.state(Source.PARAMETER)
    return sum(_size(analysis, analysis.dims_of(value.id), keep or {}) for value in values)


def module_macs(analysis: Analysis) -> dict[str, int]:
    """Multiply-accumulates of one forward by the path of the module whose code calls for them."""
    found: dict[str, int] = {}
    for node in analysis.graph.nodes:
        count = sum(_size(analysis, term, {}) for term in node_macs(analysis, node))
        if count:
            found[node.module] = found.get(node.module, 0) + count
    return found


def mac_terms(analysis: Analysis) -> Iterator[Term]:
    """The products of dimensions that make up a model's multiply-accumulates."""
    for node in analysis.graph.nodes:
        yield from node_macs(analysis, node)


def node_macs(analysis: Analysis, node: Node) -> Iterator[Term]:
    """The same for one operator."""
    operator = analysis.operators[node.index]
    schema = getattr(node.op, "_schema", None)
    name = schema.name.partition("::")[2] if schema else str(node.op)
    counter = _COUNTERS.get(name)
    if operator is not None and counter is not None:
        results = [analysis.dims_of(id_) for id_ in node.outputs]
        arguments = operator.arguments
        if isinstance(node.op, ModuleCall):
            arguments = {**arguments, "settings": node.op.settings, "algebra": analysis.algebra}
        yield from counter(arguments, results)


def _size(analysis: Analysis, dims: Term, keep: Keep) -> int:
    size = 1
    for dim in dims:
        size *= kept_size(analysis.algebra.resolve(dim), keep)
    return size


Counter = Callable[[dict[str, Any], list[list[Dim]]], Iterator[Term]]


def _linear(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield [*results[0], a["input"][-1]]


def _conv(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield [*results[0], *a["weight"][1:]]


def _conv_transpose(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield [*a["input"], *a["weight"][1:]]


def _convolution(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield from (_conv_transpose if a["transposed"] else _conv)(a, results)


def _product(first: str) -> Counter:
    return lambda a, results: iter([[*results[0], a[first][-1]]])


def _einsum(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    letters: dict[str, Dim] = {}
    rest: list[Dim] = []
    left = a["equation"].replace(" ", "").partition("->")[0]
    for term, tensor in zip(left.split(","), a["tensors"], strict=True):
        before, _, after = term.partition("...")
        letters |= dict(zip(before, tensor, strict=False))
        letters |= dict(zip(after, tensor[len(tensor) - len(after) :], strict=False))
        dots = tensor[len(before) : len(tensor) - len(after)]
        rest = dots if len(dots) > len(rest) else rest
    if len(a["tensors"]) > 1:
        yield [*letters.values(), *rest]


def _tensordot(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield [*results[0], *(a["self"][dim] for dim in a["dims_self"])]


def _attention(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    query, key, value = a["query"], a["key"], a["value"]
    yield [*query, key[-2]]
    yield [*query[:-1], value[-2], value[-1]]


def _multihead(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    module: dict[str, Operand] = a["module"]
    operands, out = [a["query"], a["key"], a["value"]], module["out_proj.weight"]
    if "in_proj_weight" in module:  # queries, keys and values, one below the other
        rows = a["algebra"].cut(module["in_proj_weight"][0], [out[1].size] * 3)
        weights = [[row, module["in_proj_weight"][1]] for row in rows]
    else:
        weights = [[*module[f"{name}_proj_weight"]] for name in "qkv"]
    for operand, weight in zip(operands, weights, strict=True):
        yield [*operand[:-1], *weight]
    positions = a["query"][:-1]
    key = a["key"]
    keys = key[-2] if len(key) == 2 or a["settings"]["batch_first"] else key[0]
    yield [*positions, weights[0][0], keys]
    yield [*positions, out[1], keys]
    yield [*positions, *out]


def _recurrent(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    steps = a["input"][:-1]
    for weight in a["params"]:
        if len(weight) == 2:
            yield [*steps, *weight]


def _cell(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    for name in ("w_ih", "w_hh"):
        yield [*a["input"][:-1], *a[name]]


def _bilinear(a: dict[str, Any], results: list[list[Dim]]) -> Iterator[Term]:
    yield [*results[0], *a["weight"][1:]]


_COUNTERS: dict[str, Counter] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _product("self")),
    "addmm": _product("mat1"),
    "baddbmm": _product("batch1"),
    "einsum": _einsum,
    "tensordot": _tensordot,
    "scaled_dot_product_attention": _attention,
    "MultiheadAttention": _multihead,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "bilinear": _bilinear,
}
