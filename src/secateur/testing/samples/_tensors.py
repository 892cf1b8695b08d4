"""Tensors for samples: random, the same in every run, and made outside of what is recorded."""

from __future__ import annotations

import numpy as np
import torch

_RANDOM = np.random.default_rng(0)


def t(*shape: int) -> torch.Tensor:
    """Random float64 values of both signs."""
    return torch.from_numpy(np.asarray(_RANDOM.standard_normal(shape)))


def positive(*shape: int) -> torch.Tensor:
    """Random float64 values between 0.1 and 0.9."""
    return torch.from_numpy(np.asarray(_RANDOM.uniform(0.1, 0.9, shape)))


def z(*shape: int) -> torch.Tensor:
    """Random complex128 values."""
    parts = (_RANDOM.standard_normal(shape) for _ in range(2))
    return torch.from_numpy(np.asarray(next(parts) + 1j * next(parts)))


def ints(high: int, *shape: int) -> torch.Tensor:
    """Random integers below ``high``, as many different ones as there can be."""
    count = int(np.prod(shape))
    values = np.concatenate([_RANDOM.permutation(high) for _ in range(count // high + 1)])[:count]
    return torch.from_numpy(values.reshape(shape))


def mask(*shape: int) -> torch.Tensor:
    """Random booleans, half of them True."""
    return torch.from_numpy(ints(2, *shape).numpy() == 1)
