"""Calls that lead to the rules of ``axes/rules/attention.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import mask, t

aten = torch.ops.aten


def scaled_dot_product() -> None:
    """Widths, scales, masks; grouped queries; with and without heads."""
    q, k, v = t(2, 4, 5, 6), t(2, 4, 7, 6), t(2, 4, 7, 3)
    attend = F.scaled_dot_product_attention
    attend(q, k, v)
    attend(q, k, v, scale=0.3)
    attend(q, k, v, attn_mask=t(5, 7))
    attend(q, k, v, attn_mask=t(2, 1, 5, 7))
    attend(q, k, v, attn_mask=t(2, 4, 5, 7))
    attend(q, q, t(2, 4, 5, 3), is_causal=True)
    attend(t(2, 6, 5, 4), t(2, 3, 7, 4), t(2, 3, 7, 4), enable_gqa=True)
    attend(t(2, 6, 5, 4), t(2, 1, 7, 4), t(2, 1, 7, 4), enable_gqa=True)
    attend(t(5, 6), t(7, 6), t(7, 3))
    attend(t(4, 5, 6), t(4, 7, 6), t(4, 7, 3))
    attend(t(3, 2, 4, 5, 6), t(1, 2, 4, 7, 6), t(2, 4, 7, 3))


def backends() -> None:
    """What the dispatcher chooses for scaled dot-product attention."""
    q, k = t(2, 4, 5, 6), t(2, 4, 7, 6)
    aten._scaled_dot_product_flash_attention_for_cpu(q, k, t(2, 4, 7, 6))
    aten._scaled_dot_product_flash_attention_for_cpu(q, k, t(2, 4, 7, 6), attn_mask=t(5, 7))
    aten._scaled_dot_product_flash_attention_for_cpu(q, q, t(2, 4, 5, 6), 0.0, True, scale=0.3)
    aten._scaled_dot_product_attention_math(q, k, t(2, 4, 7, 3))
    aten._scaled_dot_product_attention_math(q, k, t(2, 4, 7, 3), t(2, 1, 5, 7), scale=0.3)
    grouped = t(2, 6, 5, 4), t(2, 3, 7, 4), t(2, 3, 7, 4)
    aten._scaled_dot_product_attention_math(*grouped, enable_gqa=True)
    aten._masked_softmax(t(2, 3, 4), mask(2, 3, 4), 2, 1)


def fused_layers() -> None:
    """The fast path of nn.MultiheadAttention and nn.TransformerEncoderLayer."""
    x, width = t(2, 3, 8), 8
    attention = (t(24, 8), t(24), t(8, 8), t(8))
    aten._native_multi_head_attention(x, x, x, width, 4, *attention)
    norms = (t(8), t(8), t(8), t(8))
    ffn = (t(6, 8), t(6), t(8, 6), t(8))
    for norm_first in (True, False):
        aten._transformer_encoder_layer_fwd(x, width, 4, *attention, True, norm_first, 1e-5, *norms, *ffn)
