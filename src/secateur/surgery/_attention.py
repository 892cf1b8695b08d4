"""A stand-in for ``nn.MultiheadAttention`` whose widths need not fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class MultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` after surgery: heads, features and embedding of any width.

    Same parameters, same names, same calls. ``head_dim`` is the width of a query and a key,
    ``value_dim`` that of a value; ``scale`` is what the original used, so that taking off features
    that are zero changes nothing. Made by :meth:`refit` from the original module, never by hand.
    """

    scale: float
    value_dim: int

    @classmethod
    def refit(cls, module: Any, numbers: Mapping[str, int], settings: Mapping[str, Any]) -> None:
        """Turn a module whose parameters have been cut into one of this class, in place."""
        module.__class__ = cls
        heads = module.num_heads = numbers["num_heads"]
        module.scale = settings.get("scale", settings["head_dim"] ** -0.5)
        value = module.out_proj.weight.shape[1]
        rows = module._rows()[0]
        module.head_dim, module.value_dim = rows // heads, value // heads
        module.embed_dim = module.out_proj.weight.shape[0]
        module.out_proj.in_features, module.out_proj.out_features = value, module.embed_dim
        module._qkv_same_embed_dim = False  # turns off shortcuts that compute the widths themselves

    def _rows(self) -> tuple[int, int, int]:
        value = self.out_proj.weight.shape[1]
        if self.in_proj_weight is None:
            return self.q_proj_weight.shape[0], self.k_proj_weight.shape[0], value
        shared = (self.in_proj_weight.shape[0] - value) // 2
        return shared, shared, value

    def _project(self, tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        rows = list(self._rows())
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split(rows)
        if self.in_proj_weight is None:
            weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.split(rows)
        return [F.linear(*group) for group in zip(tensors, weights, biases, strict=True)]

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batched = query.dim() == 3
        tensors = (query, key, value)
        if not batched:
            tensors = tuple(t.unsqueeze(0) for t in tensors)
        elif not self.batch_first:
            tensors = tuple(t.transpose(0, 1) for t in tensors)
        q, k, v = self._project(tensors)
        batch, length = q.shape[:2]
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(batch, -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(batch, -1, -1)], 1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        mask = self._mask(q, k, key_padding_mask, attn_mask, is_causal)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            out = weights @ v
        else:
            weights = None
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = self.out_proj(out.transpose(1, 2).reshape(batch, length, -1))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out[0], None if weights is None else weights[0]
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _mask(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        padding: torch.Tensor | None,
        attention: torch.Tensor | None,
        is_causal: bool,
    ) -> torch.Tensor | None:
        """Both masks as one to be added to the scores, (batch or 1, heads or 1, length, keys)."""
        masks = []
        extra = 0
        for mask, is_padding in ((attention, False), (padding, True)):
            if mask is None:
                continue
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
            if is_padding:
                mask = mask.reshape(q.shape[0], 1, 1, -1)
            elif mask.dim() == 3:
                mask = mask.unflatten(0, (q.shape[0], -1))
            extra = k.shape[-2] - mask.shape[-1]  # bias_k and add_zero_attn are never masked
            masks.append(F.pad(mask, (0, extra)) if extra else mask)
        return sum(masks[1:], masks[0]) if masks else None
