"""The one line: a model, its inputs and a ratio in, a smaller model and a report out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ._errors import LabelError
from ._ir import PruningIR
from ._snapshot import LeafModules
from .cost import LatencyTable
from .recovery import Recovery
from .report import PruneReport
from .selectors import ChannelsConstraint, KnapsackLabelSelector, UniformLabelSelector


def prune(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    ratio: float | None = None,
    target_latency: float | None = None,
    round_to: int = 1,
    ignore: Iterable[str | nn.Module | nn.Parameter] = (),
    selector: Any = None,
    exact_only: bool = False,
    attention: str = "both",
    leaf_modules: LeafModules | None = None,
    inplace: bool = False,
    verify: bool = True,
    output: str = "module",
    recover: Recovery | Iterable[Any] | None = None,
) -> tuple[nn.Module, PruneReport]:
    """Take a share of every group off a model, the lowest magnitudes first, and verify the result.

    Args:
        model: any ``nn.Module``.
        args: positional inputs to run it on.
        kwargs: keyword inputs.
        ratio: share of the prunable labels of every group to remove, in [0, 1). Default: 0.5.
        target_latency: seconds of one forward at these inputs, on this device and with the threads that
            torch is set to, instead of a ratio; widths are found by :class:`KnapsackLabelSelector` with a
            :class:`secateur.cost.LatencyTable`, in some ten seconds to a minute.
        round_to: keep widths that are multiples of this number.
        ignore: modules (paths or objects) and parameters to leave as they are.
        selector: another selector than the uniform one; ``ratio``, ``target_latency`` and ``round_to`` are
            its own then.
        exact_only: leave groups alone whose removal changes outputs (see ``Group.reasons``).
        attention: ``"heads"``, ``"features"`` or ``"both"``.
        leaf_modules: modules to keep whole.
        inplace: cut ``model`` itself instead of a copy.
        verify: compare with the masked model before anything is returned.
        output: ``"module"``, or ``"graph"`` for a rewritten ``torch.fx.GraphModule``.
        recover: calibration samples, or a :class:`Recovery`: after the cut the layers are solved for
            anew so that they give what the original's gave; see :meth:`PruningIR.recover`.

    Returns:
        The smaller model and a :class:`PruneReport`.

    Raises:
        LabelError: if the model has nothing to prune, an argument does not fit it, or more than one of
            ``ratio``, ``target_latency`` and ``selector`` is given.
        TargetError: if no cut reaches the target; its ``reachable`` is the lowest latency.
        DependencyError: for a target, if HiGHS is not installed.
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
    selector = _selector(ratio, target_latency, round_to, selector)
    ir = PruningIR(model, leaf_modules=leaf_modules, attention=attention, ignore=ignore)
    snapshot = ir.create_snapshot("main", args, kwargs)
    groups = ir.groups()
    if not groups:
        raise LabelError(nothing_to_prune(ir))
    exact = {group.name for group in groups if group.exact}
    if exact_only:  # a selector leaves groups without scores alone, and takes more from the others
        snapshot.scores = {name: s for name, s in snapshot.current_scores().items() if name in exact}
    labels = selector.select(ir) if exact or not exact_only else []
    small = ir.prune(labels=labels, inplace=inplace, verify=verify, output=output, recover=recover)
    assert small.report is not None
    return small.model, small.report


def _selector(ratio: float | None, target: float | None, round_to: int, selector: Any) -> Any:
    if [ratio, target, selector].count(None) < 2:
        raise LabelError("ratio, target_latency and selector each say how much to cut: give one of them")
    if target is not None:
        constraint = ChannelsConstraint(step=round_to) if round_to > 1 else None
        return KnapsackLabelSelector(target, LatencyTable(), True, constraint, verbose=False)
    return selector or UniformLabelSelector(0.5 if ratio is None else ratio, round_to=round_to)


def nothing_to_prune(ir: PruningIR) -> str:
    """Why a model offers no group."""
    name = type(ir.model).__name__
    if next(ir.model.parameters(), None) is None:
        return f"{name} has no parameters, so there is nothing to prune"
    reasons = "\n".join(f"  {pin.name}: {pin.reason}" for pin in ir.pinned()[:8])
    return f"{name} has no group that may be shortened. Its axes are pinned:\n{reasons}"
