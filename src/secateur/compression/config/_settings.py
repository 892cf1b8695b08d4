"""The settings of one target, resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ._granularity import Block, Granularity


@dataclass(frozen=True)
class Align:
    """The mask that a target follows.

    Attributes:
        module_name: path of the module whose mask it is.
        target_name: its target, in normal form.
        dims: the dimensions of that mask that are followed.
        block: the block that is looked at as one, where ``dims`` alone do not say it (the output channels of
            a grouped transposed convolution).
    """

    module_name: str
    target_name: str
    dims: tuple[int, ...]
    block: Block | None = None

    def blocks(self, shape: Sequence[int]) -> Block:
        """The blocks of the source, of that shape, of which each decides over one position of the target.

        A position is kept where anything of its block is kept.

        >>> Align("conv", "weight", (0,)).blocks((16, 3, 5, 5))
        (1, 3, 5, 5)
        """
        if self.block is not None:
            return self.block
        dims = {dim % len(shape) for dim in self.dims}
        return tuple(1 if dim in dims else size for dim, size in enumerate(shape))


@dataclass(frozen=True)
class PruningSettings:
    """How one target is pruned; the meaning of each key is in the table of :mod:`._keys`.

    Attributes:
        sparse_ratio: share of blocks to mask; of all elements of the group in a global group.
        sparse_threshold: metric below which a block is masked.
        min_sparse_ratio: least share, also with a threshold or in a global group.
        max_sparse_ratio: largest share, likewise.
        granularity: what a block is.
        global_group_id: targets that share one ratio.
        dependency_group_id: targets masked at the same positions; ``"auto"`` until groups are known.
        internal_metric_block: number of equal blocks in each of which the ratio holds.
        align: the mask that is followed.
        apply_method: ``mul`` multiplies, ``add`` adds a large negative number to what is masked, ``bypass``
            leaves the values alone.
        rho: weight of ADMM's penalty.
    """

    sparse_ratio: float | None = None
    sparse_threshold: float | None = None
    min_sparse_ratio: float = 0.0
    max_sparse_ratio: float = 1.0
    granularity: Granularity = field(default_factory=lambda: Granularity("out_channel"))
    global_group_id: int | str | None = None
    dependency_group_id: int | str | None = None
    internal_metric_block: int = 1
    align: Align | None = None
    apply_method: Literal["mul", "add", "bypass"] = "mul"
    rho: float = 1e-4

    @property
    def active(self) -> bool:
        """Whether the target gets a mask from its own metric."""
        return self.sparse_ratio is not None or self.sparse_threshold is not None
