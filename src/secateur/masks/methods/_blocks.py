"""Methods that torch does not have: blocks, N of M, a user's own scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..._errors import MaskError
from ._base import BasePruningMethod
from ._units import Block, block_along, block_norms, check_dims, full_block, in_blocks, without_lowest


class LnBlocks(BasePruningMethod):
    """Whole blocks of the lowest norm.

    Args:
        amount: how many of the blocks that are left, or which share of them.
        n: order of the norm: a number, ``inf``, ``-inf``, ``"fro"`` or ``"nuc"``.
        block: the shape of a block, which has to tile the parameter: ``(4, 4)`` are tiles of the last two
            dimensions, -1 stands for all of a dimension.
    """

    # torch's word for: sees the whole tensor, and respects the mask so far by itself.
    PRUNING_TYPE = "global"

    def __init__(self, amount: float, n: Any, block: Sequence[int]) -> None:
        self.amount = amount
        self.n = n
        self.block = tuple(block)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far with blocks taken out; of the shape of ``t``."""
        block = full_block(t.shape, self.block)
        return without_lowest(block_norms(t, block, self.n), default_mask, block, self.amount)


class NOfM(BasePruningMethod):
    """Of every ``m`` consecutive entries along a dimension the ``n`` largest stay.

    With 2 of 4 along the dimension that is summed over (1 for linear and convolution weights) this is
    the pattern of sparse tensor cores (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).
    Entries that are masked already count among those that go.

    Args:
        n: how many stay.
        m: of how many; has to divide the dimension.
        dim: the dimension along which entries are consecutive.
    """

    PRUNING_TYPE = "global"

    def __init__(self, n: int = 2, m: int = 4, dim: int = 1) -> None:
        if not 0 < n < m:
            raise MaskError(f"n of m keeps n={n} of m={m} entries: it takes 0 < n < m")
        self.n, self.m, self.dim = n, m, dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far with the smallest of every ``m`` taken out; of the shape of ``t``."""
        (dim,) = check_dims(t.shape, self.dim)
        if t.shape[dim] % self.m:
            raise MaskError(
                f"dimension {dim} of a parameter of shape {tuple(t.shape)} is no multiple of m={self.m}"
            )
        # Masked entries go first; -1 is below every magnitude.
        size = torch.where(default_mask != 0, t.abs().double(), -1.0).movedim(dim, -1)
        largest = size.unflatten(-1, (-1, self.m)).topk(self.n, dim=-1).indices
        keep = torch.zeros(*size.shape[:-1], size.shape[-1] // self.m, self.m, device=t.device)
        keep = keep.scatter(-1, largest, 1.0).flatten(-2).movedim(-1, dim)
        return default_mask * keep.to(default_mask.dtype)


class Scored(BasePruningMethod):
    """Units of the lowest score, whatever the score is.

    Args:
        amount: how many of the units that are left, or which share of them.
        scores: one for each unit. Its shape says what a unit is: of the parameter's shape it scores single
            entries, ``(out, 1, 1, 1)`` the filters of a convolution, ``(out, in, 1, 1)`` its kernels; in one
            dimension it scores positions of dimension 0.
    """

    PRUNING_TYPE = "global"

    def __init__(self, amount: float, scores: Tensor) -> None:
        self.amount = amount
        self.scores = scores.detach()

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far with units taken out; of the shape of ``t``."""
        block = block_of_scores(t.shape, self.scores)
        return without_lowest(self.scores.to(t.device), default_mask, block, self.amount)


def block_of_scores(shape: Sequence[int], scores: Tensor) -> Block:
    """The block that each of ``scores`` is of.

    Raises:
        MaskError: if the shapes do not go together, or for a score that is NaN.
    """
    if bool(scores.isnan().any()):
        raise MaskError(f"the scores (shape {tuple(scores.shape)}) contain NaN")
    if scores.dim() == 1 and len(scores) == shape[0]:
        return block_along(shape, 0)
    pairs = list(zip(shape, scores.shape, strict=False))
    if scores.dim() != len(shape) or any(size % n for size, n in pairs):
        raise MaskError(
            f"scores of shape {tuple(scores.shape)} do not fit a parameter of shape {tuple(shape)}: every "
            "dimension of it has to be a multiple of that of the scores"
        )
    return tuple(size // n for size, n in pairs)


def mean_magnitudes(t: Tensor, block: Block, n: Any) -> Tensor:
    """Norms of blocks per element: comparable between blocks of different sizes.

    For a number n it is the power mean ``(mean |w|^n)^(1/n)``: the norm divided by ``size^(1/n)``.
    """
    norms = block_norms(t, block, n)
    order = {"fro": 2.0, "nuc": 1.0}[n] if isinstance(n, str) else float(n)
    size = in_blocks(t, block).shape[-1]
    return norms if order in (float("inf"), float("-inf"), 0) else norms / size ** (1 / order)
