"""Samples of a data loader: how to call the model with one, and how many examples it holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ..capture import named_tensors

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
ToInputs: TypeAlias = Callable[[Any], Inputs]


def model_inputs(model: nn.Module, sample: Any) -> Inputs:
    """Positional and keyword arguments to call ``model`` with, from a sample of a data loader.

    A dict becomes keyword arguments, a tuple or list positional ones, anything else the one
    argument. What the model's forward has no place for is left out: labels that a loader puts
    behind the inputs, entries of a dict that are not among its parameters.

    >>> class Scale(nn.Module):
    ...     def forward(self, x, factor=1): ...
    >>> model_inputs(nn.ReLU(), ("images", "labels"))
    (('images',), {})
    >>> model_inputs(Scale(), {"x": 1, "labels": 2})
    ((), {'x': 1})
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    if isinstance(sample, Mapping):
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return (), dict(sample)
        names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        return (), {name: value for name, value in sample.items() if name in names}
    if not isinstance(sample, (tuple, list)):
        return (sample,), {}
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return tuple(sample), {}
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(sample[: len(places)]), {}


def example_count(inputs: Inputs) -> int:
    """First dimension of the first tensor among the inputs; 1 where there is none."""
    for _, tensor in named_tensors(inputs, ""):
        return max(int(tensor.shape[0]), 1) if tensor.dim() else 1
    return 1


def detached(inputs: Inputs) -> Inputs:
    """The inputs without their history, to be kept."""
    from ..capture import map_tensors

    return map_tensors(inputs, torch.Tensor.detach)
