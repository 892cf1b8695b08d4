"""Units of pruning: a tensor as a grid of blocks of one shape, their norms, and the lowest of them.

A block has a size for every dimension of the tensor and tiles it: filters of a convolution are blocks
``(1, in, h, w)``, kernels ``(1, 1, h, w)``, single weights ``(1, 1, 1, 1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import prune as torch_prune

from ..._errors import DimensionError, MaskError

Block = tuple[int, ...]

Of = Literal["remaining", "original"]
"""What an amount is of.

``"remaining"``, as in torch: units that are not masked yet, so 0.5 twice leaves a quarter.
``"original"``: all units of the parameter, those that are masked already included: the amount is what is
masked after the call, so 0.5 twice leaves half. A call that asks for less than is masked changes nothing.
"""


def check_dims(shape: Sequence[int], dims: int | Sequence[int]) -> tuple[int, ...]:
    """Dimensions counted from the front, each once.

    Raises:
        DimensionError: for one that a tensor of this shape does not have, or one named twice.
    """
    wanted = (dims,) if isinstance(dims, int) else tuple(dims)
    for dim in wanted:
        if not -len(shape) <= dim < len(shape):
            raise DimensionError(
                f"there is no dimension {dim} in a parameter of shape {tuple(shape)}: "
                f"it has 0 to {len(shape) - 1}"
            )
    positive = tuple(dim % len(shape) for dim in wanted)
    if not positive or len(set(positive)) < len(positive):
        raise DimensionError(f"dim={dims!r} has to name one dimension or several different ones")
    return positive


def block_along(shape: Sequence[int], dims: int | Sequence[int]) -> Block:
    """The block of one position in each of ``dims`` and everything in the others.

    >>> block_along((16, 3, 5, 5), (0, 1))
    (1, 1, 5, 5)
    """
    along = check_dims(shape, dims)
    return tuple(1 if dim in along else size for dim, size in enumerate(shape))


def full_block(shape: Sequence[int], block: Sequence[int]) -> Block:
    """A block with a size for every dimension: -1 stands for all of it, missing ones in front are 1.

    >>> full_block((16, 8, 3, 3), (4, -1, -1))
    (1, 4, 3, 3)

    Raises:
        MaskError: if the blocks do not tile the shape.
    """
    sizes = (1,) * (len(shape) - len(block)) + tuple(block)
    if len(sizes) > len(shape):
        raise MaskError(f"block {tuple(block)} has more dimensions than the parameter, {tuple(shape)}")
    full = tuple(size if part == -1 else part for part, size in zip(sizes, shape, strict=True))
    if any(part < 1 or size % part for part, size in zip(full, shape, strict=True)):
        raise MaskError(f"blocks of {full} do not tile a parameter of shape {tuple(shape)}")
    return full


def in_blocks(t: Tensor, block: Block) -> Tensor:
    """The tensor as (grid ..., elements of a block in order)."""
    grid = [size // part for size, part in zip(t.shape, block, strict=True)]
    split = t.reshape([n for pair in zip(grid, block, strict=True) for n in pair])
    order = [*range(0, 2 * t.dim(), 2), *range(1, 2 * t.dim(), 2)]
    return split.permute(order).reshape([*grid, -1])


def from_grid(units: Tensor, block: Block) -> Tensor:
    """A value for each block, spread over its elements."""
    for dim, part in enumerate(block):
        if part > 1:
            units = units.repeat_interleave(part, dim)
    return units


def alive(mask: Tensor, block: Block) -> Tensor:
    """Blocks of which anything is left: a boolean for each block."""
    return (in_blocks(mask, block) != 0).any(-1)


def block_norms(t: Tensor, block: Block, n: Any) -> Tensor:
    """The norm of order ``n`` of every block.

    ``n`` is what ``torch.linalg.vector_norm`` takes, ``"fro"`` (2) or ``"nuc"``: the sum of singular values
    of the block as a matrix of its first dimension that is longer than 1 and all the others.
    """
    blocks = in_blocks(t, block)
    if n != "nuc":
        return torch.linalg.vector_norm(blocks, 2 if n == "fro" else n, dim=-1)
    rows = next((part for part in block if part > 1), 1)
    return torch.linalg.svdvals(blocks.reshape(*blocks.shape[:-1], rows, -1)).sum(-1)


def amount_left(amount: float, of: Of, left: Tensor | None = None) -> float:
    """The amount of what remains that is meant by an amount of ``of``.

    Args:
        amount: an integer says how many units, a float which share.
        of: ``"remaining"`` or ``"original"``.
        left: for each unit whether it is left; None if all are.

    Raises:
        ValueError: for another word, or more units than there are.
    """
    if of not in ("remaining", "original"):
        raise MaskError(f"of is 'remaining' or 'original', got {of!r}")
    if of == "remaining" or left is None:
        return amount
    wanted = torch_prune._compute_nparams_toprune(amount, left.numel())
    torch_prune._validate_pruning_amount(wanted, left.numel())
    return max(0, int(wanted) - int((~left).sum()))


def without_lowest(scores: Tensor, default_mask: Tensor, block: Block, amount: float) -> Tensor:
    """``default_mask`` with the lowest of the blocks that are left taken out.

    Args:
        scores: a score for each block.
        default_mask: the mask so far; blocks that are zero in it are not counted.
        block: shape of a block.
        amount: how many blocks, or which share of those that are left (rounded as ``round`` does).

    Raises:
        ValueError: if fewer blocks than that are left.
    """
    left = alive(default_mask, block)
    candidates = torch.nonzero(left.flatten()).flatten()
    count = torch_prune._compute_nparams_toprune(amount, len(candidates))
    torch_prune._validate_pruning_amount(count, len(candidates))
    lowest = scores.flatten()[candidates].topk(int(count), largest=False).indices
    keep = torch.ones(left.numel(), dtype=torch.bool, device=default_mask.device)
    keep[candidates[lowest]] = False
    return default_mask * from_grid(keep.view(left.shape), block).to(default_mask.dtype)
