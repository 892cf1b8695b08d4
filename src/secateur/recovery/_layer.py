"""One weighted sum of the small model, and how it is solved for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ._readers import Candidate
from ._report import Stage
from ._solve import RIDGES, Solution, Sums, solve
from ._stops import Operands, Scene, Stop
from ._sums import Sum
from ._surroundings import Surroundings
from ._targets import Targets

HELD = 0.25
"""Share of the examples of every batch on which strength and use are decided."""


class LayerStop(Stop):
    """Finds the weights that reproduce best, from what the small model has here, what the original gave.

    Args:
        scene: the small model.
        targets: of the original.
        own: the weighted sum in the original.
        twin: the same in the small model.
        behind: what becomes of its result.
    """

    def __init__(
        self, scene: Scene, targets: Targets, own: Candidate, twin: Sum, behind: Surroundings
    ) -> None:
        super().__init__(scene, twin.node.index, targets.schedule.batches[own.node.index])
        self.why = ""
        self.mean = behind.takes_intercept_of(twin)
        self._targets, self._own, self._twin = targets, own, twin
        self._stream = behind.stream if own.node.index in targets.scales else None
        self._streams: dict[int, torch.Tensor] = {}
        self._train, self._held = Sums(), Sums()
        self._operands: tuple[torch.Tensor, torch.Tensor | None] | None = None

    @property
    def name(self) -> str:
        """Path of the layer."""
        return self._own.name

    def glances(self) -> Mapping[int, Callable[[Operands], None]]:
        """Remember what the result will be added to."""
        if self._stream is None:
            return {}
        value = self._stream.value

        def see(operands: Operands) -> None:
            if not self.done:
                self._streams[self.scene.batch] = operands[value].detach()

        return {self._stream.seen: see}

    def take(self, operands: Operands) -> None:
        """Add the rows of one batch."""
        twin, batch, key = self._twin, self.scene.batch, (self._own.node.index, self.scene.batch)
        x, weight = operands[twin.activation].detach(), operands[twin.weight].detach()
        bias = None if twin.bias is None else operands[twin.bias].detach()
        self._operands = weight, bias
        wanted, stream = self._targets.wanted.pop(key, None), self._streams.pop(batch, None)
        problem = self._own.problem
        if wanted is None or problem.positions(twin.layout, x, weight) != self._targets.counts[key]:
            self.why = "it works on other positions than in the original"
            return
        at = self._targets.positions(*key)
        # Positions rise with the examples: the last ones are of examples that are held out.
        cut = int(torch.searchsorted(at, int(self._targets.counts[key] * (1 - HELD))))
        at = at.to(x.device)
        y = wanted.to(x.device)
        if stream is not None:
            y = y + self._astray(key, twin.layout.results(stream, at).float())
        rows = problem.rows(twin.layout, x, weight, at)
        made = problem.made(twin.layout, rows, weight, bias)
        rows = problem.unknowns(rows)
        self._train.add(rows[:, :cut], (y - made)[:, :cut], y[:, :cut])
        self._held.add(rows[:, cut:], (y - made)[:, cut:], y[:, cut:])

    def _astray(self, key: tuple[int, int], now: torch.Tensor) -> torch.Tensor | float:
        """How far the stream is from the original's, in units of the result that is added to it."""
        was = self._targets.streams.pop(key, None)
        if was is None:
            return 0.0
        scale = self._targets.scales[key[0]].to(now.device)
        # A channel that is hardly let through cannot make good for the stream.
        usable = scale.abs() > 1e-2 * scale.abs().mean()
        away = torch.where(usable, (was.to(now.device) - now) / scale, 0.0)
        return away.reshape(len(away), self._own.problem.groups, -1).transpose(0, 1)

    def finish(self) -> Stage | None:
        """Solve, and write the new weights."""
        refused = torch.tensor([float(self._refusal() != "")])
        self.scene.sum(refused)
        if refused.item() or self._operands is None:
            self.why = self._refusal() or "another process cannot solve for it"
            return None
        weight, bias = self._operands
        if bias is not None and not self.scene.owns(bias):
            bias = None
        mean = None if self.mean is None else self.scene.owned.get(self.mean)
        shift = bias if bias is not None else mean
        self._train.reduce(self.scene.sum)
        self._held.reduce(self.scene.sum)
        # Weights that are computed from others (weight norm) stay; the mean is put right even so.
        reason = "" if self.scene.owns(weight) else "its weights are computed from others"
        if self._own.problem.mean:
            reason = "its second moments do not fit into max_memory"
        ridges = () if reason else RIDGES
        found = solve(self._train, self._held, bias=shift is not None, ridges=ridges)
        if reason:
            done = "" if found.change is None else ", only its mean was put right"
            self.why = f"{reason}{done}"
        if found.change is not None:
            problem, change = self._own.problem, found.change
            weights, intercept = problem.changes(self._twin.layout, change.weight, change.bias, weight)
            if found.ridge != float("inf"):
                self.scene.add(weight, weights)
            if intercept is not None and shift is not None:
                intercept = intercept.reshape(shift.shape)
                self.scene.add(shift, intercept if bias is not None else -intercept)
        stage = self._stage(found)
        self._train, self._held = Sums(), Sums()  # their memory is for those to come
        return stage

    def _refusal(self) -> str:
        if self.why or self._operands is None:
            return self.why or "no batch came to it"
        if not self._train.count or not self._held.count:
            return "too few examples to hold some out"
        return ""

    def _stage(self, found: Solution) -> Stage:
        what = "left" if found.change is None else "bias" if found.ridge == float("inf") else "solved"
        rows = self._train.count + self._held.count
        features = self._train.features
        return Stage(self._own.name, what, rows, features, found.ridge, found.before, found.after)
