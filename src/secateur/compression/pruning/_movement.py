"""Movement pruning: scores that are learned with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ..config import Target, TargetKind
from ..sites import Sites, key_of
from ._gates import Gates
from ._pruner import Pruner
from ._schedule import cubic, scaled

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class MovementPruner(Pruner):
    """The blocks go whose weights move towards zero in training; default granularity ``out_channel``.

    Score of block b: ``S_b``, 0 at first and trained by an Adam of its own with the gradient that a factor of
    the block would get, ``dL/dS_b = sum over the block of dL/dw * w``, also where the block is masked (a
    straight-through estimator). Masks are made anew after every step of the optimizer, from ``warmup_step``
    on: their ratio grows as ``1 - (1 - t)**3`` until ``cooldown_begin_step``, and stays. With
    ``sparse_threshold`` the score is ``sigmoid(S_b)``, and the loss is given
    ``regular_scale * share of the goal * mean of sigmoid(S)``. Source: Sanh et al., "Movement pruning:
    adaptive sparsity by fine-tuning" (NeurIPS 2020); blocks: Lagunas et al., "Block pruning for faster
    transformers" (EMNLP 2021).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: trains; in a loop of one's own add :meth:`penalty` to the loss and call :meth:`step`.
        warmup_step: steps before the first mask.
        cooldown_begin_step: step from which on the goal is reached.
        regular_scale: weight of the penalty; only with thresholds.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`; needed for inputs and outputs.

    Raises:
        PruningError: if the cool-down begins before the warm-up ends.
    """

    trains = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        warmup_step: int = 0,
        cooldown_begin_step: int = 1,
        regular_scale: float = 1.0,
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        if not 0 <= warmup_step < cooldown_begin_step:
            raise PruningError(
                "the cool-down begins after the warm-up: 0 <= warmup_step < cooldown_begin_step, got "
                f"{warmup_step} and {cooldown_begin_step}"
            )
        self.warmup_step, self.cooldown_begin_step = warmup_step, cooldown_begin_step
        self.regular_scale = regular_scale
        super().__init__(model, config_list, evaluator, existed_wrappers, mode=mode, dummy_input=dummy_input)
        self.goal = self.resolved
        self._see()
        self._gates = Gates(self.sites, [t for t in self.goal.targets if t.settings.active], 0.0, scale=False)

    def _check(self) -> None:
        for target in self.resolved.targets:
            if target.settings.active and target.kind is TargetKind.BUFFER:
                raise PruningError(f"{target.module}.{target.name} is a buffer and does not move in training")

    @property
    def share(self) -> float:
        """Share of the goal at this step."""
        part = (self.steps - self.warmup_step) / (self.cooldown_begin_step - self.warmup_step)
        return cubic(min(max(part, 0.0), 1.0))

    def penalty(self) -> Tensor:
        """Pushes the scores of targets with a threshold down; zero for targets with a ratio."""
        values = [
            self._gates.values[key_of(target)].sigmoid().mean()
            for target in self.goal.targets
            if target.settings.sparse_threshold is not None
        ]
        if not values:
            return torch.zeros(())
        return self.regular_scale * self.share * torch.stack(values).mean()

    def _observe(self, grad_scale: float) -> None:
        self._gates.step(grad_scale)

    def _due(self) -> bool:
        return self.steps > self.warmup_step

    def generate_masks(self) -> dict[str, dict[str, Tensor]]:
        """See :meth:`Pruner.generate_masks`; the ratio is that of the current step."""
        self.resolved = scaled(self.goal, self.share)
        return super().generate_masks()

    def _scores(self, target: Target) -> Tensor:
        score = self._gates.values[key_of(target)].detach()
        return score.sigmoid() if target.settings.sparse_threshold is not None else score

    def _fold(self) -> None:
        self._gates.remove()

    def _wrapped(self) -> None:
        if hasattr(self, "_gates"):
            self._gates.put()

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        if max_steps is None and max_epochs is None:
            raise PruningError(
                "MovementPruner needs compress(max_steps, max_epochs) to know how long to train"
            )
        if max_steps is not None and max_steps < self.cooldown_begin_step:
            raise PruningError(
                f"max_steps={max_steps} is over before the goal is reached at step {self.cooldown_begin_step}"
            )

    @property
    def needed_steps(self) -> int:
        """See :meth:`Compressor.needed_steps`."""
        return max(0, self.cooldown_begin_step - self.steps)

    def _finished(self) -> None:
        if self.steps < self.cooldown_begin_step:
            raise PruningError(
                f"training was over after {self.steps} steps; the goal is reached at step "
                f"{self.cooldown_begin_step}"
            )

    def _state(self) -> dict[str, Any]:
        return {"gates": self._gates.state()}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self._gates.set_state(state["gates"])
