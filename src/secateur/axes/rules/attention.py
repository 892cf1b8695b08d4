"""Fused attention: heads, features and the keys that compete in the softmax."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._flow import Flow, Signal, multiply, weighs
from .._operator import Operand, Operator, Rescale
from .._table import aten, register_rule


def _attends(flow: Flow) -> Signal:
    # Probabilities are never zero; where values are zero the result is.
    names = ("query", "key", "attn_mask", "attn_bias")
    weights = [s for name in names if (s := flow[name]) is not None]
    return multiply(flow["value"], *(Signal(s.carried, s.carried) for s in weights))


def attend(
    op: Operator, query: Operand, key: Operand, value: Operand, mask: Operand | None = None,
    scale: float | None = None,
) -> list[Any]:  # fmt: skip
    """Dimensions of softmax(query key^T + mask) value, for (..., heads, length, features)."""
    features = op.unify(query[-1], key[-1])
    op.sum_over(features, query, key)
    if scale is None:
        # A tensor that is both query and key is multiplied with itself.
        op.rescales.append(Rescale(query.id, query[-1], -0.25 if query.id == key.id else -0.5))
        if query.id == value.id:
            op.inexact(features, "queries are values too, and cannot be scaled by another width")
    op.pin(op.unify(key[-2], value[-2]), "its positions compete (softmax over the keys)")
    lead = [query[:-2], *(_shared_heads(op, query, tensor) for tensor in (key, value))]
    result = [*op.broadcast(*lead), query[-2], value[-1]]
    if mask is not None:
        op.broadcast([*result[:-1], key[-2]], mask)
    if len(query) > 2:
        op.role(query[-3], "heads")
    op.role(features, "features")
    op.role(value[-1], "features")
    return result


def _shared_heads(op: Operator, query: Operand, tensor: Operand) -> Sequence[Any]:
    """Leading dimensions to broadcast with the query's, once a head serves several query heads."""
    if len(query) < 3 or not query[-3].size > tensor[-3].size > 1:
        return tensor[:-2]
    shared, _ = op.split(query[-3], tensor[-3].size, query[-3].size // tensor[-3].size)
    op.unify(shared, tensor[-3])
    return [*tensor[:-3], op.new(1)]


@register_rule(*aten("scaled_dot_product_attention"), flow=_attends)
def scaled_dot_product_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, attn_mask: Operand | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:  # fmt: skip
    return attend(op, query, key, value, attn_mask, scale)


def _with_bookkeeping(op: Operator, result: list[Any], key: Operand) -> Any:
    """Results of a backend: the log of its sums or its probabilities, then what is for backward."""
    results = [result]
    for number, shape in enumerate(op.shapes[1:], start=1):
        known = [*result[:-1], key[-2]][: len(shape)]
        if number == 1 and len(shape) > 2 and tuple(d.size for d in known) == shape:
            results.append(known)
            for dim in known:
                op.inexact_if_used(number, dim, "probabilities are never zero")
        else:
            results.append([op.fixed(n, "bookkeeping of attention") for n in shape])
    return results


@register_rule(
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    *aten("_scaled_dot_product_flash_attention_for_cpu"),
    flow=_attends,
)
def flash_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, dropout_p: float = 0.0,
    is_causal: bool = False, return_debug_mask: bool = False, *, attn_mask: Operand | None = None,
    scale: float | None = None,
) -> Any:  # fmt: skip
    op.algebra.balance([query[-1], value[-1]])  # the kernel knows one width only
    return _with_bookkeeping(op, attend(op, query, key, value, attn_mask, scale), key)


@register_rule(
    *aten(
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math",
    ),
    flow=_attends,
)  # fmt: skip
def biased_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, attn_bias: Operand | None = None,
    *args: Any, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    return _with_bookkeeping(op, attend(op, query, key, value, attn_bias, scale), key)


@register_rule(*aten("_masked_softmax"))
def masked_softmax(
    op: Operator, self: Operand, mask: Operand, dim: int | None = None, mask_type: int | None = None
) -> Any:
    op.pin(self[-1 if dim is None else dim], "its positions compete (softmax)")
    return op.broadcast(self, mask)


FUSED = "the fused kernel wants it to be as wide as the embedding"


@register_rule(*aten("_native_multi_head_attention"))
def native_multi_head_attention(
    op: Operator, query: Operand, key: Operand, value: Operand, embed_dim: int, num_head: int,
    qkv_weight: Operand, qkv_bias: Operand, proj_weight: Operand, proj_bias: Operand,
    mask: Operand | None = None, *args: Any,
) -> Any:  # fmt: skip
    for tensor in (query, key, value, qkv_weight, qkv_bias, proj_weight, proj_bias):
        op.pin(tensor, FUSED)
    op.pin(mask or [], "a mask of attention")
    rest = [[op.fixed(n, FUSED) for n in shape] for shape in op.shapes[1:]]
    return [list(query), *rest]


@register_rule(*aten("_transformer_encoder_layer_fwd"), flow=weighs)
def transformer_encoder_layer(
    op: Operator, src: Operand, embed_dim: int, num_heads: int, qkv_weight: Operand,
    qkv_bias: Operand, proj_weight: Operand, proj_bias: Operand, use_gelu: bool, norm_first: bool,
    eps: float, norm_weight_1: Operand, norm_bias_1: Operand, norm_weight_2: Operand,
    norm_bias_2: Operand, ffn_weight_1: Operand, ffn_bias_1: Operand, ffn_weight_2: Operand,
    ffn_bias_2: Operand, mask: Operand | None = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    outside = (
        qkv_weight,
        qkv_bias,
        proj_weight,
        proj_bias,
        norm_weight_1,
        norm_bias_1,
        norm_weight_2,
    )
    for tensor in (src, *outside, norm_bias_2, ffn_weight_1[1:], ffn_weight_2[:1], ffn_bias_2):
        op.pin(tensor, FUSED)
    op.pin(mask or [], "a mask of attention")
    hidden = op.unify(ffn_weight_1[0], ffn_bias_1[0], ffn_weight_2[1])
    op.sum_over(hidden, ffn_weight_2)
    return list(src)
