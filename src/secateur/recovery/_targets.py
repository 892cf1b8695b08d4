"""What the original model put out at the places that the small model is to reproduce."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..axes import Analysis, BatchNorm, Keep, kept
from ..capture import Detail, Visit, Watch, owned_tensors
from ._batch_norm import batch_sums, find_batch_norms
from ._readers import Candidate, find_candidates
from ._schedule import FEWEST, Schedule, plan_schedule, sampled_positions
from ._surroundings import Readers, Surroundings

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Targets:
    """For each reader and batch: the original's results at sampled positions.

    Attributes:
        candidates: what reads a pruned axis in the original.
        schedule: which batches and how many rows, by the index of a candidate's node.
        wanted: (groups, rows, outputs) in the small model's arrangement, by node and batch.
        streams: (rows, outputs) of what the results are added to, likewise, where that is known.
        scales: by which a result is multiplied before, by node.
        statistics: sums of what a BatchNorm got, by node and batch.
        counts: positions that the original worked on, by node and batch.
        batch: number of the batch that is at work.
    """

    candidates: list[Candidate]
    skipped: dict[str, str]
    schedule: Schedule
    wanted: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    streams: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    scales: dict[int, torch.Tensor] = field(default_factory=dict)
    statistics: dict[int, dict[int, torch.Tensor]] = field(default_factory=dict)
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    batch: int = 0

    def positions(self, node: int, batch: int) -> torch.Tensor:
        """The sampled positions: the same whenever they are asked for."""
        return sampled_positions(self.counts[node, batch], self.schedule.rows[node], (node, batch))


def collect_targets(
    model: nn.Module,
    analysis: Analysis,
    detail: Detail,
    keep: Keep,
    batches: Sequence[Inputs],
    *,
    memory: int,
    per_feature: int,
    share: float,
    ended: Callable[[int, Any], None],
) -> Targets:
    """One run of the original over all batches.

    Args:
        model: the original.
        analysis: of the original.
        detail: how finely it was recorded.
        keep: positions that stay, for every axis that is cut.
        batches: positional and keyword inputs.
        memory: bytes for activations and for what is kept of the original.
        per_feature: rows for each feature of a reader.
        share: examples of a batch for each that was recorded.
        ended: called after every batch, with its number and what the model put out.
    """
    # While a layer is solved for, its second moments are there five times, in float64.
    candidates, skipped = find_candidates(analysis, keep, most_features=int((memory / 2 / 5 / 8) ** 0.5))
    features = {own.node.index: own.features for own in candidates}
    outputs = sum(own.results * own.features for own in candidates)
    # Half of the memory is for the rows that are kept: fewer a feature where that is too little.
    fit = int(memory / 2 / 4 / max(1, outputs))
    fewest = int(memory / 2 / 4 / max(1, sum(own.results for own in candidates)))
    schedule = plan_schedule(
        analysis,
        features,
        batches=len(batches),
        share=share,
        memory=memory // 2,
        per_feature=max(2, min(per_feature, fit)),
        fewest=max(64, min(FEWEST, fewest)),
    )
    targets = Targets(candidates, skipped, schedule)

    readers, owned = Readers(analysis), {name: tensor for _, name, tensor in owned_tensors(model)}
    takers = [_Taker(targets, own, readers.behind(own.node), owned) for own in candidates]
    visits = [(taker.stream.seen, taker.see) for taker in takers if taker.stream is not None]
    visits += [(taker.own.seen, taker.take) for taker in takers]
    visits += [
        (norm.node.index, _statistics(targets, norm, analysis, keep))
        for norm in find_batch_norms(analysis)
        if norm.mean.name not in {taker.mean for taker in takers}
        and min(features, default=norm.node.index) < norm.node.index
    ]
    watch = Watch(analysis.graph, detail, visits=by_node(visits))
    with watch.ready(model):
        for number, (args, kwargs) in enumerate(batches):
            targets.batch = number
            ended(number, watch.call(model, args, kwargs))
    return targets


def by_node(visits: Iterable[tuple[int, Visit]]) -> dict[int, Visit]:
    """One visit for each node: all of its own, in their order."""
    table: dict[int, list[Visit]] = defaultdict(list)
    for node, visit in visits:
        table[node].append(visit)

    def one(own: list[Visit]) -> Visit:
        def visit(operands: Mapping[int, torch.Tensor]) -> None:
            for each in own:
                each(operands)

        return visit

    return {node: one(own) for node, own in table.items()}


def _statistics(targets: Targets, norm: BatchNorm, analysis: Analysis, keep: Keep) -> Visit:
    """Keep the sums of what a BatchNorm gets, of the channels that stay."""
    stay = kept(analysis.dims_of(norm.activation)[1], keep)
    found = targets.statistics[norm.node.index] = {}

    def visit(operands: Mapping[int, torch.Tensor]) -> None:
        x = operands[norm.activation]
        found[targets.batch] = batch_sums(x if stay is None else x[:, torch.from_numpy(stay).to(x.device)])

    return visit


class _Taker:
    """Takes what one candidate put out, together with what it is added to."""

    def __init__(
        self, targets: Targets, own: Candidate, behind: Surroundings, owned: Mapping[str, torch.Tensor]
    ) -> None:
        self._targets, self.own = targets, own
        self.node = own.node.index
        self.mean = behind.takes_intercept_of(own.sum)
        self.stream = behind.stream if own.problem.streams else None
        if self.stream is not None:
            targets.scales[self.node] = _scale(behind.norm, owned, own)
        self._seen: torch.Tensor | None = None

    def see(self, operands: Mapping[int, torch.Tensor]) -> None:
        """Remember the stream until the candidate runs."""
        assert self.stream is not None
        self._seen = operands[self.stream.value]

    def take(self, operands: Mapping[int, torch.Tensor]) -> None:
        """Keep the results of the batch that is at work."""
        targets, own, layout = self._targets, self.own, self.own.sum.layout
        node, batch = self.node, targets.batch
        seen, self._seen = self._seen, None
        if batch >= targets.schedule.batches[node]:
            return
        # Where the result is seen, weights are not, and not needed.
        weight = operands.get(own.sum.weight)
        bias = None if own.sum.bias is None else operands.get(own.sum.bias)
        shown = own.staying(operands[own.shown].detach())
        targets.counts[node, batch] = own.problem.places(layout, shown, weight)
        at = targets.positions(node, batch).to(shown.device)
        targets.wanted[node, batch] = own.problem.wanted(layout, shown, weight, bias, at).cpu()
        if seen is not None:
            rows = layout.results(own.staying(seen.detach()), at).float()
            targets.streams[node, batch] = own.problem.staying(rows).cpu()


def _scale(norm: BatchNorm | None, owned: Mapping[str, torch.Tensor], own: Candidate) -> torch.Tensor:
    """What one unit of a candidate's result is in the stream, for the outputs that stay."""
    if norm is None:
        return torch.ones(1)
    scale = (owned[norm.variance.name].detach().float() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * owned[norm.weight.name].detach().float()
    return own.problem.staying(scale)
