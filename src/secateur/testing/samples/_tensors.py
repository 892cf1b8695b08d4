"""Tensors for samples: random, the same in every run, and made outside of what is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

_RANDOM = np.random.default_rng(0)


def _tensor(values: Any) -> torch.Tensor:
    with _disable_current_modes():
        return torch.from_numpy(np.asarray(values))


def t(*shape: int) -> torch.Tensor:
    """Random float64 values of both signs."""
    return _tensor(_RANDOM.standard_normal(shape))


def positive(*shape: int) -> torch.Tensor:
    """Random float64 values between 0.1 and 0.9."""
    return _tensor(_RANDOM.uniform(0.1, 0.9, shape))


def z(*shape: int) -> torch.Tensor:
    """Random complex128 values."""
    parts = (_RANDOM.standard_normal(shape) for _ in range(2))
    return _tensor(next(parts) + 1j * next(parts))


def ints(high: int, *shape: int) -> torch.Tensor:
    """Random integers below ``high``, as many different ones as there can be."""
    count = int(np.prod(shape))
    values = np.concatenate([_RANDOM.permutation(high) for _ in range(count // high + 1)])[:count]
    return _tensor(values.reshape(shape))


def mask(*shape: int) -> torch.Tensor:
    """Random booleans, half of them True."""
    return _tensor(ints(2, *shape).numpy() == 1)
