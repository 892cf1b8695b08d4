"""Collectors: contexts in which the user runs a model on data, and scores are gathered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from .._errors import ScoreError
from ..axes import Structure
from ._normalize import Normalize, Scores, normalize_scores
from ._processes import is_distributed, sum_over_processes
from ._samples import ToInputs, detached, example_count, model_inputs

if TYPE_CHECKING:
    from .._ir import PruningIR
    from .._snapshot import Snapshot


class ScoreCollector(ABC):
    """What all criteria that need data share.

    Within the context the collector is called with a sample instead of the model. The first sample
    also records the model, if its snapshot does not exist yet. When the context ends, scores are
    summed over the processes of ``torch.distributed`` (if it is initialised), normalised, and put
    into the snapshot for the selectors. The training flag of the model is the user's: call
    ``model.eval()`` first.

    Args:
        ir: the model.
        snapshot_name: which of its snapshots.
        normalize: how to make groups comparable, see :func:`secateur.criteria.normalize_scores`.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``; by default a dict
            gives keyword arguments, a tuple or list positional ones as far as the model's forward
            has a place for them, anything else is the one argument.
        process_group: processes to sum over; None for all of them.
    """

    def __init__(
        self,
        ir: PruningIR,
        snapshot_name: str = "main",
        *,
        normalize: Normalize | str = Normalize.NONE,
        sample_to_model_inputs: ToInputs | None = None,
        process_group: Any = None,
    ) -> None:
        self._ir = ir
        self._name = snapshot_name
        self._normalize = Normalize(normalize)
        self._to_inputs = sample_to_model_inputs
        self._group = process_group
        self._stack = ExitStack()
        self._inside = False
        self._started = False
        self._open_batch = 0
        self.batches = 0
        self.examples = 0
        self.scores: Scores = {}

    # -- what a criterion defines ------------------------------------------------------------------

    @abstractmethod
    def _start(self, structure: Structure, stack: ExitStack) -> None:
        """Prepare; whatever ``stack`` is given is undone when the context ends."""

    @abstractmethod
    def _finish_batch(self, examples: int) -> bool:
        """Take in what one batch gave; whether it counts."""

    @abstractmethod
    def _sums(self) -> dict[str, torch.Tensor]:
        """What adds up over batches and processes, float64 on the CPU."""

    @abstractmethod
    def _result(self, sums: dict[str, torch.Tensor]) -> Scores:
        """Scores by group from the sums over all batches and processes."""

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._ir.model(*args, **kwargs)

    # -- the context -------------------------------------------------------------------------------

    def __enter__(self) -> ScoreCollector:
        if self._inside:
            raise ScoreError("this criterion is collecting already; one context at a time")
        self._inside, self._started = True, False
        self.batches = self.examples = self._open_batch = 0
        if self._name in self._ir.snapshot_names:
            self._prepare()
        return self

    def __call__(self, sample: Any) -> Any:
        """Run the model on a sample and return its output.

        Raises:
            ScoreError: outside of the context, or if the batch before this one gave NaN.
        """
        if not self._inside:
            name = type(self).__name__
            raise ScoreError(f"call the criterion inside its context: with {name}(ir) as collect: ...")
        to_inputs = self._to_inputs or (lambda given: model_inputs(self._ir.model, given))
        args, kwargs = to_inputs(sample)
        if not self._started:
            if self._name not in self._ir.snapshot_names:
                self._ir.create_snapshot(self._name, *detached((args, kwargs)))
            self._prepare()
        self._close_batch()
        self._open_batch = example_count((args, kwargs))
        return self._run(args, kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._inside = False
        try:
            if kind is None:
                self._end()
            elif issubclass(kind, Exception):  # other processes wait for this one: let them know
                self._tell_failure()
        finally:
            self._stack.close()

    def __repr__(self) -> str:
        name, scored = type(self).__name__, len(self.scores)
        return f"{name}({self.examples} examples in {self.batches} batches, {scored} groups scored)"

    @property
    def _snapshot(self) -> Snapshot:
        return self._ir.snapshot(self._name)

    def _prepare(self) -> None:
        self._start(self._snapshot.structure, self._stack)
        self._started = True

    def _close_batch(self) -> None:
        if self._open_batch:
            examples, self._open_batch = self._open_batch, 0
            if self._finish_batch(examples):
                self.batches += 1
                self.examples += examples

    def _end(self) -> None:
        failure: ScoreError | None = None
        try:
            self._close_batch()
        except ScoreError as error:
            failure = error
        sums = self._sums() if self._started and failure is None else {}
        sums = self._reduce(sums, failure)
        if not self.batches:
            raise ScoreError(
                f"{type(self).__name__} got no batch: call the collector with samples inside the context"
            )
        scores = self._result(sums)
        savings = self._snapshot.savings() if self._normalize is Normalize.MACS else None
        self.scores = normalize_scores(scores, self._normalize, savings=savings)
        self._snapshot.scores = dict(self.scores)

    def _tell_failure(self) -> None:
        sum_over_processes([torch.tensor([0, 0, 1, 0])], self._group)

    def _reduce(self, sums: dict[str, torch.Tensor], failure: ScoreError | None) -> dict[str, torch.Tensor]:
        """Sums over all processes; every process raises if one of them failed."""
        if not is_distributed():
            if failure:
                raise failure
            return sums
        unready = failure is None and not self._started
        header = torch.tensor([self.batches, self.examples, int(failure is not None), int(unready)])
        sum_over_processes([header], self._group)
        self.batches, self.examples, failed, without = map(int, header.tolist())
        if failure:
            raise failure
        if failed:
            raise ScoreError(f"{failed} other processes failed while collecting scores; see their messages")
        if without and self.batches:
            raise ScoreError(
                f"{without} processes got no batch and have not recorded the model: give each at least one "
                f"batch, or create the snapshot first: ir.create_snapshot({self._name!r}, args=(x,))"
            )
        sum_over_processes(sums.values(), self._group)  # the same order everywhere: that of the groups
        return sums
