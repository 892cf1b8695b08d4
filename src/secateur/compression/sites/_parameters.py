"""Parameters that are read otherwise than they are, on a model that goes on being trained.

A simulated parameter stays where it is, as it is: same object, same name, same place in ``parameters()`` and
``state_dict()``. What changes is what is *read*: the owner's class becomes a subclass of itself in which
``module.weight`` is the parameter times its mask, or quantised. So whoever reads it gets that (an attention
layer that never calls its ``out_proj``, a head tied to an embedding), and optimizers, schedulers, averages,
gradient scalers and DistributedDataParallel, which hold parameters, notice nothing. Masks are buffers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import CompressionError
from ..config import Target
from ._site import Gate, Reading, Site

SITES = "_simulated_targets"


def _reading_property(name: str) -> property:
    def read(self: nn.Module) -> Tensor | None:
        parameter = self._parameters.get(name)
        return None if parameter is None else vars(self)[SITES][name].apply(self, parameter)

    return property(read)


def _flat_weights(self: nn.RNNBase) -> list[Tensor | None]:
    return [getattr(self, name, None) for name in self._flat_weights_names]


def _keep_flat_weights(self: nn.RNNBase, value: Any) -> None:
    """Recurrent layers write this list themselves; what is read is made from its sites."""


@cache
def simulated_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """A subclass of ``base`` in which the parameters ``names`` are read by their sites."""

    def reduce(self: nn.Module, protocol: Any) -> Any:  # copies and pickles know the class by its base
        return (_new, (base, names), *base.__reduce_ex__(self, protocol)[2:])

    content: dict[str, Any] = {name: _reading_property(name) for name in names}
    if issubclass(base, nn.RNNBase):
        content["_flat_weights"] = property(_flat_weights, _keep_flat_weights)
    content |= {
        "_plain_class": base,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
    }
    simulated: Any = type(base.__name__, (base,), content)
    return simulated


def _new(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    cls = simulated_class(base, names)
    return cls.__new__(cls)


class ParameterSite:
    """A parameter that is read masked, or quantised, at every module that owns it."""

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
        self.sites = [Site(name) for _, name in self._owners]

    @property
    def site(self) -> Site:
        """That of the first owner."""
        return self.sites[0]

    @property
    def mask(self) -> Tensor | None:
        """The mask, of the parameter's shape; None if there is none."""
        return self._owners[0][0]._buffers.get(self.site.buffer)

    def write(self, keep: Tensor) -> None:
        """Set the mask to ``keep``, which may be broadcast."""
        with torch.no_grad():
            for (module, _), site in zip(self._owners, self.sites, strict=True):
                mask = module._buffers[site.buffer]
                assert mask is not None
                mask.copy_(keep.expand(mask.shape))

    def set_mask(self, apply_method: str) -> None:
        """Have the parameter masked, the next time that it is wrapped."""
        for site in self.sites:
            site.apply_method = apply_method

    def set_gate(self, gate: Gate | None) -> None:
        """Put a gate on the parameter, or take it off."""
        for site in self.sites:
            site.gate = gate

    def set_reading(self, reading: Reading | None) -> None:
        """Say what is made of the parameter after its mask, the next time that it is wrapped."""
        for site in self.sites:
            site.reading = reading

    def masked(self) -> Tensor:
        """The parameter, masked, before anything else is made of it."""
        return self.site.masked(self._owners[0][0], self.parameter)

    def wrap(self) -> None:
        """Begin to simulate, with a mask of ones if it is masked."""
        mask = torch.ones_like(self.parameter, requires_grad=False) if self.site.has_mask else None
        for (module, name), site in zip(self._owners, self.sites, strict=True):
            if mask is not None:
                module.register_buffer(site.buffer, mask)
            if site.reading is not None:
                site.reading.put(module, name)
            vars(module).setdefault(SITES, {})[name] = site
            _set_class(module)

    def unwrap(self) -> None:
        """The modules as they were."""
        for (module, name), site in zip(self._owners, self.sites, strict=True):
            module._buffers.pop(site.buffer, None)
            module._non_persistent_buffers_set.discard(site.buffer)
            if site.reading is not None:
                site.reading.take(module, name)
            vars(module)[SITES].pop(name)
            _set_class(module)
            if isinstance(module, nn.RNNBase):
                module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def _own(module: nn.Module, target: Target) -> nn.Parameter:
    parameter = module._parameters.get(target.name)
    if parameter is None:
        raise CompressionError(f"{target.module}: {type(module).__name__} has no parameter {target.name!r}")
    if target.name in vars(module).get(SITES, {}):
        raise CompressionError(
            f"{target.module}.{target.name} is simulated by another compressor already. Continue from that "
            f"one with from_compressor(other, config_list), or call its unwrap_model() first."
        )
    return parameter


def _set_class(module: nn.Module) -> None:
    """The class that fits the sites of a module; its own if there are none left."""
    sites = vars(module)[SITES]
    base = base_class(module)
    if sites:
        module.__class__ = simulated_class(base, tuple(sorted(sites)))
    else:
        module.__class__ = base
        del vars(module)[SITES]


def base_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before anything was simulated."""
    own = type(module)
    return vars(own).get("_plain_class", own)
