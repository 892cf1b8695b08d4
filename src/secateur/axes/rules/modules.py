"""Modules whose call is recorded whole, since their Python code says less than their definition."""
# ruff: noqa: D103 - a rule is named after its module, which is its documentation

from __future__ import annotations

from typing import Any

from torch import nn

from .._flow import Flow, Signal
from .._operator import Operand, Operator
from .._table import register_rule


def _attention_flow(flow: Flow) -> Signal:
    # Whatever goes in, the result comes out of the output projection, whose rows are zero.
    projection = flow.arguments["module"]["out_proj.weight"]
    return flow.signal_of(projection.id)


@register_rule(nn.MultiheadAttention, flow=_attention_flow)
def multihead_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, key_padding_mask: Any = None,
    need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True,
    is_causal: bool = False, *, module: dict[str, Operand],
) -> Any:  # fmt: skip
    heads, width = op.node.op.settings["num_heads"], module["out_proj.weight"].shape[1]
    queries, keys, values = _projections(op, module, (query, key, value), width)
    shared, features = op.split(queries, heads, width // heads)
    op.number("num_heads", shared)
    op.unify(queries, keys)
    _, value_features = op.split(values, heads, width // heads)
    op.unify(values, op.product(shared, value_features), module["out_proj.weight"][1])
    op.sum_over(values, module["out_proj.weight"])
    for name, dim in (
        ("bias_k", keys),
        ("bias_v", values),
        ("out_proj.bias", module["out_proj.weight"][0]),
    ):
        if name in module:
            op.unify(module[name][-1], dim)
    op.role(shared, "heads")
    op.role(op.product(features, value_features), "features")
    op.pin([*query[:-1], *key[:-1], *value[:-1]], "positions and batch of attention")
    for mask in (key_padding_mask, attn_mask):
        if isinstance(mask, Operand):
            op.pin(mask, "a mask of attention")
            if len(mask) == 3:
                op.pin(shared, "the attention mask has an entry for each head")
    results = [[*query[:-1], module["out_proj.weight"][0]]]
    for shape in op.shapes[1:]:
        results.append([op.fixed(n, "attention weights that the module returns") for n in shape])
        op.inexact_if_used(1, shared, "attention weights are averaged over the heads")
    return results


def _projections(op: Operator, module: dict[str, Operand], inputs: Any, width: int) -> list[Any]:
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    if "in_proj_weight" in module:
        weights = [module["in_proj_weight"]] * 3
        rows = op.cut(weights[0][0], [width] * 3)
    else:
        weights = [module[name] for name in names]
        rows = [weight[0] for weight in weights]
    if "in_proj_bias" in module:
        op.unify(op.concat(rows), module["in_proj_bias"][0])
    for tensor, weight in zip(inputs, weights, strict=True):
        op.sum_over(op.unify(tensor[-1], weight[1]), tensor, weight)
    return rows
