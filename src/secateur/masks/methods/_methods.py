"""The methods of ``torch.nn.utils.prune``, made safe; structured ones take several dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import prune as torch_prune

from ..._errors import MaskError
from ._base import BasePruningMethod
from ._units import block_along, block_norms, check_dims, without_lowest


class Identity(torch_prune.Identity, BasePruningMethod):
    """No pruning: a mask of ones. It makes a module ready for a checkpoint that has masks."""


class RandomUnstructured(torch_prune.RandomUnstructured, BasePruningMethod):
    """Single entries at random (from torch's generator for the device of the parameter).

    Args:
        amount: how many of the entries that are left, or which share of them.
    """


class L1Unstructured(torch_prune.L1Unstructured, BasePruningMethod):
    """Single entries of the lowest magnitude.

    Args:
        amount: how many of the entries that are left, or which share of them.
    """


class RandomStructured(torch_prune.RandomStructured, BasePruningMethod):
    """Whole channels at random (from torch's generator for the CPU).

    Args:
        amount: how many of the channels that are left, or which share of them.
        dim: the dimension that has the channels, or several: ``(0, 1)`` prunes the kernels of a convolution.
    """

    def __init__(self, amount: float, dim: int | Sequence[int] = -1) -> None:
        super().__init__(amount, cast(Any, dim))
        _set_type(self)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far with channels taken out; of the shape of ``t``."""
        block = block_along(t.shape, self.dim)
        if self.PRUNING_TYPE == "structured":
            return super().compute_mask(t, default_mask)
        grid = [size // part for size, part in zip(t.shape, block, strict=True)]
        return without_lowest(torch.rand(grid).to(t.device), default_mask, block, self.amount)


class LnStructured(torch_prune.LnStructured, BasePruningMethod):
    """Whole channels of the lowest norm.

    Args:
        amount: how many of the channels that are left, or which share of them.
        n: order of the norm: a number, ``inf``, ``-inf``, ``"fro"`` or ``"nuc"``.
        dim: the dimension that has the channels, or several: ``(0, 1)`` prunes the kernels of a convolution.
    """

    def __init__(self, amount: float, n: Any, dim: int | Sequence[int] = -1) -> None:
        super().__init__(amount, n, cast(Any, dim))
        _set_type(self)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far with channels taken out; of the shape of ``t``."""
        check_dims(t.shape, self.dim)
        if self.PRUNING_TYPE == "structured" and self.n != "nuc":
            return super().compute_mask(t, default_mask)
        torch_prune._validate_structured_pruning(t)
        block = block_along(t.shape, self.dim)
        return without_lowest(block_norms(t, block, self.n), default_mask, block, self.amount)


class CustomFromMask(torch_prune.CustomFromMask, BasePruningMethod):
    """A mask that was made elsewhere.

    Args:
        mask: of the parameter's shape; zeros and ones, or booleans.

    Raises:
        MaskError: for other values, which would scale the parameter.
    """

    def __init__(self, mask: Tensor) -> None:
        if bool(((mask != 0) & (mask != 1)).any()):
            other = mask[(mask != 0) & (mask != 1)].flatten()[0].item()
            raise MaskError(f"the mask (shape {tuple(mask.shape)}) contains {other}; it has to be 0 or 1")
        super().__init__(mask)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Any:
        """The mask so far, and this one."""
        if self.mask.shape != default_mask.shape:
            raise MaskError(
                f"the mask has shape {tuple(self.mask.shape)} and the parameter {tuple(default_mask.shape)}; "
                "they have to be the same"
            )
        return default_mask * self.mask.to(default_mask)


def _set_type(method: RandomStructured | LnStructured) -> None:
    """torch's container cuts one dimension down to the channels left: several go through it whole."""
    if not isinstance(method.dim, int):
        vars(method).update(dim=tuple(method.dim), PRUNING_TYPE="global")
