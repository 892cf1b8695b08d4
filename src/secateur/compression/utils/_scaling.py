"""Shrinking tensors to one value a block, and back: NNI's ``Scaling``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from ..._errors import PruningError
from ..sites import block_counts, block_rows, spread


class Scaling:
    """A kernel that tiles tensors of any shape.

    Args:
        kernel_size: size of a block in each dimension; -1 for all of a dimension.
        kernel_padding_mode: where sizes are added for tensors with more dimensions, ``"front"`` or
            ``"back"``; None to refuse them.
        kernel_padding_val: what is added, 1 or -1; 1 by default in front, -1 at the back.

    Example:
        >>> import torch
        >>> rows = Scaling([1], "back", -1)
        >>> rows.shrink(torch.tensor([[1.0, 3.0], [2.0, 6.0]]))
        tensor([2., 4.])
        >>> rows.expand(torch.tensor([1.0, 0.0]), [2, 3])
        tensor([[1., 1., 1.],
                [0., 0., 0.]])
    """

    def __init__(
        self,
        kernel_size: Sequence[int],
        kernel_padding_mode: Literal["front", "back"] | None = None,
        kernel_padding_val: int | None = None,
    ) -> None:
        if kernel_padding_mode not in (None, "front", "back"):
            raise PruningError(f"kernel_padding_mode is 'front', 'back' or None, got {kernel_padding_mode!r}")
        self.kernel_size = list(kernel_size)
        self.kernel_padding_mode = kernel_padding_mode
        default = 1 if kernel_padding_mode == "front" else -1
        self.kernel_padding_val = default if kernel_padding_val is None else kernel_padding_val

    def shrink(
        self, target: Tensor, reducer: Callable[[Tensor], Tensor] | None = None, keepdim: bool = False
    ) -> Tensor:
        """One value a block.

        Args:
            target: the tensor.
            reducer: from ``(..., elements of a block)`` to ``(...)``; the mean by default.
            keepdim: keep dimensions of size 1 where the kernel is all of a dimension.

        Raises:
            PruningError: if the kernel does not tile the tensor.
        """
        blocks = self._blocks(target.shape)
        rows = block_rows(target, blocks)
        values = rows.mean(-1) if reducer is None else reducer(rows)
        counts = block_counts(target.shape, blocks)
        return values.reshape(counts if keepdim else self._narrow(counts))

    def expand(
        self, target: Tensor, expand_size: Sequence[int], keepdim: bool = False, full_expand: bool = True
    ) -> Tensor:
        """What :meth:`shrink` made, stretched to the whole tensor again.

        Args:
            target: one value a block.
            expand_size: shape of the whole.
            keepdim: whether ``target`` has dimensions of size 1 where the kernel is all of a dimension.
            full_expand: False to leave these dimensions at size 1.

        Raises:
            PruningError: if the kernel does not tile the whole, or ``target`` has another number of values.
        """
        size = tuple(expand_size)
        blocks = self._blocks(size)
        counts = block_counts(size, blocks)
        if tuple(target.shape) != (counts if keepdim else self._narrow(counts)):
            raise PruningError(
                f"{size} has {counts} blocks of {blocks}, got values of shape {tuple(target.shape)}"
            )
        if not full_expand:
            kernel = self._padded(len(size))
            size = tuple(1 if k == -1 else s for k, s in zip(kernel, size, strict=True))
            blocks = tuple(min(b, s) for b, s in zip(blocks, size, strict=True))
        return spread(target, size, blocks).clone()

    def _narrow(self, counts: Sequence[int]) -> tuple[int, ...]:
        kernel = self._padded(len(counts))
        return tuple(count for count, k in zip(counts, kernel, strict=True) if k != -1)

    def _padded(self, rank: int) -> list[int]:
        missing = rank - len(self.kernel_size)
        if missing < 0 or (missing and self.kernel_padding_mode is None):
            raise PruningError(f"a kernel of {len(self.kernel_size)} sizes does not fit {rank} dimensions")
        padding = [self.kernel_padding_val] * missing
        return (
            padding + self.kernel_size if self.kernel_padding_mode == "front" else self.kernel_size + padding
        )

    def _blocks(self, shape: Sequence[int]) -> tuple[int, ...]:
        kernel = self._padded(len(shape))
        blocks = tuple(size if k == -1 else k for k, size in zip(kernel, shape, strict=True))
        if any(block < 1 or size % block for block, size in zip(blocks, shape, strict=True)):
            raise PruningError(f"blocks of {blocks} do not tile a tensor of shape {tuple(shape)}")
        return blocks
