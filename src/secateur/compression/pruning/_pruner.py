"""The pipeline that all pruners share: wrap, collect, measure, allocate, mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..._errors import PruningError
from ...capture import unwrap
from ...speedups import dummy_inputs
from ..config import Resolved, Target, parse
from ._allocate import Key, Scored, aligned, allocate, key_of, with_settings
from ._blocks import block_counts, block_rows
from ._export import save_masks, save_model
from ._hooked import MaskedActivation, looking
from ._sites import Sites

if TYPE_CHECKING:
    from ..evaluators import Evaluator

Masks = dict[str, dict[str, Tensor]]
MODES = {
    "normal": {},
    "global": {"global_group_id": "all"},
    "dependency_aware": {"dependency_group_id": "auto"},
}


class Pruner:
    """What all pruners share.

    A pruner simulates masks on the model, which goes on being the user's own: parameters keep their
    identity, names and order. A subclass says what a block is worth (:meth:`_measure`, or
    :meth:`_scores` where that takes more than the parameter), and what happens in a step of training.

    Args:
        model: the model; it is masked in place, and given back by :meth:`unwrap_model`.
        config_list: what to prune, and how much; see :mod:`secateur.compression.config`.
        evaluator: how to train and evaluate; pruners that only look at weights need none.
        existed_wrappers: the sites of an earlier pruner of this model; see :meth:`from_compressor`.
        mode: for configurations of NNI 2: ``"global"`` is one global group of all targets,
            ``"dependency_aware"`` dependency groups found in the model.
        dummy_input: inputs to record the model at, where groups are to be found or activations to be seen;
            by default those of the evaluator.

    Raises:
        ConfigError: naming everything that is wrong with the list.
        PruningError: for what this pruner cannot do. The model is as it was.
    """

    granularity: str = "out_channel"
    """What ``"default"`` means for parameters."""
    trains: ClassVar[bool] = False
    """Whether masks are made while the model is trained."""
    looks: ClassVar[bool] = False
    """Whether one forward says what inputs and outputs are worth."""

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        self.bound_model = unwrap(model)
        self.config_list = config_list
        self.evaluator = evaluator
        self.dummy_input = dummy_input
        self.steps = 0
        self.fused_compressors: list[Pruner] = [self]
        self._seen: dict[Key, Tensor] = {}
        self.resolved = self._resolve(config_list, mode)
        self._check()
        self.sites = Sites(self.bound_model) if existed_wrappers is None else existed_wrappers
        self.sites.add(self.resolved.targets)
        self.wrap_model()

    @classmethod
    def from_compressor(
        cls, compressor: Pruner, new_config_list: Sequence[Mapping[str, Any]], *args: Any, **kwargs: Any
    ) -> Self:
        """A pruner that goes on with the model of another one, whose masks stay.

        Both are at work in :meth:`compress` of the new one. Evaluator and dummy input are those of the
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

    # -- masks -------------------------------------------------------------------------------------

    def wrap_model(self) -> None:
        """Switch the masks on."""
        self.sites.wrap()

    def unwrap_model(self) -> None:
        """Switch the masks off and give the model back as it was; its weights are not masked."""
        self._fold()
        self.sites.unwrap()

    def get_masks(self) -> Masks:
        """The masks, ``{module: {target: tensor}}``, one for keep; :class:`ModelSpeedup` takes them."""
        return self.sites.masks()

    def update_masks(self, masks: Mapping[str, Mapping[str, Tensor | None]]) -> None:
        """Set masks by hand.

        Raises:
            PruningError: for a mask without a target, or of another shape; nothing is changed.
        """
        self.sites.write(masks)

    def generate_masks(self) -> Masks:
        """Make masks from what has been collected so far, and switch over to them."""
        self._see()
        with torch.no_grad():
            keeps = allocate(self._scored())
            for (module, name), keep in keeps.items():
                self.sites.write_blocks(self.resolved.target(module, name), keep)
            self._align(keeps)
        return self.get_masks()

    # -- training ----------------------------------------------------------------------------------

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, Masks]:
        """Do everything: train as long as this pruner needs, and make the masks.

        Args:
            max_steps: length of the training in steps of the optimizer.
            max_epochs: or in epochs.

        Returns:
            The model, still masked, and the masks. Call :meth:`unwrap_model` before a speed-up.

        Raises:
            PruningError: for a length that this pruner has no use for, or too short a one.
        """
        self._check_length(max_steps, max_epochs)
        self.wrap_model()
        if self.trains:
            self._train(*self._length(max_steps, max_epochs))
            self._require_done()
        else:
            self.generate_masks()
        return self.bound_model, self.get_masks()

    def step(self, grad_scale: float = 1.0) -> None:
        """Tell the pruner that an optimizer step has been taken; the plain way, in a loop of one's own.

        Args:
            grad_scale: what the loss was multiplied by, ``scaler.get_scale()`` of a gradient scaler.
        """
        self.steps += 1
        self._observe(grad_scale)
        if self._due():
            self.generate_masks()

    def begin(self) -> None:
        """Forget what has been collected, and collect anew."""

    def penalty(self) -> Tensor | float:
        """What this pruner wants added to the loss of a loop of one's own; evaluators do it themselves."""
        return 0.0

    def track_forward(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once, without gradients, to see the activations that are targets."""
        model, flags = self.bound_model, [(m, m.training) for m in self.bound_model.modules()]
        with ExitStack() as stack, torch.no_grad():
            for target in self.resolved.targets:
                masked = self.sites[target]
                if self.looks and target.settings.active and isinstance(masked, MaskedActivation):
                    stack.enter_context(looking(masked, partial(self._look, target)))
            stack.callback(lambda: [setattr(module, "training", flag) for module, flag in flags])
            model.eval()
            model(*args, **kwargs)

    def _look(self, target: Target, tensor: Tensor) -> None:
        self._seen[key_of(target)] = self._measure(block_rows(tensor, target.blocks(tuple(tensor.shape))))

    # -- files -------------------------------------------------------------------------------------

    def export_model(
        self, model_path: str | Path, mask_path: str | Path | None = None
    ) -> tuple[nn.Module, Masks]:
        """Write the weights, masked, and the masks; the model is unwrapped.

        Args:
            model_path: file for the state dict, without masks; ``.safetensors`` or anything else for
                ``torch.save``.
            mask_path: file for the masks, which :class:`ModelSpeedup` and :func:`secateur.speedup` read.

        Returns:
            The unwrapped model, whose masked weights are zero, and the masks.
        """
        masks = self.get_masks()
        self.unwrap_model()
        save_model(self.bound_model, masks, Path(model_path))
        if mask_path is not None:
            save_masks(masks, Path(mask_path))
        return self.bound_model, masks

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on later: tensors, numbers and containers only."""
        return {"steps": self.steps, "masks": self.get_masks(), "own": self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was called."""
        self.sites.write(state["masks"])
        self.steps = int(state["steps"])
        self._set_state(state["own"])

    # -- what a pruner defines ---------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse targets that this pruner has no use for."""

    def _measure(self, rows: Tensor) -> Tensor:
        """From the elements of every block, ``(blocks, elements)``, to its score; the lowest go."""
        raise NotImplementedError

    def _scores(self, target: Target) -> Tensor:
        """The score of every block of a target, of shape ``(blocks,)``."""
        if key_of(target) in self._seen:
            return self._seen[key_of(target)]
        parameter = self.value(target)
        return self._measure(block_rows(parameter, target.blocks(tuple(parameter.shape))))

    def _observe(self, grad_scale: float) -> None:
        """Collect what one step of training gave."""

    def _due(self) -> bool:
        """Whether masks are to be made after this step."""
        return False

    def _length(self, max_steps: int | None, max_epochs: int | None) -> tuple[int | None, int | None]:
        return max_steps, max_epochs

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        if max_steps is not None or max_epochs is not None:
            raise PruningError(
                f"{type(self).__name__} does not train that long: call compress() without arguments"
            )

    def _require_done(self) -> None:
        """Refuse a training that was over before masks could be made."""

    def _fold(self) -> None:
        """Make what has been learned beside the weights part of them."""

    def _state(self) -> dict[str, Any]:
        return {}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        """What :meth:`_state` gave."""

    # -- the pipeline ------------------------------------------------------------------------------

    def value(self, target: Target) -> Tensor:
        """The unmasked value of a parameter or buffer, without history."""
        module = self.bound_model.get_submodule(target.module)
        tensor = module._parameters.get(target.name, module._buffers.get(target.name))
        if tensor is None:
            raise PruningError(
                f"{target.path} is an activation, and {type(self).__name__} has not seen it: call "
                "track_forward(inputs), or give a dummy_input"
            )
        return tensor.detach()

    def counts(self, target: Target) -> tuple[int, ...]:
        """Blocks of a target along every dimension."""
        shape = self.sites.shape(target)
        if shape is None:
            raise PruningError(
                f"{target.module or 'the model'}, target {target.name!r} has not been seen yet: call "
                "track_forward(inputs), or give a dummy_input"
            )
        return block_counts(shape, target.blocks(shape))

    def _resolve(self, config_list: Sequence[Mapping[str, Any]], mode: str) -> Resolved:
        if mode not in MODES:
            raise PruningError(f"mode is one of {sorted(MODES)}, got {mode!r}")
        resolved = parse(config_list, self.bound_model, granularity=self.granularity)
        active = (target for target in resolved.targets if target.settings.active)
        resolved = with_settings(resolved, {key_of(target): MODES[mode] for target in active})
        if not resolved.automatic:
            return resolved
        args, kwargs = self.inputs("dependency groups are to be found in the model")
        return resolved.with_groups(self.bound_model, args, kwargs)

    def inputs(self, reason: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword inputs to run the model with.

        Raises:
            PruningError: if neither the pruner nor the evaluator has any.
        """
        given = self.dummy_input
        if given is None and self.evaluator is not None:
            given = self.evaluator.get_dummy_input()
        if given is None:
            raise PruningError(
                f"{reason}: give {type(self).__name__}(..., dummy_input=x) or an evaluator with one"
            )
        return dummy_inputs(given)

    def _see(self) -> None:
        """Run the model once if there are activations among the targets that nobody has seen."""
        unseen = [
            target
            for target in self.resolved.targets
            if self.sites.shape(target) is None
            or (
                self.looks
                and target.settings.active
                and target.shape is None
                and key_of(target) not in self._seen
            )
        ]
        if unseen:
            args, kwargs = self.inputs(f"{unseen[0].module}, target {unseen[0].name!r} has not been seen yet")
            self.track_forward(*args, **kwargs)

    def _scored(self) -> list[Scored]:
        scored: list[Scored] = []
        for target in self.resolved.targets:
            settings = target.settings
            if settings.active or settings.dependency_group_id is not None:
                counts, shape = self.counts(target), self.sites.shape(target)
                assert shape is not None
                scores = mean_over_processes(self._scores(target)) if settings.active else None
                scored.append(Scored(target, scores, counts, prod(shape) // max(1, prod(counts))))
        return scored

    def _align(self, keeps: Mapping[Key, Tensor]) -> None:
        """Masks of targets that follow others, sources first."""
        for target in self.resolved.ordered:
            align = target.settings.align
            if align is None:
                continue
            source = self.resolved.target(align.module_name, align.target_name)
            mask, shape = self.sites[source].mask, self.sites.shape(source)
            assert mask is not None and shape is not None
            keep = aligned(target, self.counts(target), mask != 0, shape)
            own = keeps.get(key_of(target))
            self.sites.write_blocks(target, keep if own is None else keep & own.to(keep.device))

    def _train(self, max_steps: int | None, max_epochs: int | None) -> None:
        if self.evaluator is None:
            raise PruningError(
                f"{type(self).__name__} trains the model: give an evaluator, or call step() in your own loop"
            )
        with self.evaluator.compressing(self.bound_model, self.fused_compressors):
            self.evaluator.train(max_steps=max_steps, max_epochs=max_epochs)


def mean_over_processes(scores: Tensor) -> Tensor:
    """Scores, the same in every process of ``torch.distributed``: each has seen other data."""
    if not (dist.is_available() and dist.is_initialized()):
        return scores
    total = scores.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
