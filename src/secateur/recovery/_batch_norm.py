"""BatchNorm layers whose statistics are estimated anew on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..axes import Analysis
from ._report import Stage
from ._stops import Operands, Scene, Stop

_BATCH_NORM = torch.ops.aten.batch_norm


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNorm in a graph: its module, its node, and the ids of its operands."""

    layer: str
    node: int
    activation: int
    mean: int
    variance: int


def find_batch_norms(analysis: Analysis) -> Iterator[BatchNorm]:
    """All that use running statistics, in the order that they run."""
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        if operator is None or getattr(node.op, "overloadpacket", None) is not _BATCH_NORM:
            continue
        given = operator.arguments
        mean, variance = given.get("running_mean"), given.get("running_var")
        if mean is not None and variance is not None:
            yield BatchNorm(node.module, node.index, given["input"].id, mean.id, variance.id)


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
        super().__init__(scene, norm.node, batches)
        self._norm, self._original = norm, original
        self._before = torch.zeros(0, dtype=torch.float64)
        self._sums = torch.zeros(0, dtype=torch.float64)  # count, sums, sums of squares
        self._running: tuple[torch.Tensor, torch.Tensor] | None = None

    def take(self, operands: Operands) -> None:
        """Add one batch."""
        self._running = operands[self._norm.mean], operands[self._norm.variance]
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
        return Stage(self._norm.layer, "statistics", rows=int(self._sums[0]))
