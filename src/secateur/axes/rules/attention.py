"""Fused attention: heads, features and the keys that compete in the softmax."""

from __future__ import annotations

from typing import Any

from torch import nn

from .._flow import Flow, Signal, add, multiply
from .._operator import Operand, Operator, Rescale
from .._table import aten, register_rule


def _attends(flow: Flow) -> Signal:
    # Probabilities are never zero; where values are zero the result is.
    names = ("query", "key", "attn_mask", "attn_bias")
    weights = [s for name in names if (s := flow[name]) is not None]
    return multiply(flow["value"], *(Signal(s.carried, s.carried) for s in weights))


def attend(op: Operator, query: Operand, key: Operand, value: Operand, mask: Operand | None = None) -> list[Any]:
    """Dimensions of softmax(query key^T + mask) value, for (..., heads, length, features)."""
    features = op.unify(query[-1], key[-1])
    op.sum_over(features, query, key)
    op.pin(op.unify(key[-2], value[-2]), "its positions compete (softmax over the keys)")
    if len(query) > 2:
        heads = op.unify(key[-3], value[-3]) if key[-3].size == value[-3].size else key[-3]
        if query[-3].size > heads.size > 1:
            shared, _ = op.split(query[-3], heads.size, query[-3].size // heads.size)
            op.unify(shared, heads)
        elif heads.size > 1:
            op.unify(query[-3], heads)
        op.role(query[-3], "heads")
    batch = op.broadcast(query[:-3], key[:-3], value[:-3]) if len(query) > 3 else []
    result = [*batch, *query[-3:-2], query[-2], value[-1]]
    if mask is not None:
        op.broadcast([*result[:-1], key[-2]], mask)
    op.role(features, "features")
    op.role(value[-1], "features")
    return result


@register_rule(*aten("scaled_dot_product_attention"), flow=_attends)
def scaled_dot_product_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, attn_mask: Operand | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if scale is None:
        op.rescales.append(Rescale(query.id, query[-1], -0.5))
    return attend(op, query, key, value, attn_mask)


@register_rule(
    *aten(
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
    ),
    flow=_attends,
)  # fmt: skip
def backend_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, *args: Any, scale: float | None = None,
    attn_mask: Operand | None = None, attn_bias: Operand | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    mask = next((a for a in (attn_mask, attn_bias, *args) if isinstance(a, Operand)), None)
    if scale is None:
        op.rescales.append(Rescale(query.id, query[-1], -0.5))
    result = attend(op, query, key, value, mask)
    rest = [[op.fixed(n, "bookkeeping of attention") for n in shape] for shape in op.shapes[1:]]
    return [result, *rest]
