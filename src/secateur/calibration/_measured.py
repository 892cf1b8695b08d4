"""Scores that add up to what was measured: how much the loss rises when labels of a group are masked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from math import isfinite
from operator import add
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._errors import ScoreError
from ..axes import Group
from ..capture import owned_tensors, untouched
from ..criteria import Moments, Scores, ToInputs, example_count, model_inputs, sum_over_processes
from ..surgery import rest, zero_out, zero_positions
from ._apply import compensated
from ._compensate import Compensate, Compensated, compensations
from ._moments import Place, collect_moments

if TYPE_CHECKING:
    from .._ir import PruningIR
    from .._snapshot import Snapshot

Losses = dict[str, list[tuple[int, float]]]
"""By group name: numbers of labels, ascending, and by how much the loss rises without so many."""


@dataclass(frozen=True)
class Sensitivity:
    """What :func:`measure_scores` gives.

    Attributes:
        scores: by group name, float64 of shape ``(size,)``; they are in the snapshot too.
        losses: by group name: how many of its lowest labels were masked, and the rise of the loss.
        base: the loss of the model as it is.
    """

    scores: Scores
    losses: Losses
    base: float


def measure_scores(
    ir: PruningIR,
    loader: Iterable[Any],
    loss: Callable[[Any, Any], torch.Tensor],
    snapshot_name: str = "main",
    *,
    parts: Sequence[float] = (1 / 16, 1 / 4, 1 / 2),
    folds: int = 3,
    compensate: Compensate | str | None = Compensate.LEAST_SQUARES,
    sample_to_model_inputs: ToInputs | None = None,
    process_group: Any = None,
) -> Sensitivity:
    """Scale the scores of a snapshot so that they add up to rises of the loss, group by group.

    A criterion ranks the labels of a group well, but what a group costs is an estimate, and errors of
    whole groups mislead every selector that compares groups. Here the lowest labels of one group after
    the other are masked, some parts of it at a time, what stays makes good for them
    (``compensate``), and the loss is measured. To compensate on the samples that judge it would flatter
    layers with many inputs, so samples are dealt out into folds: each is judged with what the
    others gave. The order within a group stays; between two measurements the rise is shared out in
    proportion to the scores that were there. A label's score is never below that of one that goes before it.

    The model runs ``1 + groups * len(parts)`` times over all samples, in eval mode, without gradients,
    and is left as it was.

    Sources: measuring sensitivity layer by layer is from Li et al., "Pruning filters for efficient
    ConvNets" (ICLR 2017), and NNI's sensitivity analysis.

    Args:
        ir: the model, with a snapshot that a criterion has scored; without scores it goes by magnitude.
        loader: samples, as for criteria. They are kept in memory.
        loss: from the model's output and a sample to a mean over the sample's examples.
        snapshot_name: which snapshot.
        parts: of the labels of a group that are masked, in (0, 1).
        folds: into how many parts samples are dealt out; at most as many as there are.
        compensate: what makes good for masked labels, as in :meth:`secateur.PruningIR.prune`; None for
            nothing.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.
        process_group: processes to sum over when ``torch.distributed`` is initialised; each compensates
            by its own samples.

    Raises:
        ScoreError: for fewer samples than two (one without ``compensate``), for parts or folds out of range,
            or if the loss is not finite.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> batches = torch.randn(3, 64, 4)
        >>> ir = secateur.PruningIR(model)
        >>> _ = ir.create_snapshot("main", args=(batches[0],))
        >>> with torch.no_grad():
        ...     answers = [(x, model(x)) for x in batches]
        >>> found = secateur.calibration.measure_scores(
        ...     ir, answers, lambda output, sample: (output - sample[1]).square().mean()
        ... )
        >>> found.base, [number for number, _ in found.losses["0"]], found.scores["0"].shape
        (0.0, [1, 2, 4], torch.Size([8]))
    """
    if not parts or not all(0 < part < 1 for part in parts):
        raise ScoreError(f"parts are shares of a group between 0 and 1, got {list(parts)}")
    if folds < 2:
        raise ScoreError(f"folds is at least 2, got {folds}: each is judged by what the others gave")
    trial = _Trial(ir.snapshot(snapshot_name), loss, sample_to_model_inputs)
    how = None if compensate is None else Compensate(compensate)
    samples = list(loader)
    _check_samples(samples, 1 if how is None else 2, process_group)
    trial.deal(samples, min(folds, len(samples)), how)
    given = trial.snapshot.current_scores()
    groups = [g for g in trial.snapshot.structure.groups if g.name in given and g.size > 1]
    cuts: list[tuple[Group, list[int]]] = []
    for group in groups:
        order = torch.argsort(given[group.name], stable=True).tolist()
        cuts += [(group, order[:count]) for count in _counts(group.size, parts)]
    rows = [trial.loss_of(None, ()), *(trial.loss_of(*cut) for cut in cuts), float(trial.examples)]
    sums = torch.tensor(rows, dtype=torch.float64)
    sum_over_processes([sums], process_group)
    base, *means = (sums[:-1] / sums[-1]).tolist()
    losses: Losses = {group.name: [] for group in groups}
    for (group, gone), mean in zip(cuts, means, strict=True):
        if not isfinite(mean - base):
            raise ScoreError(
                f"the loss is {mean} with {len(gone)} labels of {group.name!r} masked, before {base}"
            )
        losses[group.name].append((len(gone), mean - base))
    scores = {name: fit_scores(given[name], measured) for name, measured in losses.items()}
    trial.snapshot.scores = dict(scores)
    return Sensitivity(scores, losses, base)


def fit_scores(scores: torch.Tensor, losses: Sequence[tuple[int, float]]) -> torch.Tensor:
    """Scores in the same order, of which the lowest ``count`` add up to each measured loss.

    Where a loss rises more slowly than before, scores stay as high as those before them; where it falls,
    they stay just above zero. Behind the last measurement the scale stays what it was there.

    >>> fit_scores(torch.tensor([4.0, 1.0, 3.0, 2.0]), [(2, 6.0)]).round(decimals=1)
    tensor([8., 2., 6., 4.], dtype=torch.float64)
    """
    order = torch.argsort(scores, stable=True)
    shape = scores.double().cpu()[order].clamp_min(0)
    # Labels that cost nothing by the criterion alone still share in what their part costs.
    shape = shape + 1e-3 * shape.mean().clamp_min(1e-30)
    fitted = torch.empty_like(shape)
    start, before, scale = 0, 0.0, 1.0
    least = max(1e-6 * max((abs(loss) for _, loss in losses), default=0.0), 1e-30)
    for count, loss in losses:
        section = shape[start:count]
        scale = max(loss - before, least) / float(section.sum())
        fitted[start:count] = section * scale
        start, before = count, max(loss, before)
    fitted[start:] = shape[start:] * scale
    result = torch.empty_like(fitted)
    # A hair more for each, so that labels of one score still go in the order that they had.
    result[order] = fitted.cummax(0).values * (1 + 1e-9 * torch.arange(len(order), dtype=torch.float64))
    return result


def _counts(size: int, parts: Sequence[float]) -> list[int]:
    return sorted({min(max(1, round(size * part)), size - 1) for part in parts})


def _check_samples(samples: Sequence[Any], least: int, process_group: Any) -> None:
    """All processes raise if one of them has too few."""
    short = torch.tensor([int(len(samples) < least)])
    sum_over_processes([short], process_group)
    if short:
        raise ScoreError(
            f"at least {least} samples are needed (in each process), this one has {len(samples)}: what "
            "compensates is fitted to some and judged on others"
        )


class _Trial:
    """A model without some labels, on samples that were not used to make good for them."""

    def __init__(
        self, snapshot: Snapshot, loss: Callable[..., torch.Tensor], to_inputs: ToInputs | None
    ) -> None:
        self.snapshot = snapshot
        self._loss = loss
        self._to_inputs = to_inputs or (lambda sample: model_inputs(snapshot.model, sample))
        self._owned = {name: tensor for _, name, tensor in owned_tensors(snapshot.model)}
        self._folds: list[tuple[list[Any], dict[Place, Moments]]] = []
        self._how: Compensate | None = None
        self.examples = 0

    def deal(self, samples: Sequence[Any], count: int, how: Compensate | None) -> None:
        """Deal samples out into folds, each with the moments of all others."""
        self._how = how
        self.examples = sum(example_count(self._to_inputs(sample)) for sample in samples)
        if how is None:
            self._folds = [(list(samples), {})]
            return
        dealt = [list(samples[number::count]) for number in range(count)]
        products = how is Compensate.LEAST_SQUARES
        seen = [
            collect_moments(self.snapshot, own, products=products, sample_to_model_inputs=self._to_inputs)
            for own in dealt
        ]
        for own, fold in enumerate(dealt):
            others = [moments for number, moments in enumerate(seen) if number != own]
            self._folds.append((fold, {place: reduce(add, (m[place] for m in others)) for place in seen[0]}))

    def loss_of(self, group: Group | None, gone: Sequence[int]) -> float:
        """Sum of the loss over all examples, with these labels masked."""
        return sum(self._loss_on(fold, group, gone, moments) for fold, moments in self._folds)

    def _loss_on(
        self, samples: Sequence[Any], group: Group | None, gone: Sequence[int], moments: dict[Place, Moments]
    ) -> float:
        model, total = self.snapshot.model, 0.0
        with ExitStack() as stack:
            stack.enter_context(untouched(model))
            if group is not None:
                stack.enter_context(self._masked(group, gone, moments))
            for sample in samples:
                inputs = self._to_inputs(sample)
                total += float(self._loss(model(*inputs[0], **inputs[1]), sample)) * example_count(inputs)
        return total

    @contextmanager
    def _masked(self, group: Group, gone: Sequence[int], moments: dict[Place, Moments]) -> Generator[None]:
        snapshot, change = self.snapshot, Compensated()
        if self._how is not None:
            change = compensations(snapshot, {group.axis: rest(group.axis, gone)}, moments, self._how)
        zeros = zero_positions(snapshot.structure, {group.axis: set(gone)})
        with compensated(snapshot.model, change, inplace=False):
            before = {name: self._owned[name].detach().clone() for name in zeros}
            try:
                self._create_biases(change)
                for name, rows in zeros.items():
                    zero_out(self._owned[name], rows)
                yield
            finally:
                for name, value in before.items():
                    self._owned[name].detach().copy_(value)

    def _create_biases(self, change: Compensated) -> None:
        """Biases that layers lack, for the time that the model is `untouched`."""
        for name in change.values.keys() - self._owned.keys():
            module = self.snapshot.model.get_submodule(name.rpartition(".")[0])
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            module._parameters["bias"] = nn.Parameter(change.values[name].to(weight), requires_grad=False)
