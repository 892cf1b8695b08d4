"""One cut from labels to verified model: plan, replay, reference, apply, compare."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import nn

from ._errors import SurgeryError, VerificationError
from ._snapshot import Snapshot
from .axes import Group, Keep, Label, Leaf, Structure, reach
from .capture import without_gc
from .cost import count_macs, count_parameters
from .integrations import FittedConfig, fit_config
from .persistence import note_cut
from .report import PruneReport
from .surgery import (
    ParameterMap,
    Plan,
    Replayed,
    Undo,
    build_plan,
    cut_copy,
    cut_inplace,
    explain,
    follow_sizes,
    graph_module,
    groups_touched,
    keep_sets,
    masked_model,
    removed_positions,
)
from .verification import Observer, Verification


@torch.inference_mode(False)  # what is made under inference mode could never be trained
@without_gc()
def cut(
    snapshot: Snapshot,
    labels: Sequence[Label],
    snapshots: Sequence[Snapshot],
    *,
    inplace: bool,
    verify: bool,
    output: str = "module",
) -> tuple[nn.Module, PruneReport]:
    """Carry out a cut; see :meth:`secateur.PruningIR.prune`."""
    structure = snapshot.structure
    seconds = dict(snapshot.seconds)
    with _timed(seconds, "select"):
        removed = removed_positions(structure, labels)
        keep, zeroed = keep_sets(structure, removed)
    bindings = snapshot.following.bindings.values()
    with _timed(seconds, "replay"):
        code = snapshot.code
        found = code.replay(keep, bindings) if keep and code.depends_on_sizes else code.assume(keep)
        if not found.clean and follow_sizes(code, snapshot.following, sizes_of(keep)).clean:
            # The code takes more sizes to be equal than the trials had shown.
            structure.relations = tuple(snapshot.following.relations)
            keep, zeroed = keep_sets(structure, removed)
            bindings = snapshot.following.bindings.values()
            found = code.replay(keep, bindings)
        if not found.clean and output == "module":
            _refuse(structure, keep, found)
    with _timed(seconds, "plan"):
        scales = [*found.scales, *snapshot.averages.scales(keep)]
        plan = build_plan(structure, keep, zeroed, bindings, scales)
        fitted = fit_config(code, plan, found, bindings) if output == "module" else FittedConfig()
        plan.attributes += fitted.changes
    seen = [snapshot] if output == "graph" else snapshots
    observer = Observer([s.recorded() for s in seen])
    if verify:
        with _timed(seconds, "reference"):
            observer.reference(masked_model(snapshot.model, structure, removed))
    before = count_parameters(structure.analysis), count_macs(structure.analysis)
    undo = Undo(enabled=verify)
    try:
        with _timed(seconds, "surgery"):
            model, cuts = _apply(snapshot.model, plan, undo, inplace)
            if output == "graph":
                model = graph_module(structure.analysis, plan.keep, model)
        with _timed(seconds, "verification"):
            touched = groups_touched(structure, plan.keep)
            exact = all(group.exact for group in touched)
            verification = observer.compare(model, exact=exact) if verify else None
            _judge(verification, touched, exact)
    except BaseException:
        undo.restore()
        raise
    if output == "module":
        note_cut(model, plan)
    after = count_parameters(structure.analysis, plan.keep), count_macs(structure.analysis, plan.keep)
    report = PruneReport(
        parameters=(before[0], after[0]),
        macs=(before[1], after[1]),
        groups=[(group, plan.removed.get(group.name, 0)) for group in structure.groups],
        verification=verification,
        pinned=structure.pins,
        reach=reach(structure),
        parameter_map=cuts,
        plan=plan,
        config=fitted.note,
        seconds=seconds,
    )
    return model, report


def _apply(model: nn.Module, plan: Plan, undo: Undo, inplace: bool) -> tuple[nn.Module, ParameterMap]:
    if inplace:
        return model, cut_inplace(model, plan, undo)
    return cut_copy(model, plan)


def sizes_of(keep: Keep) -> dict[Leaf, int]:
    """How many positions of every axis stay."""
    return {axis: len(positions) for axis, positions in keep.items()}


def _refuse(structure: Structure, keep: Keep, found: Replayed) -> NoReturn:
    """Raise, before anything is touched, since the model's code does not follow this very cut."""
    names = [group.name for group in structure.groups if group.axis in keep]
    raise SurgeryError(
        f"{explain(found)}.\nWays out: leave that group alone (PruningIR(model, ignore=[...]); cut here: "
        f"{', '.join(names)}), or take the rewritten graph: "
        'ir.prune(labels=..., output="graph"). Nothing has been changed.'
    )


def _judge(verification: Verification | None, touched: Sequence[Group], exact: bool) -> None:
    """Raise if outputs differ though every group that was cut is exact."""
    if verification is None or verification.passed:
        return
    if exact or verification.error != verification.error:
        worst = max(verification.comparisons, key=lambda c: c.error)
        reason = (
            "This is a defect of Secateur or of a custom rule: please report it with the model."
            if verification.telling
            else f"But a change of every parameter's last bit alone moves the outputs by "
            f"{verification.rounding:.2e}: in this precision they cannot be compared. Prune model.double(), "
            "with inputs in float64, and convert the result; or give verify=False."
        )
        raise VerificationError(
            f"{worst.output} {worst.shape} of the small model differs from the masked model by a relative "
            f"error of {worst.error:.2e} (tolerance {verification.tolerance:.0e}), though all groups that "
            f"were cut are exact: {', '.join(group.name for group in touched[:8])}. The model is as it was. "
            f"{reason}"
        )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Generator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = time.perf_counter() - start
