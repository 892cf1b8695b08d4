"""Recovery of a small model from its original, from batches to report."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from .._errors import RecoveryError
from ..axes import Keep
from ..capture import Watch, named_tensors
from ..criteria import ToInputs, example_count, model_inputs
from ._layer import HELD
from ._memory import release_memory
from ._report import RecoveryReport
from ._student import Student
from ._targets import Inputs, collect_targets

if TYPE_CHECKING:
    from .._snapshot import Snapshot

JUDGED = 4
"""Every so many batches one is also run before recovery, to tell what it brought."""


@dataclass
class Recovery:
    """How to recover a model after a cut.

    Attributes:
        loader: calibration samples, as a data loader gives them; labels are not used. Inputs are kept
            in memory while recovery works.
        batches: use so many batches at most; None for all.
        max_memory: bytes that activations, and what is kept of the original's, may take beyond the
            models and the inputs. Less means fewer rows for the layers with large activations.
        rows_per_feature: positions for each unknown of a layer, as far as the data has so many.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``; by default a dict gives
            keyword arguments, a tuple or list positional ones.
        progress: show a progress bar on stderr; None: where it is a terminal.
        process_group: processes to sum over when ``torch.distributed`` is initialised.
    """

    loader: Iterable[Any]
    batches: int | None = None
    max_memory: int = 5 * 2**28
    rows_per_feature: int = 64
    sample_to_model_inputs: ToInputs | None = None
    progress: bool | None = None
    process_group: Any = None

    def inputs(self, model: nn.Module) -> list[Inputs]:
        """All batches, as the model is called.

        Raises:
            RecoveryError: if there is none.
        """
        to_inputs = self.sample_to_model_inputs or (lambda sample: model_inputs(model, sample))
        found = [to_inputs(sample) for sample in itertools.islice(iter(self.loader), self.batches)]
        if not found:
            raise RecoveryError("nothing can be recovered without a batch: the calibration data gave none")
        return found

    @contextmanager
    def bar(self, steps: int, what: str) -> Generator[Any]:
        """A progress bar; the body calls what it gets after each step."""
        console = Console(stderr=True)
        shown = console.is_terminal if self.progress is None else self.progress
        with Progress(console=console, disable=not shown, transient=True) as progress:
            task = progress.add_task(what, total=steps)
            yield lambda: progress.advance(task)


def recover(original: Snapshot, small: Snapshot, keep: Keep, how: Recovery) -> RecoveryReport:
    """Solve for the weights of a small model so that its layers give what the original's gave.

    See ``docs/recovery.md`` for the mathematics. The small model changes in place; if anything is
    raised, or if its outputs on held-out examples are worse in the end, it is as it was.

    Sources: least squares on the inputs of a pruned layer is from He et al., "Channel pruning for
    accelerating very deep neural networks" (ICCV 2017), and Luo et al., "ThiNet" (ICCV 2017).

    Args:
        original: the model before the cut, as it was recorded.
        small: the model after it, at the same inputs.
        keep: positions that stay, for every axis that was cut.
        how: data and limits.

    Raises:
        RecoveryError: if there is no data.
        CaptureError: if a model takes another path through its code than when it was recorded.
    """
    start = time.perf_counter()
    batches = how.inputs(original.model)
    share = max(map(example_count, batches)) / example_count((original.args, original.kwargs))
    judged = {number for number in range(len(batches) - 1, -1, -JUDGED)}
    wanted: dict[int, list[torch.Tensor]] = {}
    given: dict[int, list[torch.Tensor]] = {}

    with how.bar(len(batches), "original") as told:

        def watched(number: int, output: Any) -> None:
            if number in judged:
                wanted[number] = _held(output)
            told()

        targets = collect_targets(
            original.model,
            original.analysis,
            original.settings.detail(original.model),
            keep,
            batches,
            memory=how.max_memory,
            per_feature=how.rows_per_feature,
            share=share,
            ended=watched,
        )
    release_memory()
    seconds = {"original": time.perf_counter() - start}
    before = _error(wanted, _outputs(small, {number: batches[number] for number in judged}))
    start = time.perf_counter()
    detail = small.settings.detail(small.model)
    student = Student(
        small.model, small.analysis, detail, targets, original.analysis.graph, how.process_group
    )

    def solved(number: int, output: Any) -> None:
        if number in judged:
            given[number] = _held(output)

    with how.bar(len(student), "layers") as told:
        stages = student.run(batches, told, solved)
    after = _error(wanted, given)
    sums = torch.tensor([before[0], after[0], before[1], after[1]], dtype=torch.float64)
    student.scene.sum(sums)
    errors = (sums[:2] / sums[2:].clamp_min(1e-30)).sqrt().tolist()
    report = RecoveryReport(stages, student.skipped, *errors, memory=how.max_memory)
    if not report.after <= report.before:
        student.scene.undo()
        report.kept = False
    rest = time.perf_counter() - start - student.solving
    report.seconds = {**seconds, "small": rest, "solving": student.solving}
    return report


def _outputs(small: Snapshot, batches: Mapping[int, Inputs]) -> dict[int, list[torch.Tensor]]:
    watch = Watch(small.graph, small.settings.detail(small.model))
    with watch.ready(small.model):
        return {number: _held(watch.call(small.model, *batch)) for number, batch in batches.items()}


def _held(output: Any) -> list[torch.Tensor]:
    """The last examples of every floating-point output: those that no layer was fitted to."""
    tensors = [tensor for _, tensor in named_tensors(output, "") if tensor.is_floating_point()]
    return [
        tensor[int(len(tensor) * (1 - HELD)) :].detach().clone() if tensor.dim() else tensor.detach()
        for tensor in tensors
    ]


def _error(
    wanted: Mapping[int, Sequence[torch.Tensor]], given: Mapping[int, Sequence[torch.Tensor]]
) -> tuple[float, float]:
    """Squared error, and squared size of what is wanted, over all outputs that agree in shape."""
    error = size = 0.0
    for number, want in wanted.items():
        for a, b in zip(want, given[number], strict=False):
            if a.shape == b.shape:
                error += float((a.double() - b.double()).square().sum())
                size += float(a.double().square().sum())
    return error, size
