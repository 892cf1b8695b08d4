"""Observers: which range a target gets, from the values that were seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver

from ..._errors import QuantizationError, nearest
from ..config import QuantizationSettings
from ..sites import block_counts, block_rows
from ._grid import block_range, scale_and_zero

PERCENTILE = 99.99
"""Share of the values inside of the range of :class:`Percentile`, in percent."""
_SHRINKS = tuple(0.95**power for power in range(90))
"""Ranges that :func:`smallest_error` tries: from all of what was seen down to a hundredth of it."""

Range = tuple[Tensor, Tensor]
"""The least and largest value that the grid reaches, shaped like its scales."""


class Observer(ABC):
    """Collects values of one target.

    Args:
        settings: of the target.
    """

    several = False
    """Whether it can give several scales to a target."""

    def __init__(self, settings: QuantizationSettings) -> None:
        self.settings = settings

    @abstractmethod
    def add(self, value: Tensor, blocks: Sequence[int]) -> None:
        """Take in a value, of which each block has a scale."""

    @abstractmethod
    def range(self) -> Range | None:
        """The range, None if nothing was seen."""


class MinMax(Observer):
    """The least and the largest of all values."""

    several = True
    _seen: Range | None = None

    def add(self, value: Tensor, blocks: Sequence[int]) -> None:
        """See :meth:`Observer.add`."""
        least, most = block_range(value, blocks)
        if self._seen is not None:
            least, most = torch.minimum(self._seen[0], least), torch.maximum(self._seen[1], most)
        self._seen = least, most

    def range(self) -> Range | None:
        """See :meth:`Observer.range`."""
        return self._seen


class _Counting(Observer):
    """Counts values in a histogram, that of torch, which widens itself."""

    def __init__(self, settings: QuantizationSettings) -> None:
        super().__init__(settings)
        low, high = settings.limits
        symmetric = settings.quant_scheme == "symmetric"
        self._histogram = HistogramObserver(
            dtype=torch.qint32,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
            quant_min=low,
            quant_max=high,
        )
        self._any = False

    def add(self, value: Tensor, blocks: Sequence[int]) -> None:
        """See :meth:`Observer.add`."""
        self._any = True
        self._histogram.to(value.device)(value.detach().float())

    def range(self) -> Range | None:
        """See :meth:`Observer.range`."""
        return self._range() if self._any else None

    def _range(self) -> Range:
        raise NotImplementedError

    @property
    def _counts(self) -> tuple[Tensor, Tensor]:
        """Middles of the bins, and how many values are in each."""
        counts = self._histogram.histogram
        least, most = self._histogram.min_val, self._histogram.max_val
        width = (most - least) / counts.numel()
        return least + width * (torch.arange(counts.numel(), device=counts.device) + 0.5), counts


class Histogram(_Counting):
    """The range that torch's ``HistogramObserver`` finds: least squared error over its histogram."""

    def _range(self) -> Range:
        scale, zero_point = self._histogram.calculate_qparams()
        low, high = self.settings.limits
        return ((low - zero_point) * scale).reshape(()), ((high - zero_point) * scale).reshape(())


class Percentile(_Counting):
    """The range that 99.99 % of all values are in, with equally many below it and above it."""

    def _range(self) -> Range:
        middles, counts = self._counts
        share = counts.cumsum(0) / counts.sum()
        out = (1 - PERCENTILE / 100) / 2
        least = middles[int((share < out).sum())]
        return least, middles[min(int((share < 1 - out).sum()), counts.numel() - 1)]


class SquaredError(_Counting):
    """The range with the least squared error, of all that was seen shrunk towards zero."""

    def _range(self) -> Range:
        middles, counts = self._counts
        least, most = smallest_error(middles[None], counts[None], self.settings)
        return least.reshape(()), most.reshape(())


OBSERVERS: dict[str, type[Observer]] = {
    "minmax": MinMax,
    "histogram": Histogram,
    "percentile": Percentile,
    "mse": SquaredError,
}


def observer_of(name: str, known: Sequence[str] = tuple(OBSERVERS)) -> type[Observer]:
    """The observer of that name.

    Raises:
        QuantizationError: if there is none.
    """
    if name not in known:
        raise QuantizationError(
            f"an observer is one of {', '.join(known)}, got {name!r}{nearest(name, known)}"
        )
    return OBSERVERS[name]


def smallest_error(rows: Tensor, weights: Tensor | None, settings: QuantizationSettings) -> Range:
    """For every row the range, of all of it shrunk by one factor, with the least squared error.

    Args:
        rows: values, of shape ``(blocks, values)``.
        weights: how often each value counts, of the same shape; None for once.
        settings: the integers and their scheme.

    Returns:
        Least and largest value of each range, of shape ``(blocks,)``.
    """
    low, high = settings.limits
    least, most = torch.aminmax(rows, dim=1)
    best, found = torch.full_like(least, torch.inf), (least, most)
    for share in _SHRINKS:
        scale, zero_point = scale_and_zero(least * share, most * share, settings)
        steps = (rows / scale[:, None]).round() + zero_point[:, None]
        error = ((steps.clamp(low, high) - zero_point[:, None]) * scale[:, None] - rows).square()
        error = (error if weights is None else error * weights).sum(1)
        better = error < best
        best = torch.where(better, error, best)
        found = (
            torch.where(better, least * share, found[0]),
            torch.where(better, most * share, found[1]),
        )
    return found


def weight_range(
    value: Tensor, blocks: Sequence[int], observer: str, settings: QuantizationSettings
) -> Range:
    """The range of a weight, all of whose values are there: ``minmax`` or ``mse``."""
    if observer == "minmax":
        return block_range(value, blocks)
    counts = block_counts(value.shape, blocks)
    shape = () if all(size == 1 for size in counts) else counts
    least, most = smallest_error(block_rows(value.detach().float(), blocks), None, settings)
    return least.reshape(shape), most.reshape(shape)
