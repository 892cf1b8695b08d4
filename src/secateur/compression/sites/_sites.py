"""All simulated targets of one model, which successive compressors share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._errors import CompressionError, PruningError
from ..config import Target, TargetKind
from ._blocks import spread
from ._hooked import ActivationSite, BufferSite
from ._parameters import ParameterSite
from ._site import Gate, Key, Reading, key_of

AnySite = ParameterSite | BufferSite | ActivationSite


class Extra(Protocol):
    """Something of a compressor that goes on and off with the sites, after the last of them."""

    def wrap(self) -> None:
        """Put it on."""
        ...

    def unwrap(self) -> None:
        """Take it off."""
        ...


class Sites:
    """The simulated targets of a model.

    Attributes:
        model: the model.
        wrapped: whether masks, readings and extras are on at the moment.
        extras: what goes on and off with them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.wrapped = False
        self.extras: list[Extra] = []
        self._sites: dict[Key, AnySite] = {}
        self._handles: list[RemovableHandle] = []
        self._kept: dict[Key, Tensor] = {}

    def add(self, targets: Iterable[Target], *, masked: bool = False) -> None:
        """Take in more targets; those that are there already are shared. Only before :meth:`wrap`.

        Args:
            targets: the targets; with ``masked``, their settings say how the mask acts.
            masked: whether they get masks.
        """
        targets = list(targets)
        new = {key_of(t): _site(self.model, t) for t in targets if key_of(t) not in self._sites}
        self._check_tied(new)
        self._sites |= new
        for target in targets if masked else ():
            if not self[target].site.has_mask:
                self[target].set_mask(target.settings.apply_method)

    def _check_tied(self, new: dict[Key, AnySite]) -> None:
        tied: dict[nn.Parameter, Key] = {}
        for key, site in (self._sites | new).items():
            if isinstance(site, ParameterSite):
                first = tied.setdefault(site.parameter, key)
                if first != key:
                    raise CompressionError(
                        f"{'.'.join(key)} and {'.'.join(first)} are one parameter: configure one of them, "
                        "what is done holds for both"
                    )

    def set_readings(self, readings: Sequence[tuple[Target, Reading]]) -> None:
        """Say what is made of targets when they are read, after their masks. Only before :meth:`wrap`.

        Raises:
            CompressionError: if another compressor has said so, or a target is a buffer; nothing is changed.
        """
        for target, _ in readings:
            if self[target].site.reading is not None:
                raise CompressionError(
                    f"{target.path} is quantised by another quantiser of this model already: "
                    "configure it once"
                )
            if target.kind is TargetKind.BUFFER:
                raise CompressionError(f"{target.path} is a buffer: it can be masked, nothing else")
        for target, reading in readings:
            self[target].set_reading(reading)

    def __getitem__(self, target: Target) -> AnySite:
        return self._sites[key_of(target)]

    def wrap(self) -> None:
        """Switch everything on; after :meth:`unwrap`, with the masks that there were."""
        if self.wrapped:
            return
        for site in self._sites.values():
            if isinstance(site, ParameterSite):
                site.wrap()
            else:
                self._handles += site.hook()
        for key, keep in self._kept.items():
            self._sites[key].write(keep)
        for extra in self.extras:
            extra.wrap()
        self.wrapped = True

    def unwrap(self) -> None:
        """Switch everything off and give the model back as it was; weights keep their own values."""
        if not self.wrapped:
            return
        for extra in reversed(self.extras):
            extra.unwrap()
        self._kept = {key: m.mask.clone() for key, m in self._sites.items() if m.mask is not None}
        while self._handles:
            self._handles.pop().remove()
        for site in self._sites.values():
            if isinstance(site, ParameterSite):
                site.unwrap()
            else:
                site.unhook()
        self.wrapped = False

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """All masks, by module and target; one where something is kept.

        The mask of an additive target has minus infinity in place of zero and zero in place of one, as
        masks that are added always have.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for (module, name), site in self._sites.items():
            mask = site.mask if self.wrapped else self._kept.get((module, name))
            if mask is not None:
                found.setdefault(module, {})[name] = _given(mask, site.site.apply_method)
        return found

    def write(self, masks: Mapping[str, Mapping[str, Tensor | None]]) -> None:
        """Set masks, as :meth:`masks` gives them.

        Raises:
            PruningError: naming the first that has no place or the wrong shape; nothing is changed.
        """
        values: list[tuple[Key, Tensor]] = []
        for module, targets in masks.items():
            for name, mask in targets.items():
                site = self._sites.get((module, name))
                if site is None or not site.site.has_mask:
                    known = ", ".join(sorted(".".join(k) for k, s in self._sites.items() if s.site.has_mask))
                    raise PruningError(
                        f"{module}.{name} is no target of a pruner; these are: {known or 'none'}"
                    )
                if mask is not None:
                    values.append(((module, name), self._checked(site, mask)))
        for key, keep in values:
            if self.wrapped:
                self._sites[key].write(keep)
            else:
                self._kept[key] = keep

    def _checked(self, site: AnySite, mask: Tensor) -> Tensor:
        keep = mask == 0 if site.site.apply_method == "add" else mask != 0
        shape = site.target.shape
        if shape is not None and (
            keep.dim() != len(shape) or any(m not in (1, n) for m, n in zip(keep.shape, shape, strict=True))
        ):
            raise PruningError(f"{site.target.path} has shape {shape} and its mask {tuple(mask.shape)}")
        return keep

    def shape(self, target: Target) -> tuple[int, ...] | None:
        """Shape of a target; of inputs and outputs that of the last that was seen."""
        site = self[target]
        return site.shape if isinstance(site, ActivationSite) else target.shape

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
        site = self[target]
        if value is None:
            site.set_gate(None)
            return
        shape, blocks = self.frame(target)
        if site.mask is None:
            site.write(torch.ones(shape))
        site.set_gate(Gate(value, blocks, scale))


def _site(model: nn.Module, target: Target) -> AnySite:
    if target.kind is TargetKind.PARAMETER:
        return ParameterSite(model, target)
    module = model.get_submodule(target.module)
    return (BufferSite if target.kind is TargetKind.BUFFER else ActivationSite)(module, target)


def _given(mask: Tensor, apply_method: str | None) -> Tensor:
    if apply_method != "add":
        return mask.clone()
    return torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)
