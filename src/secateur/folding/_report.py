"""What was folded, as a value that prints as a table."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import render
from ..verification import Verification
from ._plan import Left, NormFold


@dataclass(frozen=True)
class FoldReport:
    """The result of :func:`fold_batch_norm`.

    Attributes:
        folded: every BatchNorm that is part of a layer now.
        left: every BatchNorm that stays, and why.
        verification: how far the outputs are from those before.
    """

    folded: tuple[NormFold, ...]
    left: tuple[Left, ...]
    verification: Verification

    def __str__(self) -> str:
        rows = [[fold.norm, f"folded into {fold.weight}"] for fold in self.folded]
        rows += [[left.norm, f"stays: {left.reason}"] for left in self.left]
        return f"{render(['BatchNorm', 'what became of it'], rows)}{self.verification}\n"
