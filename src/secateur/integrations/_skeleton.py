"""Skeletons: what a model's class builds from a config, without memory for its weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..surgery import write
from ._fields import Path, Values, integer_fields, is_config

FEW_LAYERS = 2


class _WithoutWeights(TorchFunctionMode):
    """Puts on the ``meta`` device what torch's layers allocate for their weights.

    Everything else is made as usual: buffers that are computed from the config have their values.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build(kind: type[nn.Module], config: Any) -> nn.Module:
    """``kind(config)`` with its weights on ``meta``; raises whatever the class raises."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _WithoutWeights():
        warnings.simplefilter("ignore")
        model = kind(config)
    return model.eval()


def with_values(config: Any, values: Values) -> Any:
    """A copy of a config with other values of some fields."""
    new = copy.deepcopy(config)
    for path, value in values.items():
        write(new, path, value)
    return new


def read_back(config: Any) -> Any:
    """The config as it is after it was written to a file and read again.

    Fields that follow from others are computed anew then. What is not written to files, such as
    the attention implementation in use, is carried over.
    """
    if not hasattr(config, "to_dict") or not hasattr(type(config), "from_dict"):
        return config
    if hasattr(config, "validate"):  # what save_pretrained of transformers asks first
        config.validate()
    new = type(config).from_dict(copy.deepcopy(config.to_dict()))
    _carry_private(config, new)
    return new


def _carry_private(old: Any, new: Any) -> None:
    for name, value in vars(old).items():
        other = vars(new).get(name)
        if name.startswith("_"):
            vars(new)[name] = value
        elif is_config(value) and is_config(other):
            _carry_private(value, other)


def depth_fields(model: nn.Module, config: Any) -> list[Path]:
    """Fields that say how many layers there are: building two of them is quicker."""
    lengths = {len(m) for m in model.modules() if isinstance(m, nn.ModuleList)}
    return [
        path
        for path, value in integer_fields(config)
        if isinstance(path[-1], str) and "layer" in path[-1] and value in lengths and value >= FEW_LAYERS
    ]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of everything in the model's ``state_dict``."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def computed_buffers(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Buffers that are not saved, so that only the config says what they hold."""
    saved = model.state_dict().keys()
    return [(name, buffer) for name, buffer in model.named_buffers() if name not in saved]
