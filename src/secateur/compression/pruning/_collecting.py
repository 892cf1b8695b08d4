"""What pruners share that collect for some steps of training, and then make their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ..._errors import PruningError
from ..sites import Sites, key_of
from ._pruner import Pruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class CollectingPruner(Pruner):
    """A pruner that collects for ``training_steps`` steps and then makes its masks.

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: trains; not needed by who calls :meth:`step` himself.
        training_steps: steps to collect for.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`.
    """

    trains = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        training_steps: int = 1,
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        if training_steps < 1:
            raise PruningError(f"training_steps is at least 1, got {training_steps}")
        self.training_steps = training_steps
        self.collected = 0
        super().__init__(model, config_list, evaluator, existed_wrappers, mode=mode, dummy_input=dummy_input)
        self.begin()

    def begin(self) -> None:
        """Start to collect, from nothing."""
        self.collected = 0

    def end(self) -> None:
        """Stop collecting, and keep what there is."""

    def collect(self, grad_scale: float = 1.0) -> bool:
        """Take in what one step gave, as long as there is something to collect for; whether it was."""
        if self.collected >= self.training_steps:
            return False
        self._observe(grad_scale)
        self.collected += 1
        if self.collected == self.training_steps:
            self.end()
        return True

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Compressor.step`."""
        self.steps += 1
        if self.collect(grad_scale) and self.collected == self.training_steps:
            self.generate_masks()

    def _length(self, max_steps: int | None, max_epochs: int | None) -> tuple[int | None, int | None]:
        if max_steps is not None or max_epochs is not None:
            return max_steps, max_epochs
        return max(other.needed_steps for other in self.fused_compressors), None

    @property
    def needed_steps(self) -> int:
        """See :meth:`Compressor.needed_steps`."""
        return self.training_steps - self.collected

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        super()._check_length(max_steps, max_epochs)
        if max_steps is not None and max_steps < self.needed_steps:
            raise PruningError(
                f"max_steps={max_steps} is over before the {self.needed_steps} steps to collect for are"
            )

    def _finished(self) -> None:
        if self.collected < self.training_steps:
            raise PruningError(
                f"training was over after {self.collected} of {self.training_steps} steps: no masks were "
                "made. Does the training function heed max_steps, and is there enough data?"
            )

    def _fold(self) -> None:
        self.end()

    def _state(self) -> dict[str, Any]:
        return {"collected": self.collected, "seen": {".".join(k): v for k, v in self._seen.items()}}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self.collected = int(state["collected"])
        for target in self.resolved.targets:
            saved = state["seen"].get(".".join(key_of(target)))
            if saved is not None:
                self._seen[key_of(target)] = saved.clone()
