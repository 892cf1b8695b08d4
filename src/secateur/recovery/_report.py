"""What was recovered, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan

from ..report import render


@dataclass(frozen=True)
class Stage:
    """One layer that was looked at.

    Attributes:
        layer: its path.
        what: ``"solved"``, ``"bias"`` (the mean was put right, no more), ``"statistics"`` (of a
            BatchNorm) or ``"left"`` (nothing made the held-out error smaller).
        rows: positions that went into it, held-out ones included.
        features: unknowns of one output.
        ridge: strength of the pull towards the sliced weights, as a share of a feature's mean square.
        before: held-out squared error of its results as it was when its turn came, as a share of the
            variance of what the original put out; NaN for statistics.
        after: the same with its new values.
    """

    layer: str
    what: str
    rows: int = 0
    features: int = 1
    ridge: float = float("nan")
    before: float = float("nan")
    after: float = float("nan")


@dataclass
class RecoveryReport:
    """What recovery did. Printing it gives a table.

    Attributes:
        stages: every layer, in the order that they run.
        skipped: layers that read a pruned axis and could not be solved for, with the reason.
        before: relative L2 error of the small model's outputs against the original's, on held-out
            examples, right after the cut.
        after: the same after recovery.
        kept: False if the outputs had become worse, and everything was taken back.
        memory: bytes that were planned for activations and kept rows.
        seconds: wall time of the runs of the ``"original"``, of those of the ``"small"`` model, and of
            ``"solving"`` (sums and solutions).
    """

    stages: list[Stage]
    skipped: dict[str, str]
    before: float
    after: float
    kept: bool = True
    memory: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        text = render(
            ["layer", "", "rows", "features", "ridge", "error before", "after"],
            [
                [s.layer, s.what, s.rows, s.features, *(_number(n) for n in (s.ridge, s.before, s.after))]
                for s in self.stages
            ],
        )
        for layer, why in self.skipped.items():
            text += f"{layer} could not be solved for: {why}\n"
        text += f"relative error of the outputs on held-out examples: {self.before:.3f} -> {self.after:.3f}"
        if not self.kept:
            text += " (worse, so everything was taken back)"
        return text + "\nseconds: " + ", ".join(f"{k} {v:.2f}" for k, v in self.seconds.items())


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.2g}"
