"""ADMM: weights are pulled towards their pruned projection while the model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ...criteria import l1_norm
from ..config import Target, TargetKind
from ..sites import Key, Sites, block_rows, key_of, spread
from ._allocate import allocate
from ._pruner import Masks, Pruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator

GRANULARITIES = {"fine-grained": "element", "coarse-grained": "out_channel"}


class ADMMPruner(Pruner):
    """Training that ends where little is lost by pruning; default granularity: single elements.

    With ``W`` the weight, ``Z`` its projection (``W`` at first) and ``U`` the dual variable (0 at first),
    every iteration trains with the loss plus ``sum rho / 2 * ||W - Z + U||**2``, and then takes
    ``Z = mask(W + U) * (W + U)`` and ``U = U + W - Z``, where the mask keeps what is largest in ``sum |.|``
    over blocks. The final masks are those of ``W``. No mask is on while the model is trained. Source: Zhang
    et al., "A systematic DNN weight pruning framework using alternating direction method of multipliers"
    (ECCV 2018).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`; ``rho`` is a key of its entries, 1e-4 by default.
        evaluator: trains; in a loop of one's own add :meth:`penalty` to the loss, and call :meth:`step` (with
            ``training_steps``) or :meth:`finish_iteration`.
        iterations: how often ``Z`` and ``U`` are updated.
        training_epochs: epochs of training in each iteration.
        granularity: ``"fine-grained"``, or ``"coarse-grained"`` for output channels.
        existed_wrappers: see :class:`Pruner`.
        training_steps: steps of training in each iteration, instead of epochs.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: for targets that are not parameters, or no iteration.
    """

    trains = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        iterations: int = 1,
        training_epochs: int | None = 1,
        granularity: str = "fine-grained",
        existed_wrappers: Sites | None = None,
        *,
        training_steps: int | None = None,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        if granularity not in GRANULARITIES:
            raise PruningError(f"granularity is one of {sorted(GRANULARITIES)}, got {granularity!r}")
        if iterations < 1:
            raise PruningError(f"iterations is at least 1, got {iterations}")
        self.granularity = GRANULARITIES[granularity]
        self.iterations, self.iteration = iterations, 0
        self.training_epochs, self.training_steps = training_epochs, training_steps
        super().__init__(model, config_list, evaluator, existed_wrappers, mode=mode, dummy_input=dummy_input)
        self.begin()

    def _check(self) -> None:
        for target in self.resolved.targets:
            if target.settings.active and target.kind is not TargetKind.PARAMETER:
                raise PruningError(
                    f"{target.module}, target {target.name!r}: ADMMPruner trains parameters, nothing else"
                )

    def begin(self) -> None:
        """Begin with the first iteration, from the weights as they are."""
        self.iteration = 0
        self._projection = {key_of(t): self.value(t).clone() for t in self._active}
        self._dual = {key: torch.zeros_like(value) for key, value in self._projection.items()}
        self._with_dual = False

    @property
    def _active(self) -> list[Target]:
        return [target for target in self.resolved.targets if target.settings.active]

    def penalty(self) -> Tensor:
        """How far the weights are from their projections; zero after the last iteration."""
        total = torch.zeros(())
        for target in self._active if self.iteration < self.iterations else ():
            key = key_of(target)
            parameter = self.bound_model.get_submodule(target.module)._parameters[target.name]
            assert parameter is not None
            distance = (parameter - self._projection[key] + self._dual[key]).square().sum()
            total = total.to(distance.device) + target.settings.rho / 2 * distance
        return total

    def _observe(self, grad_scale: float) -> None:
        if self.training_steps and self.iteration < self.iterations and self.steps % self.training_steps == 0:
            self.finish_iteration()

    def finish_iteration(self) -> Masks:
        """Update projections and dual variables; after the last iteration make the masks."""
        with torch.no_grad():
            self._with_dual = True
            keeps = allocate(self._scored())
            self._with_dual = False
            for target in self._active:
                self._update(target, keeps[key_of(target)])
        self.iteration += 1
        return self.generate_masks() if self.iteration == self.iterations else self.get_masks()

    def _update(self, target: Target, keep: Tensor) -> None:
        key, value = key_of(target), self.value(target)
        mask = spread(keep, value.shape, target.blocks(tuple(value.shape)))
        self._projection[key] = (value + self._dual[key]) * mask
        self._dual[key] = self._dual[key] + value - self._projection[key]

    def _scores(self, target: Target) -> Tensor:
        value = self.value(target)
        if self._with_dual:
            value = value + self._dual[key_of(target)]
        return l1_norm(block_rows(value, target.blocks(tuple(value.shape))))

    def _train(self, max_steps: int | None, max_epochs: int | None) -> None:
        while self.iteration < self.iterations:
            before = self.iteration
            if self.training_steps:
                super()._train(self.training_steps - self.steps % self.training_steps, None)
            else:
                super()._train(None, self.training_epochs)
                self.finish_iteration()
            if self.iteration == before:
                raise PruningError(f"training was over before {self.training_steps} steps were done")

    @property
    def needed_steps(self) -> int:
        """See :meth:`Compressor.needed_steps`; a training of somebody else's says nothing of epochs."""
        return (self.iterations - self.iteration) * (self.training_steps or 0)

    def _finished(self) -> None:
        if self.iteration < self.iterations:
            raise PruningError(
                f"training was over after {self.iteration} of {self.iterations} iterations: next to other "
                "compressors ADMMPruner needs training_steps, and a training of that many steps for each"
            )

    def _state(self) -> dict[str, Any]:
        def named(values: Mapping[Key, Tensor]) -> dict[str, Tensor]:
            return {".".join(key): value.clone() for key, value in values.items()}

        return {"iteration": self.iteration, "Z": named(self._projection), "U": named(self._dual)}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self.iteration = int(state["iteration"])
        for key in self._projection:
            self._projection[key] = state["Z"][".".join(key)].clone()
            self._dual[key] = state["U"][".".join(key)].clone()
