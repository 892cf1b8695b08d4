"""The place of a parameter that is masked: its owners, its mask, its hook; putting masks on and off.

The layout is that of ``torch.nn.utils.prune``: parameter ``weight_orig``, buffer ``weight_mask``,
attribute ``weight`` and one hook before forward. What is done differently keeps it safe: names are
exchanged in place, so parameters keep their order; all owners of a tied parameter get the mask; and
everything that can fail happens before anything is changed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from ..._errors import MaskError, ParameterNameError, nearest
from ._masked import MaskedParameter


@dataclass(frozen=True, eq=False)
class Slot:
    """One parameter of one module, masked or not.

    Attributes:
        module: the owner.
        name: the name that the parameter has without a mask.
    """

    module: nn.Module
    name: str

    @property
    def orig(self) -> Tensor | None:
        """The parameter, below its mask if it has one; None if there is no such parameter."""
        parameters = self.module._parameters
        return parameters.get(f"{self.name}_orig" if self.masked else self.name)

    @property
    def masked(self) -> bool:
        """Whether there is a mask on it, ours or torch's."""
        return self.hook_key is not None

    @property
    def mask(self) -> Tensor | None:
        """The mask, if there is one."""
        return self.module._buffers.get(f"{self.name}_mask") if self.masked else None

    @property
    def hook_key(self) -> int | None:
        """Key of the pruning hook among the hooks before forward."""
        for key, hook in self.module._forward_pre_hooks.items():
            if isinstance(hook, torch_prune.BasePruningMethod) and hook._tensor_name == self.name:
                return key
        return None

    @property
    def hook(self) -> torch_prune.BasePruningMethod | None:
        """The pruning hook, if there is one."""
        key = self.hook_key
        return None if key is None else self.module._forward_pre_hooks[key]  # type: ignore[return-value]

    def put(self, method: torch_prune.BasePruningMethod, mask: Tensor) -> None:
        """Lay a mask on the parameter, or another one in the place of the mask it has."""
        key = self.hook_key
        if key is None:
            _rename(self.module._parameters, self.name, f"{self.name}_orig")
            self.module.register_forward_pre_hook(method)
        else:
            self.module._forward_pre_hooks[key] = method
        self.module.register_buffer(f"{self.name}_mask", mask)
        self.bind()

    def bind(self) -> None:
        """Have ``module.<name>`` computed by whoever reads it."""
        now = vars(self.module).get(self.name)
        if not (isinstance(now, MaskedParameter) and now.belongs_to(self.module)):
            setattr(self.module, self.name, MaskedParameter(self.module, self.name))

    def take_off(self) -> None:
        """Make the parameter a plain one again, with the values that it has; the hook stays."""
        parameter = self.module._parameters[f"{self.name}_orig"]
        vars(self.module).pop(self.name, None)
        _rename(self.module._parameters, f"{self.name}_orig", self.name)
        del self.module._buffers[f"{self.name}_mask"]
        # It is there already, but recurrent layers keep their list of weights up to date in setattr.
        setattr(self.module, self.name, parameter)

    def unhook(self) -> None:
        """Take the pruning hook off."""
        key = self.hook_key
        if key is not None:
            del self.module._forward_pre_hooks[key]


def find_slot(module: nn.Module, name: str) -> Slot:
    """The slot of ``module.name``, which has to be a parameter that can be masked.

    Raises:
        ParameterNameError: if the module has no such parameter.
        MaskError: if it has one that cannot be masked.
    """
    where = f"{name!r} of {type(module).__name__}"
    slot = Slot(module, name)
    parameter = slot.orig
    if parameter is None:
        raise _missing(module, name, where)
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise MaskError(f"{where} has no values yet: run the model once before you prune it")
    if sum(_is_hook_of(hook, name) for hook in module._forward_pre_hooks.values()) > 1:
        raise MaskError(f"{where} has several pruning hooks; a PruningContainer holds several methods in one")
    for taken in (f"{name}_orig", f"{name}_mask"):
        if not slot.masked and hasattr(module, taken):
            raise MaskError(f"{where} cannot be masked: the module has a {taken!r} already")
    return slot


def tied_slots(slots: Sequence[Slot]) -> list[list[Slot]]:
    """For each slot every slot that holds the same parameter, itself first: tied weights, wherever they are.

    torch gives a pruning method one module and no way to the model around it. Who else owns the
    parameter is known to Python alone.
    """
    found = {id(slot.orig): [slot] for slot in slots}
    for module in gc.get_objects() if any(_may_be_tied(slot) for slot in slots) else ():
        if not issubclass(type(module), nn.Module):  # not isinstance: a proxy could do anything there
            continue
        for key, parameter in (vars(module).get("_parameters") or {}).items():
            places = found.get(id(parameter))
            if places is not None:
                place = Slot(module, _name(module, key))
                if not (place.module is places[0].module and place.name == places[0].name):
                    places.append(place)
    return [found[id(slot.orig)] for slot in slots]


def _may_be_tied(slot: Slot) -> bool:
    """Whether anything but the module itself refers to the parameter: another owner, or an optimizer, say.

    Looking for owners takes longer than most masks do, and where this is False there are none.
    """
    key = f"{slot.name}_orig" if slot.masked else slot.name
    alone = {key: object()}
    return sys.getrefcount(slot.module._parameters[key]) > sys.getrefcount(alone[key])


def masked_slots(module: nn.Module) -> list[Slot]:
    """Slots of the module itself that have masks."""
    return [
        Slot(module, hook._tensor_name)
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, torch_prune.BasePruningMethod)
    ]


def _name(module: nn.Module, key: str) -> str:
    """The name that the parameter stored at ``key`` has without a mask."""
    name = key.removesuffix("_orig")
    return name if name != key and Slot(module, name).masked else key


def _is_hook_of(hook: Any, name: str) -> bool:
    return isinstance(hook, torch_prune.BasePruningMethod) and hook._tensor_name == name


def _missing(module: nn.Module, name: str, where: str) -> MaskError:
    own = [key for key, value in module._parameters.items() if value is not None]
    if name in module._buffers:
        return MaskError(
            f"{where} is a buffer. Masks of this kind are for parameters, which an optimizer moves; "
            "a buffer can be a target of a config list (secateur.compression.config)"
        )
    if name in module._parameters:
        return ParameterNameError(f"this {type(module).__name__} was made without {name!r}")
    if torch.nn.utils.parametrize.is_parametrized(module, name):
        return MaskError(f"{where} is parametrized: prune it first, or remove the parametrization")
    hint = nearest(name, own) or f"; it has {', '.join(own) or 'none of its own'}"
    return ParameterNameError(f"{type(module).__name__} has no parameter {name!r}{hint}")


def _rename(table: dict[str, Any], old: str, new: str) -> None:
    """Give an entry of a dict another key and leave it where it is."""
    items = [(new if key == old else key, value) for key, value in table.items()]
    table.clear()
    table.update(items)
