"""Copies of a model that share nothing with it but the code, with other tensors in place."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import torch
from torch import nn

from .._errors import SurgeryError
from ._graph import Source
from ._modules import owned_tensors

Memo = dict[int, Any]


def copy_with(model: nn.Module, change: Callable[[Source, str, torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy of ``model`` in which every tensor it owns is ``change(source, path, tensor)``.

    Tied tensors stay tied: ``change`` is called once for each tensor, with its first path. No
    tensor is copied on the way, so the copy costs what ``change`` makes.
    """
    memo: Memo = {}
    for source, name, tensor in owned_tensors(model):
        if id(tensor) not in memo:
            memo[id(tensor)] = change(source, name, tensor)
    try:
        return _copy(model, memo)
    except Exception as error:
        raise SurgeryError(
            f"the model cannot be copied ({type(error).__name__}: {error}). Give it a __deepcopy__ that "
            "works, or keep what cannot be copied out of its attributes."
        ) from error


def _copy(value: Any, memo: Memo) -> Any:
    """What ``copy.deepcopy(value, memo)`` gives, with a short way for what models are made of."""
    kind: type[Any] = type(value)
    key = id(value)
    if kind in _ATOMS:
        return value
    if key in memo:
        return memo[key]
    if kind is dict or kind is OrderedDict:
        items = memo[key] = kind()
        if value:
            items.update({_copy(name, memo): _copy(item, memo) for name, item in value.items()})
        return items
    if kind in (tuple, list, set) and all(type(item) in _ATOMS for item in value):
        memo[key] = kind(value)
        return memo[key]
    if isinstance(value, nn.Module) and _is_plain(kind):
        module = memo[key] = object.__new__(kind)
        vars(module).update({name: _copy(item, memo) for name, item in value.__getstate__().items()})
        return module
    return copy.deepcopy(value, memo)


_ATOMS = {bool, int, float, complex, str, NoneType, type, FunctionType, BuiltinFunctionType, torch.dtype}


@cache
def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether all of a module is in its ``__dict__``, and copying it calls no code of the user's."""
    return (
        not hasattr(kind, "__deepcopy__")
        and all(getattr(kind, name) is getattr(nn.Module, name) for name in _COPYING)
        # Those of torch's layers bring modules of its older versions up to date.
        and kind.__setstate__.__module__.startswith("torch.nn.modules.")
    )


_COPYING = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__")


def like(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """``new`` as what ``old`` was: a parameter with its ``requires_grad`` and attributes, or a tensor."""
    if not isinstance(old, nn.Parameter):
        return new.requires_grad_(old.requires_grad) if old.is_leaf else new
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    vars(parameter).update(vars(old))
    return parameter
