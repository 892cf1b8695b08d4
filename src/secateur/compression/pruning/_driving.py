"""Pruners that drive another one: schedules, rounds, and searches for how much each layer loses."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..._errors import PruningError
from ...speedups import speedup
from ..config import Resolved
from ._export import save_masks, save_model
from ._pruner import Masks, Pruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class DrivingPruner(Pruner):
    """A pruner whose targets, masks and scores are those of another one, for which it sets the goals.

    Args:
        pruner: makes the masks.
        evaluator: that of ``pruner`` unless given.
    """

    trains = True

    def __init__(self, pruner: Pruner, evaluator: Evaluator | None = None) -> None:
        # Not the constructor of the base: everything that it makes is there.
        self.pruner = pruner
        self.bound_model, self.config_list = pruner.bound_model, pruner.config_list
        self.evaluator = evaluator if evaluator is not None else pruner.evaluator
        self.dummy_input, self.sites = pruner.dummy_input, pruner.sites
        self.goal = self.resolved = pruner.resolved
        self.steps, self._seen, self._made = 0, {}, False
        self.fused_compressors = [self, *(other for other in pruner.fused_compressors if other is not pruner)]

    def set_goals(self, resolved: Resolved) -> None:
        """Prune as much as ``resolved`` says from now on."""
        self.pruner.resolved = self.resolved = resolved

    def generate_masks(self) -> Masks:
        """See :meth:`Pruner.generate_masks`."""
        return self.pruner.generate_masks()

    def penalty(self) -> Tensor | float:
        """See :meth:`Pruner.penalty`."""
        return self.pruner.penalty()

    def patch_loss(self, loss: Tensor, batch: Any) -> Tensor:
        """See :meth:`Compressor.patch_loss`."""
        return self.pruner.patch_loss(loss, batch)

    def before_training(self, evaluator: Evaluator) -> None:
        """See :meth:`Compressor.before_training`; when masks are made is said here, not by the pruner."""

    def _wrapped(self) -> None:
        self.pruner._wrapped()

    def _fold(self) -> None:
        self.pruner._fold()

    def _state(self) -> dict[str, Any]:
        return self.pruner._own_state()

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self.pruner._set_own_state(state)


@dataclass(frozen=True)
class Round:
    """What one round, trial or episode came to.

    Attributes:
        number: from 0.
        ratios: goal of every target, by module and target.
        masks: the masks.
        score: of the evaluation; None if there was none.
    """

    number: int
    ratios: dict[tuple[str, str], float]
    masks: Masks
    score: float | None


class SearchingPruner(DrivingPruner):
    """A pruner that makes masks several times and remembers what came of it.

    Args:
        pruner: makes the masks.
        evaluator: evaluates.
        log_dir: folder for what is kept.
        keep_intermediate_result: write weights and masks of every round there.
        speedup: evaluate a smaller copy instead of the masked model: the same predictions, in less time.
    """

    def __init__(
        self,
        pruner: Pruner,
        evaluator: Evaluator | None,
        log_dir: str | Path = ".",
        keep_intermediate_result: bool = False,
        speedup: bool = False,
    ) -> None:
        super().__init__(pruner, evaluator)
        self.results: list[Round] = []
        self._folder = Path(log_dir) if keep_intermediate_result else None
        self._speedup = speedup

    def get_best_result(self) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Number, model, masks, score and configuration of the best round, or of the last without scores.

        Raises:
            PruningError: before :meth:`compress`.
        """
        if not self.results:
            raise PruningError("there is no result yet: call compress() first")
        best = self._best()
        config = [
            {"op_names": [module], "target_names": [name], "sparse_ratio": ratio}
            for (module, name), ratio in best.ratios.items()
        ]
        return best.number, self.bound_model, best.masks, best.score, config

    def _best(self) -> Round:
        scored = [result for result in self.results if result.score is not None]
        return max(scored, key=lambda r: r.score or 0.0) if scored else self.results[-1]

    def remember(self, score: float | None) -> Round:
        """Note the masks of the moment."""
        ratios = {
            (t.module, t.name): float(t.settings.sparse_ratio)
            for t in self.resolved.targets
            if t.settings.sparse_ratio is not None
        }
        result = Round(len(self.results), ratios, self.get_masks(), score)
        self.results.append(result)
        if self._folder is not None:
            self._write(result, self._folder / f"{type(self).__name__}_{result.number}")
        return result

    def evaluate(self) -> float:
        """The score of the masked model.

        Raises:
            PruningError: without an evaluator that evaluates.
        """
        if self.evaluator is None:
            raise PruningError(f"{type(self).__name__} needs an evaluator that evaluates")
        model = self._compact() if self._speedup else self.bound_model
        self.evaluator.bind_model(model)
        try:
            return self.evaluator.score()
        finally:
            self.evaluator.unbind_model()

    def _compact(self) -> nn.Module:
        """A smaller copy of the masked model."""
        args, kwargs = self.inputs("speedup=True evaluates a smaller copy")
        masks = self.get_masks()
        self.unwrap_model()
        try:
            small = deepcopy(self.bound_model)
        finally:
            self.wrap_model()
        speedup(small, args, kwargs, masks, on_inexact="keep")
        return small

    def _write(self, result: Round, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.unwrap_model()
        try:
            save_model(deepcopy(self.bound_model), result.masks, folder / "model.pt")
        finally:
            self.wrap_model()
        save_masks(result.masks, folder / "masks.pt")

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        """How long a round is trained is up to the user."""
