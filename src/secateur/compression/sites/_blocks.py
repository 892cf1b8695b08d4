"""Blocks: a tensor cut into equal boxes, each of which has one score and one place in a mask.

The size of a block is given for every dimension. A ``(16, 3, 3, 3)`` weight in blocks of ``(1, 3, 3, 3)`` has
16 of them, its output channels; in blocks of ``(1, 1, 1, 1)`` one an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor


def block_counts(shape: Sequence[int], blocks: Sequence[int]) -> tuple[int, ...]:
    """How many blocks there are along each dimension.

    >>> block_counts((16, 3, 3, 3), (4, 3, 3, 3))
    (4, 1, 1, 1)
    """
    return tuple(size // block for size, block in zip(shape, blocks, strict=True))


def block_rows(tensor: Tensor, blocks: Sequence[int]) -> Tensor:
    """The elements of every block in a row, of shape ``(number of blocks, elements of a block)``.

    >>> import torch
    >>> block_rows(torch.arange(8).reshape(2, 4), (1, 2))
    tensor([[0, 1],
            [2, 3],
            [4, 5],
            [6, 7]])
    """
    counts = block_counts(tensor.shape, blocks)
    interleaved = [size for pair in zip(counts, blocks, strict=True) for size in pair]
    dims = range(0, 2 * tensor.dim(), 2)
    boxes = tensor.reshape(interleaved).permute(*dims, *(dim + 1 for dim in dims))
    return boxes.reshape(prod(counts), prod(blocks))


def spread(values: Tensor, shape: Sequence[int], blocks: Sequence[int]) -> Tensor:
    """One value a block, in order, stretched over the tensor: a view where blocks are whole dimensions.

    >>> import torch
    >>> spread(torch.tensor([1, 0]), (4, 3), (2, 3))[:, 0]
    tensor([1, 1, 0, 0])
    """
    stretched = values.reshape(block_counts(shape, blocks))
    for dim, (size, block) in enumerate(zip(shape, blocks, strict=True)):
        if 1 < block < size:
            stretched = stretched.repeat_interleave(block, dim)
    return stretched.expand(tuple(shape))
