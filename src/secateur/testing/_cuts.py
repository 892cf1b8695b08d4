"""Cuts to try on a call: which positions of which axes stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..axes import Dim, Leaf, Positions, kept, kept_size

TOLERANCE = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
}


@dataclass(frozen=True)
class Cut:
    """One thing to try: these positions of these axes stay."""

    keep: dict[Leaf, Positions]

    def slice(self, tensor: torch.Tensor, dims: Sequence[Dim]) -> torch.Tensor:
        """What remains of a tensor."""
        for position, dim in enumerate(dims):
            if (stays := kept(dim, self.keep)) is not None:
                tensor = tensor.index_select(position, torch.from_numpy(stays))
        return tensor

    def shape(self, dims: Sequence[Dim]) -> tuple[int, ...]:
        """What remains of a tensor's shape."""
        return tuple(kept_size(dim, self.keep) for dim in dims)

    def removed(self, dims: Sequence[Dim]) -> torch.Tensor:
        """Mask over a tensor of these dimensions: True where a label is taken off."""
        mask = torch.zeros([dim.size for dim in dims], dtype=torch.bool)
        for position, dim in enumerate(dims):
            if (stays := kept(dim, self.keep)) is not None:
                gone = torch.ones(dim.size, dtype=torch.bool)
                gone[torch.from_numpy(stays)] = False
                mask |= gone.view(-1, *(1 for _ in dims[position + 1 :]))
        return mask

    def __str__(self) -> str:
        return ", ".join(f"keeping {stays.tolist()} of {axis.size}" for axis, stays in self.keep.items())


def half(axis: Leaf) -> Positions:
    """About half of the positions, in no pattern."""
    stays = np.random.default_rng(axis.size).permutation(axis.size)[: max(1, axis.size // 2)]
    return np.sort(stays)


def parts(axis: Leaf) -> Iterator[Positions]:
    """Parts of an axis to keep: without one label, at each end and inside; half of them."""
    for label in sorted({0, axis.size // 2, axis.size - 1}):
        yield np.delete(np.arange(axis.size), label)
    yield half(axis)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two results agree as far as their type lets them."""
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    tolerance = TOLERANCE.get(a.dtype, 2e-2)
    size = a.abs().nan_to_num(posinf=0).max().item() if a.numel() else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)
