"""Calls that lead to the rules of ``axes/rules/normalization.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import positive, t

aten = torch.ops.aten


def batch_norms() -> None:
    """Given statistics, those of the batch, with and without parameters."""
    for space in ((), (5,), (5, 3)):
        x = t(4, 3, *space)
        F.batch_norm(x, t(3), positive(3), t(3), t(3))
        F.batch_norm(x, t(3), positive(3))
        F.batch_norm(x, None, None, t(3), t(3), training=True)
    x = t(4, 3, 5)
    torch.native_batch_norm(x, t(3), t(3), t(3), positive(3), False, 0.1, 1e-5)
    torch.native_batch_norm(x, t(3), t(3), t(3), positive(3), True, 0.1, 1e-5)
    no_training = (x, t(3), t(3), t(3), positive(3), 0.1, 1e-5)
    aten._native_batch_norm_legit_no_training(*no_training)
    aten._batch_norm_no_update(*no_training)
    for training in (False, True):
        aten._native_batch_norm_legit(x, t(3), t(3), t(3), positive(3), training, 0.1, 1e-5)
    aten._native_batch_norm_legit.no_stats(x, t(3), t(3), True, 0.1, 1e-5)


def instance_norms() -> None:
    """Statistics of every channel, or running ones."""
    F.instance_norm(t(2, 3, 5, 4))
    F.instance_norm(t(2, 3, 5), None, None, t(3), t(3))
    F.instance_norm(t(2, 3, 5), t(3), positive(3), t(3), t(3), use_input_stats=False)


def layer_norms() -> None:
    """LayerNorm and RMSNorm over one and two dimensions."""
    F.layer_norm(t(2, 3, 4), (4,), t(4), t(4))
    F.layer_norm(t(2, 3, 4), (3, 4), t(3, 4))
    F.layer_norm(t(2, 4), (4,))
    torch.native_layer_norm(t(2, 3, 4), (4,), t(4), t(4), 1e-5)
    F.rms_norm(t(2, 3, 4), (4,), t(4))
    F.rms_norm(t(2, 3, 4), (3, 4))
    aten._fused_rms_norm(t(2, 3, 4), [4], t(4), 1e-5)


def group_norms() -> None:
    """Groups of channels."""
    F.group_norm(t(2, 12, 3, 2), 3, t(12), t(12))
    F.group_norm(t(2, 12), 4)
    aten.native_group_norm(t(2, 12, 3, 2), t(12), t(12), 2, 12, 6, 3, 1e-5)


def weight_norms() -> None:
    """Direction and gain of a weight."""
    torch._weight_norm(t(3, 4, 5), t(3, 1, 1), 0)
    torch._weight_norm(t(3, 4, 5), t(1, 1, 5), 2)
    aten._weight_norm_interface(t(3, 4, 5), t(3, 1, 1), 0)
