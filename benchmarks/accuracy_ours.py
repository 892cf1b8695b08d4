"""Secateur in ``accuracy.py``: scores, cuts to a number of MACs, and selections at one latency."""

from __future__ import annotations

from typing import Any

from accuracy_case import Case, Load
from torch import nn

from secateur import KnapsackLabelSelector, Label, PruningIR, ReconstructionCriterion
from secateur.cost import Macs


def scored(case: Case) -> PruningIR:
    """The model with scores."""
    ir = PruningIR(case.model, ignore=case.ignored)
    ir.create_snapshot("main", case.args, case.kwargs)
    with ReconstructionCriterion(ir) as collect:
        for sample in case.samples:
            case.loss(collect(sample), sample).backward()
    return ir


def repaired(ir: PruningIR, case: Case, repair: str, labels: list[Label]) -> nn.Module:
    """The model without these labels, made good by the calibration data as the task says."""
    data: dict[str, Any] = {"recover": case.samples}
    if repair == "both":
        data |= {"compensate": "least_squares", "calibration": case.samples}
    return ir.prune(labels=labels, **data).model


class Ours:
    """Our cuts of one case; it is scored once, by the first cut."""

    def __init__(self, load: Load, repair: str) -> None:
        self._load, self._repair = load, repair
        self._ir: PruningIR | None = None

    def cut(self, target: float) -> nn.Module:
        """The model cut to at most ``target`` MACs."""
        case = self._load()
        if self._ir is None:
            self._ir = scored(case)
        labels = KnapsackLabelSelector(target, Macs(), verbose=False).select(self._ir)
        return repaired(self._ir, case, self._repair, labels)
