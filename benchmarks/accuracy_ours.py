"""Secateur in ``accuracy.py``: scores, cuts to a number of MACs, and selections at one latency."""

from __future__ import annotations

from accuracy_case import Case, Load
from torch import nn

from secateur import KnapsackLabelSelector, Label, PruningIR, ReconstructionCriterion
from secateur.calibration import measure_scores
from secateur.cost import Macs


def scored(case: Case, *, measured: bool = False) -> PruningIR:
    """The model with scores, measured ones if asked for."""
    ir = PruningIR(case.model, ignore=case.ignored)
    ir.create_snapshot("main", case.args, case.kwargs)
    loss = case.drawn() if case.drawn else case.loss
    with ReconstructionCriterion(ir) as collect:
        for sample in case.samples:
            loss(collect(sample), sample).backward()
    if measured:
        measure_scores(ir, case.samples, case.loss)
    return ir


def repaired(ir: PruningIR, case: Case, labels: list[Label]) -> nn.Module:
    """The model without these labels, made good by the calibration data."""
    return ir.prune(labels=labels, recover=case.samples).model


class Ours:
    """Our cuts of one case; it is scored once, by the first cut."""

    def __init__(self, load: Load, *, measured: bool) -> None:
        self._load, self._measured = load, measured
        self._ir: PruningIR | None = None

    def cut(self, target: float) -> nn.Module:
        """The model cut to at most ``target`` MACs."""
        case = self._load()
        if self._ir is None:
            self._ir = scored(case, measured=self._measured)
        labels = KnapsackLabelSelector(target, Macs(), verbose=False).select(self._ir)
        return repaired(self._ir, case, labels)
