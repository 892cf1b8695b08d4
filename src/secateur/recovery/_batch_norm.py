"""BatchNorm layers whose statistics are estimated anew on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from ..axes import Analysis, BatchNorm, batch_norm_of
from ._report import Stage
from ._stops import Operands, Scene, Stop


def find_batch_norms(analysis: Analysis) -> Iterator[BatchNorm]:
    """All that use running statistics, in the order that they run."""
    for node in analysis.graph.nodes:
        norm = batch_norm_of(analysis, node)
        if norm is not None:
            yield norm


def batch_sums(x: torch.Tensor) -> torch.Tensor:
    """Number of positions, sums and sums of squares of every channel, in a row of float64."""
    rows = x.detach().movedim(1, 0).flatten(1).float()
    count = rows.new_full((1,), rows.shape[1])
    return torch.cat([count, rows.sum(1), rows.square().sum(1)]).cpu().double()


def _mean_and_variance(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total, square = (sums[1:] / sums[0]).chunk(2)
    return total, (square - total.square()).clamp_min(0)


class StatisticsStop(Stop):
    """A BatchNorm's statistics move as far as those of its input have moved by the cut.

    Both are taken on the same samples, before and after. So samples that are unlike those of the
    training do not put their own statistics in the place of what was learned.

    Args:
        scene: the small model.
        norm: the layer.
        batches: how many runs meet there.
        original: sums of the original's inputs there, for the channels that stay, by batch.
    """

    def __init__(
        self, scene: Scene, norm: BatchNorm, batches: int, original: Mapping[int, torch.Tensor]
    ) -> None:
        super().__init__(scene, norm.node.index, batches)
        self._norm, self._original = norm, original
        self._before = torch.zeros(0, dtype=torch.float64)
        self._sums = torch.zeros(0, dtype=torch.float64)  # count, sums, sums of squares
        self._running: tuple[torch.Tensor, torch.Tensor] | None = None

    def take(self, operands: Operands) -> None:
        """Add one batch."""
        self._running = operands[self._norm.mean.id], operands[self._norm.variance.id]
        now, before = batch_sums(operands[self._norm.activation]), self._original[self.scene.batch]
        self._sums = self._sums + now if len(self._sums) else now
        self._before = self._before + before if len(self._before) else before

    def finish(self) -> Stage | None:
        """Write the statistics."""
        if self._running is None:
            return None
        self.scene.sum(self._sums, self._before)
        (mean, variance), (old_mean, old_variance) = map(_mean_and_variance, (self._sums, self._before))
        self.scene.add(self._running[0], mean - old_mean)
        ratio = torch.where(old_variance > 0, variance / old_variance, 1.0)
        self.scene.write(self._running[1], self._running[1].detach().cpu().double() * ratio)
        return Stage(self._norm.node.module, "statistics", rows=int(self._sums[0]))
