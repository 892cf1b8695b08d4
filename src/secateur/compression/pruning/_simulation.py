"""Masks simulated on a model that goes on being trained.

A masked parameter stays where it is, as it is: same object, same name, same place in ``parameters()`` and
``state_dict()``. What changes is what is *read*: the owner's class becomes a subclass of itself in which
``module.weight`` is the parameter times its mask. So whoever reads it gets it masked (an attention layer
that never calls its ``out_proj``, a head tied to an embedding), and optimizers, schedulers, averages,
gradient scalers and DistributedDataParallel, which hold parameters, notice nothing. Masks are buffers.
Inputs and outputs are masked by hooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ..config import Target
from ._blocks import spread

SITES = "_masked_targets"


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


@dataclass(eq=False)
class Site:
    """One masked target on its module.

    Attributes:
        name: of the target in its module.
        apply_method: ``mul``, ``add`` or ``bypass``.
        gate: trainable numbers, if any.
    """

    name: str
    apply_method: str = "mul"
    gate: Gate | None = None

    @property
    def buffer(self) -> str:
        """Name of the mask among the buffers of the module."""
        return f"{self.name}_mask".replace(".", "_")  # names of buffers have no dots

    def apply(self, module: nn.Module, tensor: Tensor) -> Tensor:
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


# -- parameters ------------------------------------------------------------------------------------


def _masked_property(name: str) -> property:
    def read(self: nn.Module) -> Tensor | None:
        parameter = self._parameters.get(name)
        return None if parameter is None else vars(self)[SITES][name].apply(self, parameter)

    return property(read)


def _flat_weights(self: nn.RNNBase) -> list[Tensor | None]:
    return [getattr(self, name, None) for name in self._flat_weights_names]


def _keep_flat_weights(self: nn.RNNBase, value: Any) -> None:
    """Recurrent layers write this list themselves; what is read is made from the masked parameters."""


@cache
def masked_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """A subclass of ``base`` in which the parameters ``names`` are read masked."""

    def reduce(self: nn.Module, protocol: Any) -> Any:  # copies and pickles know the class by its base
        return (_new, (base, names), *base.__reduce_ex__(self, protocol)[2:])

    content: dict[str, Any] = {name: _masked_property(name) for name in names}
    if issubclass(base, nn.RNNBase):
        content["_flat_weights"] = property(_flat_weights, _keep_flat_weights)
    content |= {
        "_unmasked": base,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
    }
    masked: Any = type(base.__name__, (base,), content)
    return masked


def _new(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    cls = masked_class(base, names)
    return cls.__new__(cls)


class MaskedParameter:
    """A parameter that is read masked, at every module that owns it."""

    def __init__(self, model: nn.Module, target: Target) -> None:
        module = model.get_submodule(target.module)
        self.target = target
        self.parameter = _own(module, target)
        self._owners = [
            (owner, name)
            for owner in model.modules()
            for name, other in owner._parameters.items()
            if other is self.parameter
        ]
        self._sites = [Site(name, target.settings.apply_method) for _, name in self._owners]

    @property
    def mask(self) -> Tensor:
        """The mask, of the parameter's shape."""
        mask = self._owners[0][0]._buffers[self._sites[0].buffer]
        assert mask is not None
        return mask

    def write(self, keep: Tensor) -> None:
        """Set the mask to ``keep``, which may be broadcast."""
        with torch.no_grad():
            for (module, _), site in zip(self._owners, self._sites, strict=True):
                mask = module._buffers[site.buffer]
                assert mask is not None
                mask.copy_(keep.expand(mask.shape))

    def set_gate(self, gate: Gate | None) -> None:
        """Put a gate on the parameter, or take it off."""
        for site in self._sites:
            site.gate = gate

    def wrap(self) -> None:
        """Begin masking, with a mask of ones."""
        mask = torch.ones_like(self.parameter, requires_grad=False)
        for (module, name), site in zip(self._owners, self._sites, strict=True):
            module.register_buffer(site.buffer, mask)
            vars(module).setdefault(SITES, {})[name] = site
            _set_class(module)

    def unwrap(self) -> None:
        """The modules as they were."""
        for (module, name), site in zip(self._owners, self._sites, strict=True):
            module._buffers.pop(site.buffer)
            module._non_persistent_buffers_set.discard(site.buffer)
            vars(module)[SITES].pop(name)
            _set_class(module)
            if isinstance(module, nn.RNNBase):
                module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def _own(module: nn.Module, target: Target) -> nn.Parameter:
    parameter = module._parameters.get(target.name)
    if parameter is None:
        raise PruningError(f"{target.module}: {type(module).__name__} has no parameter {target.name!r}")
    if target.name in vars(module).get(SITES, {}):
        raise PruningError(
            f"{target.module}.{target.name} is masked by another pruner already. Continue from that one with "
            f"from_compressor(pruner, config_list), or call its unwrap_model() first."
        )
    return parameter


def _set_class(module: nn.Module) -> None:
    """The class that fits the sites of a module; its own if there are none left."""
    sites = vars(module)[SITES]
    base = base_class(module)
    if sites:
        module.__class__ = masked_class(base, tuple(sorted(sites)))
    else:
        module.__class__ = base
        del vars(module)[SITES]


def base_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before masks."""
    own = type(module)
    return vars(own).get("_unmasked", own)
