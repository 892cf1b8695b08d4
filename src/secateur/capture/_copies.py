"""Copies of a model that share nothing with it but the code, with other tensors in place."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from .._errors import SurgeryError
from ._graph import Source
from ._modules import owned_tensors


def copy_with(model: nn.Module, change: Callable[[Source, str, torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy of ``model`` in which every tensor it owns is ``change(source, path, tensor)``.

    Tied tensors stay tied: ``change`` is called once for each tensor, with its first path. No
    tensor is copied on the way, so the copy costs what ``change`` makes.
    """
    memo: dict[int, object] = {}
    for source, name, tensor in owned_tensors(model):
        if id(tensor) not in memo:
            memo[id(tensor)] = change(source, name, tensor)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise SurgeryError(
            f"the model cannot be copied ({type(error).__name__}: {error}). Give it a __deepcopy__ that "
            "works, or keep what cannot be copied out of its attributes."
        ) from error


def like(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """``new`` as what ``old`` was: a parameter with its ``requires_grad`` and attributes, or a tensor."""
    if not isinstance(old, nn.Parameter):
        return new.requires_grad_(old.requires_grad) if old.is_leaf else new
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    vars(parameter).update(vars(old))
    return parameter
