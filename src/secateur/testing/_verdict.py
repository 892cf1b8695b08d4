"""What the judge of operator rules has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What the judge found of one axis of one call."""

    OK = "ok"
    """The rule and the operator agree: the cut is right, or the axis is pinned for a reason."""
    INCORRECT = "incorrect"
    """The rule states what the operator denies."""
    MISSING = "missing"
    """The axis is pinned or called inexact, yet every cut that was tried is right."""
    OPAQUE = "opaque"
    """There is no rule, or it does not fit this call: safe, and nothing can be pruned there."""


@dataclass(frozen=True)
class Verdict:
    """What the judge found; ``axis`` says where the axis stands, such as ``args[1][0]``."""

    kind: Kind
    operator: str
    axis: str = ""
    size: int = 0
    detail: str = ""

    def __str__(self) -> str:
        where = f" axis {self.axis} of {self.size}" if self.axis else ""
        return f"{self.kind.value}: {self.operator}{where}: {self.detail}"
