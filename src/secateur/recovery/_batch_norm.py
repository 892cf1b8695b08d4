"""BatchNorm layers whose statistics are estimated anew on the way."""

from __future__ import annotations

from collections.abc import Iterator
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


class StatisticsStop(Stop):
    """Mean and variance of what a BatchNorm gets from the small model become its own."""

    def __init__(self, scene: Scene, norm: BatchNorm, batches: int) -> None:
        super().__init__(scene, norm.node, batches)
        self._norm = norm
        self._sums = torch.zeros(0, dtype=torch.float64)  # count, sums, sums of squares
        self._running: tuple[torch.Tensor, torch.Tensor] | None = None

    def take(self, operands: Operands) -> None:
        """Add one batch."""
        x = operands[self._norm.activation].detach()
        self._running = operands[self._norm.mean], operands[self._norm.variance]
        rows = x.movedim(1, 0).flatten(1).float()
        count = rows.new_full((1,), rows.shape[1])
        new = torch.cat([count, rows.sum(1), rows.square().sum(1)]).double()
        self._sums = self._sums + new if len(self._sums) else new

    def finish(self) -> Stage | None:
        """Write the statistics."""
        if self._running is None:
            return None
        self.scene.sum(self._sums)
        count, size = self._sums[0], len(self._running[0])
        mean = self._sums[1 : 1 + size] / count
        variance = (self._sums[1 + size :] / count - mean.square()).clamp_min(0)
        self.scene.write(self._running[0], mean)
        self.scene.write(self._running[1], variance * count / (count - 1).clamp_min(1))
        return Stage(self._norm.layer, "statistics", rows=int(count))
