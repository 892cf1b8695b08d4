"""One target of one module, as it is simulated: its mask, what reads it after that, its gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..config import Target
from ._blocks import spread

Key = tuple[str, str]
"""Path of a module and name of a target."""


def key_of(target: Target) -> Key:
    """What a target is called in dicts."""
    return target.module, target.name


@dataclass(eq=False)
class Gate:
    """A trainable number for every block of a target.

    ``scale`` multiplies the block (Slim). Otherwise the gate leaves the value as it is and only gets the
    gradient that a factor of the block would get, straight through the mask (Movement, Taylor on
    activations).
    """

    value: Tensor
    blocks: tuple[int, ...]
    scale: bool = False

    def factor(self, mask: Tensor) -> Tensor:
        """What the target is multiplied by; ``blocks`` are those of the mask."""
        stretched = spread(self.value.to(mask.device), mask.shape, self.blocks)
        return mask * stretched if self.scale else mask + (stretched - stretched.detach())


class Reading(Protocol):
    """What is made of a target when it is read, after its mask: fake quantisation, for one.

    Its tensors live on the module that owns the target, while the model is wrapped.
    """

    keeps_zero: bool
    """Whether zero is read as zero; if not, what is masked is set to zero once more."""

    def __call__(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """The target as it is read."""
        ...

    def put(self, module: nn.Module, name: str) -> None:
        """Put the tensors on a module that has the target under this name."""
        ...

    def take(self, module: nn.Module, name: str) -> None:
        """Take them off again, and remember their values."""
        ...


@dataclass(eq=False)
class Site:
    """One target on its module.

    Attributes:
        name: of the target in its module.
        apply_method: how its mask acts: ``mul``, ``add`` or ``bypass``; None as long as nobody masks it.
        gate: trainable numbers, if any.
        reading: what is made of it after the mask, if anything.
    """

    name: str
    apply_method: str | None = None
    gate: Gate | None = None
    reading: Reading | None = None

    @property
    def has_mask(self) -> bool:
        """Whether somebody masks the target."""
        return self.apply_method is not None

    @property
    def buffer(self) -> str:
        """Name of the mask among the buffers of the module."""
        return f"{self.name}_mask".replace(".", "_")  # names of buffers have no dots

    def apply(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """The tensor as it is read: masked, and then what the reading makes of it.

        In this order what is masked stays exactly zero: zero is a value of every grid of integers.
        """
        masked = self.masked(module, tensor)
        if self.reading is None:
            return masked
        read = self.reading(module, masked)
        mask = module._buffers.get(self.buffer)
        if self.reading.keeps_zero or mask is None or self.apply_method != "mul":
            return read
        return read * (mask != 0)

    def masked(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """The tensor, masked."""
        mask = module._buffers.get(self.buffer)
        if mask is None:
            return tensor
        multiplied = self.apply_method == "mul"
        factor = mask if multiplied else None
        if self.gate is not None:
            factor = self.gate.factor(mask if multiplied else torch.ones_like(mask))
        if factor is not None:
            tensor = tensor * factor.to(tensor.dtype)
        return tensor.masked_fill(mask == 0, -torch.inf) if self.apply_method == "add" else tensor
