"""The pipeline that all pruners share: wrap, collect, measure, allocate, mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..._errors import PruningError
from ..base import Compressor
from ..config import Resolved, Target
from ..sites import ActivationSite, Key, Sites, block_counts, block_rows, key_of, looking
from ._allocate import Scored, aligned, allocate, with_settings
from ._export import save_masks, save_model

if TYPE_CHECKING:
    from ..evaluators import Evaluator

Masks = dict[str, dict[str, Tensor]]
MODES = {
    "normal": {},
    "global": {"global_group_id": "all"},
    "dependency_aware": {"dependency_group_id": "auto"},
}


class Pruner(Compressor):
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

    error = PruningError
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
        self._scope = mode
        self._seen: dict[Key, Tensor] = {}
        self._made = False
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    # -- masks -------------------------------------------------------------------------------------

    def get_masks(self) -> Masks:
        """The masks, ``{module: {target: tensor}}``, one for keep; :class:`ModelSpeedup` takes them."""
        return self.sites.masks()

    def update_masks(self, masks: Mapping[str, Mapping[str, Tensor | None]]) -> None:
        """Set masks by hand.

        Raises:
            PruningError: for a mask without a target, or of another shape; nothing is changed.
        """
        self.sites.write(masks)
        self._made = True

    def generate_masks(self) -> Masks:
        """Make masks from what has been collected so far, and switch over to them."""
        self._see()
        with torch.no_grad():
            keeps = allocate(self._scored())
            for (module, name), keep in keeps.items():
                self.sites.write_blocks(self.resolved.target(module, name), keep)
            self._align(keeps)
        self._made = True
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
        return super().compress(max_steps, max_epochs)

    def before_training(self, evaluator: Evaluator) -> None:
        """See :meth:`Compressor.before_training`; masks that need no training are made now, if none are."""
        if not self.trains and not self._made:
            self.generate_masks()

    def step(self, grad_scale: float = 1.0) -> None:
        """See :meth:`Compressor.step`."""
        super().step(grad_scale)
        self._observe(grad_scale)
        if self._due():
            self.generate_masks()

    def begin(self) -> None:
        """Forget what has been collected, and collect anew."""

    def _watch(self, stack: ExitStack) -> None:
        for target in self.resolved.targets:
            site = self.sites[target]
            if self.looks and target.settings.active and isinstance(site, ActivationSite):
                stack.enter_context(looking(site, partial(self._look, target)))

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

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "masks": self.get_masks()}

    def _set_own_state(self, state: Mapping[str, Any]) -> None:
        self.update_masks(state["masks"])
        super()._set_own_state(state)

    # -- what a pruner defines ---------------------------------------------------------------------

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

    def _add_sites(self) -> None:
        self.sites.add(self.resolved.targets, masked=True)

    def _check_length(self, max_steps: int | None, max_epochs: int | None) -> None:
        given = max_steps is not None or max_epochs is not None
        if given and not any(other.trains for other in self.fused_compressors[1:]):
            raise PruningError(
                f"{type(self).__name__} does not train that long: call compress() without arguments"
            )

    def _without_training(self) -> None:
        self.generate_masks()

    def _result(self) -> tuple[nn.Module, Masks]:
        return self.bound_model, self.get_masks()

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

    def _resolve(self, config_list: Sequence[Mapping[str, Any]]) -> Resolved:
        if self._scope not in MODES:
            raise PruningError(f"mode is one of {sorted(MODES)}, got {self._scope!r}")
        resolved = super()._resolve(config_list)
        active = (target for target in resolved.targets if target.settings.active)
        resolved = with_settings(resolved, {key_of(target): MODES[self._scope] for target in active})
        if not resolved.automatic:
            return resolved
        args, kwargs = self.inputs("dependency groups are to be found in the model")
        return resolved.with_groups(self.bound_model, args, kwargs)

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


def mean_over_processes(scores: Tensor) -> Tensor:
    """Scores, the same in every process of ``torch.distributed``: each has seen other data."""
    if not (dist.is_available() and dist.is_initialized()):
        return scores
    total = scores.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
