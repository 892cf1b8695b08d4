"""Pruners that only look at the weights: one shot, no data, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ...criteria import geometric_median_distance, l1_norm, l2_norm
from ..config import Target
from ..sites import Key, Sites, block_rows, key_of
from ._pruner import Masks, Pruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class _WeightPruner(Pruner):
    looks = True


class L1NormPruner(_WeightPruner):
    """The blocks with the smallest sum of absolute weights go; default granularity ``out_channel``.

    Score of block b: ``sum |w|`` over its elements. Source: Li et al., "Pruning filters for efficient
    ConvNets" (ICLR 2017).

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> net[0].weight.data = torch.tensor([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0], [3.0, 3.0]])
        >>> pruner = L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}])
        >>> _, masks = pruner.compress()
        >>> masks["0"]["bias"]
        tensor([0., 1., 0., 1.])
    """

    def _measure(self, rows: Tensor) -> Tensor:
        return l1_norm(rows)


class L2NormPruner(_WeightPruner):
    """The blocks with the smallest Euclidean norm go; default granularity ``out_channel``.

    Score of block b: ``sqrt(sum w**2)``.
    """

    def _measure(self, rows: Tensor) -> Tensor:
        return l2_norm(rows)


class FPGMPruner(_WeightPruner):
    """The blocks nearest to all others go, since these can replace them; default granularity ``out_channel``.

    Score of block b: ``sum over all blocks c of the target ||w_b - w_c||``. Source: He et al., "Filter
    pruning via geometric median for deep convolutional neural networks acceleration" (CVPR 2019).

    Raises:
        PruningError: for a granularity of single elements, which have no distance to speak of.
    """

    def _measure(self, rows: Tensor) -> Tensor:
        return geometric_median_distance(rows)

    def _check(self) -> None:
        for target in self.resolved.targets:
            rank = len(target.shape or ())
            if target.settings.active and rank > 1 and max(target.blocks()) == 1:
                raise PruningError(
                    f"{target.path}: FPGMPruner compares whole filters and has no use for single elements; "
                    "give a granularity such as 'out_channel', or take LevelPruner"
                )


class LevelPruner(_WeightPruner):
    """The elements with the smallest absolute value go; default granularity: single elements.

    Score of an element: ``|w|``; of a block, if a granularity is given, ``sum |w|``. Source: Han et al.,
    "Learning both weights and connections for efficient neural networks" (NIPS 2015).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: not needed.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`; ``"balance"`` prunes the same share inside of every tile.
        dummy_input: see :class:`Pruner`.
        balance_gran: size of a tile, for the last dimensions; the dimensions before them have tiles of
            size 1. Fine-grained sparsity as hardware wants it: Cao et al., "Efficient and effective sparse
            LSTM on FPGA with bank-balanced sparsity" (FPGA 2019).

    Raises:
        PruningError: for tiles that do not divide a target.
    """

    granularity = "element"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
        balance_gran: Sequence[int] | None = None,
    ) -> None:
        if (mode == "balance") != (balance_gran is not None):
            raise PruningError("mode='balance' and balance_gran=[...] belong together")
        self._tile = balance_gran
        mode = "normal" if mode == "balance" else mode
        super().__init__(model, config_list, evaluator, existed_wrappers, mode=mode, dummy_input=dummy_input)

    def _measure(self, rows: Tensor) -> Tensor:
        # Sums over rows of one element each would take most of the time.
        return rows.abs().flatten() if rows.shape[1] == 1 else l1_norm(rows)

    def _check(self) -> None:
        for target in self.resolved.targets:
            if self._tile is not None and target.settings.active and target.shape is not None:
                self._tiles(target, target.shape)

    def generate_masks(self) -> Masks:
        """See :meth:`Pruner.generate_masks`."""
        if self._tile is None:
            return super().generate_masks()
        keeps: dict[Key, Tensor] = {}
        with torch.no_grad():
            for target in self.resolved.targets:
                if target.settings.sparse_ratio is not None:
                    keeps[key_of(target)] = self._balanced(target)
                    self.sites[target].write(keeps[key_of(target)])
            self._align(keeps)
        self._made = True
        return self.get_masks()

    def _balanced(self, target: Target) -> Tensor:
        """The mask of a target with the same share in every tile."""
        value = self.value(target)
        tiles = self._tiles(target, tuple(value.shape))
        rows = block_rows(value.abs(), tiles)
        gone = int(rows.shape[1] * (target.settings.sparse_ratio or 0.0) + 1e-9)
        places = block_rows(torch.arange(value.numel(), device=value.device).reshape(value.shape), tiles)
        lowest = places.gather(1, torch.argsort(rows, dim=1, stable=True)[:, :gone])
        keep = torch.ones(value.numel(), dtype=torch.bool, device=value.device)
        keep[lowest.flatten()] = False
        return keep.reshape(value.shape)

    def _tiles(self, target: Target, shape: tuple[int, ...]) -> tuple[int, ...]:
        tile = tuple(self._tile or ())
        tiles = (*[1] * (len(shape) - len(tile)), *tile[-len(shape) :])
        if len(tile) > len(shape) or any(size % t for size, t in zip(shape, tiles, strict=True)):
            raise PruningError(
                f"{target.module}.{target.name}: tiles {tiles} do not divide its shape {shape}"
            )
        return tiles
