"""All masked targets of one model, which successive pruners share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._errors import PruningError
from ..config import Target, TargetKind
from ._allocate import Key, key_of
from ._blocks import spread
from ._hooked import MaskedActivation, MaskedBuffer
from ._simulation import Gate, MaskedParameter

Masked = MaskedParameter | MaskedBuffer | MaskedActivation


class Sites:
    """The masked targets of a model.

    Attributes:
        model: the model.
        wrapped: whether masks are on at the moment.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.wrapped = False
        self._masked: dict[Key, Masked] = {}
        self._handles: list[RemovableHandle] = []
        self._kept: dict[Key, Tensor] = {}

    def add(self, targets: Iterable[Target]) -> None:
        """Take in more targets; those that are there already are shared. Only before :meth:`wrap`."""
        for target in targets:
            if key_of(target) not in self._masked:
                self._masked[key_of(target)] = _masked(self.model, target)

    def __getitem__(self, target: Target) -> Masked:
        return self._masked[key_of(target)]

    def wrap(self) -> None:
        """Switch masks on; after :meth:`unwrap`, the masks that there were."""
        if self.wrapped:
            return
        tied: dict[nn.Parameter, Key] = {}
        for key, masked in self._masked.items():
            if isinstance(masked, MaskedParameter):
                first = tied.setdefault(masked.parameter, key)
                if first != key:
                    raise PruningError(
                        f"{'.'.join(key)} and {'.'.join(first)} are one parameter: configure one of them, "
                        "the mask holds for both"
                    )
        for masked in self._masked.values():
            if isinstance(masked, MaskedParameter):
                masked.wrap()
            else:
                self._handles += masked.hook()
        for key, keep in self._kept.items():
            self._masked[key].write(keep)
        self.wrapped = True

    def unwrap(self) -> None:
        """Switch masks off and give the model back as it was; weights keep their unmasked values."""
        if not self.wrapped:
            return
        self._kept = {key: m.mask.clone() for key, m in self._masked.items() if m.mask is not None}
        while self._handles:
            self._handles.pop().remove()
        for masked in self._masked.values():
            if isinstance(masked, MaskedParameter):
                masked.unwrap()
            else:
                masked.unhook()
        self.wrapped = False

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """All masks, by module and target; one where something is kept.

        The mask of an additive target has minus infinity in place of zero and zero in place of one, as
        masks that are added always have.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for (module, name), masked in self._masked.items():
            mask = masked.mask if self.wrapped else self._kept.get((module, name))
            if mask is not None:
                found.setdefault(module, {})[name] = _given(mask, masked.target.settings.apply_method)
        return found

    def write(self, masks: Mapping[str, Mapping[str, Tensor | None]]) -> None:
        """Set masks, as :meth:`masks` gives them.

        Raises:
            PruningError: naming the first that has no place or the wrong shape; nothing is changed.
        """
        values: list[tuple[Key, Tensor]] = []
        for module, targets in masks.items():
            for name, mask in targets.items():
                masked = self._masked.get((module, name))
                if masked is None:
                    known = ", ".join(sorted(".".join(key) for key in self._masked))
                    raise PruningError(
                        f"{module}.{name} is no target of this pruner; its targets are {known}"
                    )
                if mask is not None:
                    values.append(((module, name), self._checked(masked, mask)))
        for key, keep in values:
            if self.wrapped:
                self._masked[key].write(keep)
            else:
                self._kept[key] = keep

    def _checked(self, masked: Masked, mask: Tensor) -> Tensor:
        keep = mask == 0 if masked.target.settings.apply_method == "add" else mask != 0
        shape = masked.target.shape
        if shape is not None and (
            keep.dim() != len(shape) or any(m not in (1, n) for m, n in zip(keep.shape, shape, strict=True))
        ):
            raise PruningError(f"{masked.target.path} has shape {shape} and its mask {tuple(mask.shape)}")
        return keep

    def shape(self, target: Target) -> tuple[int, ...] | None:
        """Shape of a target; of inputs and outputs that of the last that was seen."""
        masked = self[target]
        return masked.shape if isinstance(masked, MaskedActivation) else target.shape

    def frame(self, target: Target) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of the mask of a target, and of its blocks; masks of activations are compact."""
        shape = self.shape(target)
        assert shape is not None
        blocks = target.blocks(shape)
        if target.kind in (TargetKind.PARAMETER, TargetKind.BUFFER):
            return shape, blocks
        compact = tuple(1 if b == n else n for b, n in zip(blocks, shape, strict=True))
        return compact, tuple(min(b, n) for b, n in zip(blocks, compact, strict=True))

    def write_blocks(self, target: Target, keep: Tensor) -> None:
        """Set the mask of a target from one value a block."""
        self[target].write(spread(keep, *self.frame(target)))

    def set_gate(self, target: Target, value: Tensor | None, *, scale: bool = False) -> None:
        """Put a number on every block of a target, or take them off."""
        masked = self[target]
        if value is None:
            masked.set_gate(None)
            return
        shape, blocks = self.frame(target)
        if masked.mask is None:
            masked.write(torch.ones(shape))
        masked.set_gate(Gate(value, blocks, scale))


def _masked(model: nn.Module, target: Target) -> Masked:
    if target.kind is TargetKind.PARAMETER:
        return MaskedParameter(model, target)
    module = model.get_submodule(target.module)
    return (MaskedBuffer if target.kind is TargetKind.BUFFER else MaskedActivation)(module, target)


def _given(mask: Tensor, apply_method: str) -> Tensor:
    if apply_method != "add":
        return mask.clone()
    return torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)
