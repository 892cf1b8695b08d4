"""The life of a compressor: it wraps a model, takes part in its training, and gives it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..._errors import CompressionError
from ...capture import unwrap
from ...speedups import dummy_inputs
from ..config import PRUNING, Mode, Resolved, parse
from ..sites import Sites

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class Compressor:
    """What pruners, quantisers and distillers share.

    A compressor simulates on the model, which goes on being the user's own: parameters keep their identity,
    names and order. Several compressors of one model, made from each other by :meth:`from_compressor`, share
    its sites and one training: :meth:`compress` of the last of them is the training of all.

    Args:
        model: the model; it is compressed in place, and given back by :meth:`unwrap_model`.
        config_list: what to do with which tensor; see :mod:`secateur.compression.config`.
        evaluator: how to train and evaluate.
        existed_wrappers: the sites of an earlier compressor of this model; see :meth:`from_compressor`.
        dummy_input: inputs to run the model at, where it has to be seen; by default those of the evaluator.

    Attributes:
        bound_model: the model.
        resolved: the configuration, resolved for it.
        sites: the simulated targets of all compressors of the model.
        steps: steps of the optimizer that this compressor has been told of.
        fused_compressors: this one, then those that it was made from, newest first.

    Raises:
        ConfigError: naming everything that is wrong with the list.
        CompressionError: for what this compressor cannot do. The model is as it was.
    """

    mode: ClassVar[Mode] = PRUNING
    """What config lists are for."""
    granularity: str = "out_channel"
    """What ``"default"`` means for parameters."""
    trains: ClassVar[bool] = False
    """Whether the model has to be trained for it."""
    error: ClassVar[type[CompressionError]] = CompressionError
    """What it raises on its own account."""

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: Sites | None = None,
        *,
        dummy_input: Any = None,
    ) -> None:
        self.bound_model = unwrap(model)
        self.config_list = config_list
        self.evaluator = evaluator
        self.dummy_input = dummy_input
        self.steps = 0
        self.fused_compressors: list[Compressor] = [self]
        self.resolved = self._resolve(config_list)
        self._check()
        self.sites = Sites(self.bound_model) if existed_wrappers is None else existed_wrappers
        self._add_sites()
        self.wrap_model()

    @classmethod
    def from_compressor(
        cls, compressor: Compressor, new_config_list: Sequence[Mapping[str, Any]], *args: Any, **kwargs: Any
    ) -> Self:
        """A compressor that goes on with the model of another one of any kind, which stays at work.

        Both take part in :meth:`compress` of the new one. Evaluator and dummy input are those of the
        other one unless given.
        """
        compressor.sites.unwrap()  # what the other one has collected and learned stays
        kwargs.setdefault("dummy_input", compressor.dummy_input)
        kwargs.setdefault("evaluator", compressor.evaluator)
        try:
            new = cls(
                compressor.bound_model, new_config_list, *args, existed_wrappers=compressor.sites, **kwargs
            )
        finally:
            compressor.sites.wrap()
        new.fused_compressors = [new, *compressor.fused_compressors]
        return new

    # -- the model ---------------------------------------------------------------------------------

    def wrap_model(self) -> None:
        """Switch the simulation on, that of all compressors of the model."""
        self.sites.wrap()
        for compressor in self.fused_compressors:
            compressor._wrapped()

    def unwrap_model(self) -> None:
        """Switch the simulation off and give the model back; its weights are neither masked nor quantised."""
        for compressor in self.fused_compressors:
            compressor._fold()
        self.sites.unwrap()

    def track_forward(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once in eval mode, without gradients, to see the activations that are targets."""
        flags = [(module, module.training) for module in self.bound_model.modules()]
        with ExitStack() as stack, torch.no_grad():
            stack.callback(lambda: [setattr(module, "training", flag) for module, flag in flags])
            self._watch(stack)
            self.bound_model.eval()
            self.bound_model(*args, **kwargs)

    def inputs(self, reason: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword inputs to run the model with.

        Raises:
            CompressionError: if neither the compressor nor the evaluator has any.
        """
        given = self.dummy_input
        if given is None and self.evaluator is not None:
            given = self.evaluator.get_dummy_input()
        if given is None:
            raise self.error(
                f"{reason}: give {type(self).__name__}(..., dummy_input=x) or an evaluator with one"
            )
        return dummy_inputs(given)

    # -- training ----------------------------------------------------------------------------------

    def compress(self, max_steps: int | None = None, max_epochs: int | None = None) -> Any:
        """Do everything: train the model for as long as all fused compressors need, in one go.

        Args:
            max_steps: length of the training in steps of the optimizer.
            max_epochs: or in epochs.

        Returns:
            The model, still simulated; a pruner gives its masks too, a quantiser its calibration config.

        Raises:
            CompressionError: for a length that this compressor has no use for, or too short a one.
        """
        self._check_length(max_steps, max_epochs)
        self._check_others(max_steps)
        self.wrap_model()
        if self._training_is_wanted(max_steps, max_epochs):
            self._train(*self._length(max_steps, max_epochs))
            for compressor in self.fused_compressors:
                compressor._finished()
        else:
            self._without_training()
        return self._result()

    def step(self, grad_scale: float = 1.0) -> None:
        """Tell it that an optimizer step has been taken; the plain way, in a loop of one's own.

        Args:
            grad_scale: what the loss was multiplied by, ``scaler.get_scale()`` of a gradient scaler.
        """
        self.steps += 1

    def penalty(self) -> Tensor | float:
        """What it wants added to the loss of a loop of one's own; evaluators do it themselves."""
        return 0.0

    def patch_loss(self, loss: Tensor, batch: Any) -> Tensor:
        """The loss that is trained with, from that of the user, or of the compressors that are newer."""
        return loss + self.penalty()

    @property
    def needed_steps(self) -> int:
        """Steps that it still needs of a training that somebody else decides the length of."""
        return 0

    def before_training(self, evaluator: Evaluator) -> None:
        """A training of all compressors begins; the evaluator has the model."""

    def after_training(self, evaluator: Evaluator) -> None:
        """It is over, or has failed; the evaluator still has the model."""

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on later: tensors, numbers and containers only.

        That of all fused compressors; saved of the last, it needs no other.
        """
        return {**self._own_state(), "fused": [c._own_state() for c in self.fused_compressors[1:]]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was called."""
        saved = state.get("fused", [])
        others = self.fused_compressors[1:]
        if len(saved) != len(others):
            raise self.error(
                f"the state is of {len(saved) + 1} fused compressors, and {type(self).__name__} is one of "
                f"{len(others) + 1}"
            )
        for compressor, own in zip(reversed(others), reversed(saved), strict=True):
            compressor._set_own_state(own)
        self._set_own_state(state)

    # -- what a kind of compressor defines ---------------------------------------------------------

    def _resolve(self, config_list: Sequence[Mapping[str, Any]]) -> Resolved:
        return parse(config_list, self.bound_model, mode=self.mode, granularity=self.granularity)

    def _check(self) -> None:
        """Refuse targets that it has no use for."""

    def _add_sites(self) -> None:
        """Take its targets into the sites, which are not wrapped at this moment."""
        self.sites.add(self.resolved.targets)

    def _wrapped(self) -> None:
        """The model has been wrapped: put on what does not belong to the sites."""

    def _fold(self) -> None:
        """The model is about to be unwrapped: make what was learned beside the weights part of them."""

    def _watch(self, stack: ExitStack) -> None:
        """The model is about to run in :meth:`track_forward`: look at what the run shows, until the end."""

    def _training_is_wanted(self, max_steps: int | None, max_epochs: int | None) -> bool:
        given = max_steps is not None or max_epochs is not None
        return self.trains or (given and any(c.trains for c in self.fused_compressors))

    def _without_training(self) -> None:
        """Do everything without a training."""

    def _length(self, max_steps: int | None, max_epochs: int | None) -> tuple[int | None, int | None]:
        return max_steps, max_epochs

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        """Refuse a length that it has no use for."""

    def _finished(self) -> None:
        """The training came to its end: do what is left to do, or refuse it if it was too short."""

    def _result(self) -> Any:
        return self.bound_model

    def _own_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "own": self._state()}

    def _set_own_state(self, state: Mapping[str, Any]) -> None:
        self.steps = int(state["steps"])
        self._set_state(state["own"])

    def _state(self) -> dict[str, Any]:
        return {}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        """What :meth:`_state` gave."""

    # ----------------------------------------------------------------------------------------------

    def _check_others(self, max_steps: int | None) -> None:
        for other in self.fused_compressors[1:]:
            if max_steps is not None and max_steps < other.needed_steps:
                raise self.error(
                    f"max_steps={max_steps} is over before {type(other).__name__} is done, which takes part: "
                    f"train for at least {other.needed_steps}"
                )

    def _train(self, max_steps: int | None, max_epochs: int | None) -> None:
        if self.evaluator is None:
            raise self.error(
                f"{type(self).__name__} trains the model: give an evaluator, or call step() in your own loop"
            )
        with self.evaluator.compressing(self.bound_model, self.fused_compressors):
            self.evaluator.train(max_steps=max_steps, max_epochs=max_epochs)
