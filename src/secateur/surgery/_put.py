"""Putting tensors and numbers into a model, and taking them back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ..capture import Source
from ._constants import Place, read, write, write_all
from ._layers import stale_sizes


@dataclass
class Undo:
    """Steps that take a cut back, last first. Holds the old tensors, so drop it when it is not needed."""

    steps: list[Callable[[], None]] = field(default_factory=list)
    enabled: bool = True

    def note(self, step: Callable[[], None]) -> None:
        """Remember a step, unless nothing is to be taken back."""
        if self.enabled:
            self.steps.append(step)

    def restore(self) -> None:
        """Take everything back."""
        while self.steps:
            self.steps.pop()()


def put_tensor(model: nn.Module, source: Source, name: str, tensor: torch.Tensor) -> None:
    """Put a parameter, buffer or tensor attribute at its path."""
    owner, _, attribute = name.rpartition(".")
    if source is Source.ATTRIBUTE:
        _put_attribute(model, name, tensor)
        return
    module = _module_at(model, owner)
    if source is Source.BUFFER:
        module._buffers[attribute] = tensor
    else:
        setattr(module, attribute, tensor)  # recurrent layers keep a list of their own up to date


def _module_at(model: Any, path: str) -> nn.Module:
    """What ``get_submodule`` gives for the path of a module, in a hundredth of the time."""
    for name in path.split(".") if path else ():
        model = model._modules[name]
    return model


def put_ghost(model: nn.Module, source: Source, name: str, ghost: torch.Tensor) -> None:
    """Put a ghost at the path of a tensor, where torch would only take a parameter."""
    if source is Source.PARAMETER:
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._parameters[attribute] = ghost  # type: ignore[assignment]
    else:
        put_tensor(model, source, name, ghost)


def _put_attribute(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Set a plain tensor attribute, which may be an item of a list or dict."""
    head, bracket, rest = name.partition("[")
    owner, _, attribute = head.rpartition(".")
    module = _module_at(model, owner)
    if not bracket:
        setattr(module, attribute, tensor)
        return
    items = copy.copy(getattr(module, attribute))
    key: Any = rest[:-1]
    key = int(key) if isinstance(items, (list, tuple)) else next(k for k in items if repr(k) == key)
    if isinstance(items, tuple):
        items = (*items[:key], tensor, *items[key + 1 :])
    else:
        items[key] = tensor
    setattr(module, attribute, items)


def put_numbers(model: nn.Module, sizes: Mapping[Place, int], undo: Undo) -> None:
    """Write numbers into attributes, items of tuples and fields of config objects."""
    for place in sizes:
        module, path = model.get_submodule(place.module), place.path
        try:
            undo.note(partial(write, module, path, read(module, path)))
        except AttributeError:  # a field that a config does not have yet
            undo.note(partial(delattr, read(module, path[:-1]), path[-1]))
        if len(path) > 1:  # written into a copy of it, perhaps: the original comes back first
            undo.note(partial(setattr, module, str(path[0]), getattr(module, str(path[0]))))
    write_all(model, sizes)


def refresh_layers(model: nn.Module, undo: Undo) -> None:
    """Make the sizes that torch's own layers keep beside their parameters fit these."""
    for _, module, name, value, size in list(stale_sizes(model)):
        undo.note(partial(setattr, module, name, value))
        setattr(module, name, size)
