"""Running a recipe: step by step, each kept in the output folder, so that an interrupted run goes on."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from torch import nn

from .._ir import PruningIR
from ..deploy import DeployReport
from ..persistence import load, save
from ._context import Context
from ._names import importable
from ._plan import Plan, plan
from ._report import write_report
from ._schema import Deploy, Section, Train
from ._state import Done, Ranges, State, fingerprints, load_ranges, save_ranges
from ._steps import Result, simulated, take

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run gives.

    Attributes:
        model: after the last step, plain.
        steps: all that is done, with figures; the original first.
        resumed: how many of these were done in an earlier run.
        report: the Markdown report; an HTML one lies beside it.
    """

    model: nn.Module
    steps: tuple[Done, ...]
    resumed: int
    report: Path


def run(
    recipe: str | os.PathLike[str] | Plan,
    *,
    out: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: Progress = lambda line: None,
) -> Outcome:
    """Run a recipe, or what is left of it.

    After every step model, ranges and figures are in the output folder, as safetensors and JSON. A second run
    skips the steps that are there and unchanged in the recipe; each step begins with its own seed, so a run
    that was interrupted ends like one that was not.

    Args:
        recipe: path of the YAML file, or a plan of it.
        out: the output folder; by default the recipe's ``output``, or ``build/<name of the file>``.
        fresh: begin anew, whatever the folder holds.
        progress: told a line at the beginning of every step.

    Raises:
        RecipeError: if the recipe has mistakes; nothing has run then.
        PersistenceError: if the folder holds the state of something else.
        SecateurError: whatever a step raises; the steps before it are kept.
    """
    planned = recipe if isinstance(recipe, Plan) else plan(recipe, out=out)
    with importable(planned.file.parent):
        return _run(planned, fresh, progress)


def _run(planned: Plan, fresh: bool, progress: Progress) -> Outcome:
    steps, prints = planned.recipe.steps, fingerprints(planned.recipe)
    # Training that comes first makes the original: what is distilled from, and compared with.
    trained = len([*takewhile(lambda step: isinstance(step, Train), steps)])
    state = State(planned.folder) if fresh else State.read(planned.folder, prints)
    resumed = len(state.done)
    context = Context(planned.recipe, planned.folder, planned.build().eval())
    if not state.done:
        progress("0 original")
        state.add(_kept("0 original", prints[0], Result(copy.deepcopy(context.original)), context))
    last = state.done[-1]
    model = load(planned.build, planned.folder / last.model).eval()
    ranges: Ranges = load_ranges(planned.folder / last.ranges) if last.ranges else {}
    for index in range(len(state.done), len(steps) + 1):
        step = steps[index - 1]
        name = f"{index} {step.kind}"
        progress(name)
        if index > trained:
            context.original = load(planned.build, planned.folder / state.done[trained].model).eval()
        start = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(planned.recipe.seed + index)
            result = take(step, model, ranges, context)
        model, ranges = result.model, result.ranges
        seconds = time.perf_counter() - start
        state.add(_kept(name, prints[index], result, context, step, state.done[-1], seconds))
    report = write_report(planned, state.done)
    return Outcome(model, tuple(state.done), resumed, report)


def _kept(
    name: str,
    fingerprint: str,
    result: Result,
    context: Context,
    step: Section | None = None,
    before: Done | None = None,
    seconds: float = 0.0,
) -> Done:
    """Write what a step made, and note its figures."""
    if isinstance(step, Deploy) and before is not None and result.deployed is not None:
        assert result.deployed.model is not None
        score = context.score(result.deployed.model) if step.dynamic_batch else {}
        figures = {**before.figures, **_deployed(result.deployed), **score}
        return Done(name, fingerprint, figures, before.model, before.ranges, seconds, result.notes)
    stem = name.replace(" ", "-")
    context.folder.mkdir(parents=True, exist_ok=True)
    file = context.folder / f"{stem}.safetensors"
    save(result.model, file)
    figures = context.figures(result.model, file)
    ranges = ""
    if result.ranges:
        ranges = f"{stem}.ranges.safetensors"
        save_ranges(result.ranges, context.folder / ranges)
        figures |= context.score(simulated(copy.deepcopy(result.model), result.ranges, context))
    return Done(name, fingerprint, figures, file.name, ranges, seconds, result.notes)


def _deployed(report: DeployReport) -> dict[str, float]:
    figures = {
        "bytes": float(report.bytes),
        "latency": report.latency.median,
        "top-1 agreement": report.agreement.top1,
        "within one step": report.agreement.within_one_step,
    }
    if report.smaller is not None and report.faster is not None:
        figures |= {"times smaller": report.smaller, "times faster": report.faster}
    return figures


def explain(planned: Plan) -> str:
    """What of a recipe's model can be pruned, and why the rest cannot: :meth:`PruningIR.explain` as text."""
    with importable(planned.file.parent):
        context = Context(planned.recipe, planned.folder, planned.build().eval())
        args, kwargs = context.inputs
        ir = PruningIR(context.original)
        ir.create_snapshot("main", args, kwargs)
        return str(ir.explain())
