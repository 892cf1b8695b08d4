"""What one cut did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._tables import render

if TYPE_CHECKING:
    from ..axes import Group, Label, Pin
    from ..recovery import RecoveryReport
    from ..surgery import ParameterMap, Plan
    from ..verification import Verification


@dataclass(repr=False)
class PruneReport:
    """What a cut did to a model. Printing it gives tables.

    Attributes:
        parameters: number of parameter elements before and after.
        macs: multiply-accumulates of one forward at the snapshot's inputs, before and after.
        groups: every group with the number of labels that were removed from it.
        verification: masked against small model, None if it was switched off.
        seconds: wall time by stage.
        recovery: what was recovered after the cut; None if that was not asked for.
        pinned: what stayed out of reach, and why.
        reach: share of all parameter elements that at least one group can take off.
        zeroed: labels that stay as zeros, so that parts that the code wants equal stay equal.
        parameter_map: from every parameter of the original to the one that replaces it, with the
            positions that were kept; see :func:`secateur.carry_optimizer`.
        plan: all changes, tensor by tensor.
        config: for a model with a config that it is saved with (transformers): the fields that
            changed with it, or why none could, in words. Empty for any other model.
    """

    parameters: tuple[int, int]
    macs: tuple[int, int]
    groups: list[tuple[Group, int]]
    verification: Verification | None
    pinned: list[Pin]
    reach: float
    parameter_map: ParameterMap
    plan: Plan
    config: str = ""
    recovery: RecoveryReport | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def zeroed(self) -> list[Label]:
        """Labels that stay as zeros."""
        return self.plan.zeroed

    @property
    def inexact(self) -> dict[str, list[str]]:
        """Groups that were cut though they are not exact, with the reasons."""
        return {group.name: group.reasons for group, removed in self.groups if removed and group.reasons}

    def __repr__(self) -> str:
        checked = "not verified" if self.verification is None else f"{self.verification}"
        return f"PruneReport(parameters {_share(self.parameters)}, MACs {_share(self.macs)}, {checked})"

    def __str__(self) -> str:
        rows: list[list[Any]] = [
            ["parameters", *self.parameters, _share(self.parameters)],
            ["MACs", *self.macs, _share(self.macs)],
        ]
        text = render(["", "before", "after", "left"], rows)
        text += render(
            ["group", "size", "removed", "exact"],
            [[g.name, g.size, n, "yes" if g.exact else g.reasons[0]] for g, n in self.groups],
        )
        text += f"verification: {self.verification or 'switched off'}\n"
        text += f"in reach: {self.reach:.1%} of all parameters; {len(self.pinned)} axes are pinned\n"
        if self.zeroed:
            text += f"{len(self.zeroed)} labels stay as zeros: the code wants equal parts\n"
        text += f"{self.config}\n" if self.config else ""
        text += f"{self.recovery}\n" if self.recovery is not None else ""
        return text + "seconds: " + ", ".join(f"{k} {v:.3f}" for k, v in self.seconds.items())


def _share(pair: tuple[int, int]) -> str:
    return f"{pair[1] / pair[0]:.1%}" if pair[0] else ""
