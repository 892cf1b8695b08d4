"""The one line: a model, its inputs and a ratio in, a smaller model and a report out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ._errors import LabelError
from ._ir import PruningIR
from ._snapshot import LeafModules
from .report import PruneReport
from .selectors import UniformLabelSelector


def prune(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    ratio: float = 0.5,
    round_to: int = 1,
    ignore: Iterable[str | nn.Module | nn.Parameter] = (),
    selector: Any = None,
    exact_only: bool = False,
    attention: str = "both",
    leaf_modules: LeafModules | None = None,
    inplace: bool = False,
    verify: bool = True,
    output: str = "module",
) -> tuple[nn.Module, PruneReport]:
    """Take a share of every group off a model, the lowest magnitudes first, and verify the result.

    Args:
        model: any ``nn.Module``.
        args: positional inputs to run it on.
        kwargs: keyword inputs.
        ratio: share of the prunable labels of every group to remove, in [0, 1).
        round_to: keep widths that are multiples of this number.
        ignore: modules (paths or objects) and parameters to leave as they are.
        selector: another selector than the uniform one; ``ratio`` and ``round_to`` are its own then.
        exact_only: leave groups alone whose removal changes outputs (see ``Group.reasons``).
        attention: ``"heads"``, ``"features"`` or ``"both"``.
        leaf_modules: modules to keep whole.
        inplace: cut ``model`` itself instead of a copy.
        verify: compare with the masked model before anything is returned.
        output: ``"module"``, or ``"graph"`` for a rewritten ``torch.fx.GraphModule``.

    Returns:
        The smaller model and a :class:`PruneReport`.

    Raises:
        LabelError: if the model has nothing to prune, or an argument does not fit it.
        CaptureError: if the model does not run on the inputs.
        SurgeryError: if its code cannot follow.
        VerificationError: if the result is not what the masked model computes.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> small, report = secateur.prune(model, (torch.ones(1, 4),), ratio=0.5)
        >>> report.parameters, report.macs
        ((58, 30), (48, 24))
    """
    ir = PruningIR(model, leaf_modules=leaf_modules, attention=attention, ignore=ignore)
    ir.create_snapshot("main", args, kwargs)
    groups = ir.groups()
    if not groups:
        raise LabelError(nothing_to_prune(ir))
    labels = (selector or UniformLabelSelector(ratio, round_to=round_to)).select(ir)
    if exact_only:
        exact = {group.name for group in groups if group.exact}
        labels = [label for label in labels if label.group in exact]
    small = ir.prune(labels=labels, inplace=inplace, verify=verify, output=output)
    assert small.report is not None
    return small.model, small.report


def nothing_to_prune(ir: PruningIR) -> str:
    """Why a model offers no group."""
    name = type(ir.model).__name__
    if next(ir.model.parameters(), None) is None:
        return f"{name} has no parameters, so there is nothing to prune"
    reasons = "\n".join(f"  {pin.name}: {pin.reason}" for pin in ir.pinned()[:8])
    return f"{name} has no group that may be shortened. Its axes are pinned:\n{reasons}"
