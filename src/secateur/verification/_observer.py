"""What is compared: a model's outputs, on the inputs of every snapshot and on random ones like them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..capture import Graph, copy_with, like
from ._compare import Verification, compare, draw_inputs, run
from ._decisions import Choice, Decisions, takes_decisions


class Recorded(NamedTuple):
    """A set of inputs, with the graph that was recorded at them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    graph: Graph


class Observer:
    """Runs a reference and a candidate on the same draws of inputs, and compares their outputs."""

    def __init__(self, snapshots: Sequence[Recorded], draws: int = 2) -> None:
        self._snapshots = snapshots
        self._draws = draws
        self._outputs: list[Any] = []
        self._decisions: list[list[Choice]] = []
        self._free = False

    def reference(self, model: nn.Module) -> None:
        """Run the reference on every draw and keep what it puts out and decides."""
        for snapshot, inputs in self._inputs():
            with self._watch(snapshot, None) as decisions:
                self._outputs.append(run(model, *inputs))
            self._decisions.append(decisions.taken if decisions else [])

    def compare(self, model: nn.Module, *, exact: bool = False) -> Verification:
        """Run the candidate on every draw and compare.

        With ``exact`` outputs are to be equal: where they are not, it is measured how much of that is
        the rounding of a model that makes much of little (long flows, splines, recurrences).
        """
        outputs = self._run(model)
        found = compare(self._outputs, outputs, at=self._where())
        if exact and not found.passed:
            draw = torch.Generator().manual_seed(0)
            nudged = copy_with(model, lambda source, name, tensor: like(_nudged(tensor, draw), tensor))
            rounding = compare(outputs, self._run(nudged)).error
            found.rounding = rounding if math.isfinite(rounding) else 0.0
        return found

    def _run(self, model: nn.Module) -> list[Any]:
        outputs: list[Any] = []
        for (snapshot, inputs), imposed in zip(self._inputs(), self._decisions, strict=True):
            with self._watch(snapshot, imposed):
                outputs.append(run(model, *inputs))
        return outputs

    @contextlib.contextmanager
    def _watch(self, snapshot: Recorded, imposed: list[Choice] | None) -> Generator[Decisions | None]:
        if not takes_decisions(snapshot.graph):
            yield None
            return
        with Decisions(imposed) as decisions:
            yield decisions
        self._free |= decisions.free

    def _where(self) -> str:
        names = {name for snapshot in self._snapshots for name in takes_decisions(snapshot.graph)}
        if not names:
            return "the model's outputs"
        chosen = ", ".join(sorted(names))
        where = f"the model's outputs, with the masked model's choices imposed ({chosen})"
        return f"{where} up to the first among another number of positions" if self._free else where

    def _inputs(self) -> Generator[tuple[Recorded, tuple[tuple[Any, ...], dict[str, Any]]]]:
        for snapshot in self._snapshots:
            for inputs in draw_inputs(snapshot.args, snapshot.kwargs, self._draws):
                yield snapshot, inputs


def _nudged(tensor: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """A copy with every number up or down by its last bit."""
    copy = tensor.detach().clone()
    if not copy.is_floating_point():
        return copy
    signs = torch.randint(0, 2, copy.shape, generator=draw).to(copy) * 2 - 1
    return copy + signs * copy * torch.finfo(copy.dtype).eps
