"""The small model, run over all batches in step: a layer is solved when all have reached it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..axes import Analysis
from ..capture import Detail, Graph, Visit, Watch
from ._batch_norm import StatisticsStop, find_batch_norms
from ._layer import LayerStop
from ._lockstep import Run
from ._memory import release_memory
from ._readers import find_twin_sums, find_twins
from ._report import Stage
from ._stops import Operands, Scene, Stop
from ._surroundings import Readers
from ._targets import Inputs, Targets, by_node


class Student:
    """Solves the layers of a small model one after the other.

    ``solving`` is how many seconds sums and solutions took.

    Args:
        model: the small model; its weights change in place.
        analysis: of its graph.
        detail: how finely it was recorded.
        targets: what the original gave.
        original: the original's graph.
        group: processes to sum over.
    """

    def __init__(
        self,
        model: nn.Module,
        analysis: Analysis,
        detail: Detail,
        targets: Targets,
        original: Graph,
        group: Any = None,
    ) -> None:
        self.skipped = dict(targets.skipped)
        self.solving = 0.0
        self.scene = Scene(model, group)
        self._model = model
        self._stops = self._find_stops(analysis, targets, original)
        visits: list[tuple[int, Visit]] = []
        for stop in self._stops:
            visits += stop.glances().items()
        # Behind the glances: a run sees what it needs before it stops.
        visits += [(stop.node, self._meet(stop)) for stop in self._stops]
        self._watch = Watch(analysis.graph, detail, visits=by_node(visits))
        self._runs: list[Run] = []

    def _find_stops(self, analysis: Analysis, targets: Targets, original: Graph) -> list[Stop]:
        twins, readers = find_twins(original, analysis.graph), Readers(analysis)
        sums = find_twin_sums(targets.candidates, original, analysis)
        layers: list[LayerStop] = []
        for own in targets.candidates:
            twin = sums.get(own.node.index)
            if twin is None:
                self.skipped[own.name] = "the small model computes it in another way"
            else:
                layers.append(LayerStop(self.scene, targets, own, twin, readers.behind(twin.node)))
        # A BatchNorm that takes the intercept of the layer before it gets no other statistics.
        taken = {layer.mean for layer in layers}
        before = {twins[node]: found for node, found in targets.statistics.items() if node in twins}
        norms: list[StatisticsStop] = []
        for norm in find_batch_norms(analysis):
            batches = [layer.batches for layer in layers if layer.node < norm.node.index]
            if batches and norm.node.index in before and norm.mean.name not in taken:
                norms.append(StatisticsStop(self.scene, norm, max(batches), before[norm.node.index]))
        return sorted([*layers, *norms], key=lambda stop: stop.node)

    def _meet(self, stop: Stop) -> Visit:
        def visit(operands: Operands) -> None:
            if not stop.done:
                with self._solves():
                    stop.take(operands)
                self._runs[self.scene.batch].pause()

        return visit

    @contextmanager
    def _solves(self) -> Generator[None]:
        """Adds up how long the body takes."""
        start = time.perf_counter()
        yield
        self.solving += time.perf_counter() - start

    def __len__(self) -> int:
        return len(self._stops)

    def run(
        self, batches: Sequence[Inputs], told: Callable[[], None], ended: Callable[[int, Any], None]
    ) -> list[Stage]:
        """Solve everything, and say what was done.

        If anything is raised, an interrupt included, the model is as it was.

        Args:
            batches: positional and keyword inputs.
            told: called after every layer.
            ended: called at the end of every batch, with its number and what the solved model put out.
        """
        stages: list[Stage] = []

        def work(number: int) -> Callable[[Run], None]:
            def call(run: Run) -> None:
                ended(number, self._watch.call(self._model, *batches[number]))

            return call

        try:
            with self._watch.ready(self._model):
                for stop in self._stops:
                    self._advance(min(stop.batches, len(batches)), work)
                    with self._solves():
                        stage = stop.finish()
                    stop.done = True
                    if stage is not None:
                        stages.append(stage)
                    if isinstance(stop, LayerStop) and stop.why:
                        self.skipped[stop.name] = stop.why
                    release_memory()
                    told()
                self._advance(len(batches), work)
        except BaseException:
            self.scene.undo()
            raise
        finally:
            for run in self._runs:
                run.abandon()
        return stages

    def _advance(self, count: int, work: Callable[[int], Callable[[Run], None]]) -> None:
        """Let in as many batches, and let every one go to its next stop."""
        self._runs += [Run(work(number)) for number in range(len(self._runs), count)]
        for number, run in enumerate(self._runs):
            self.scene.batch = number
            run.go()
