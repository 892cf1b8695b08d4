"""Targets: the inputs, outputs, parameters and buffers of modules, by their names in a config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor, nn

from ..._errors import ConfigError, nearest
from ._granularity import Block, Channels, block_for

_ACTIVATION = re.compile(r"_(input|output)_(.*)")


class TargetKind(Enum):
    """What kind of tensor a target is."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True)
class Target:
    """One tensor of one module that is compressed.

    Attributes:
        module: path of the module.
        name: in normal form: ``weight``, ``_input_0``, ``_input_query``, ``_output_0``, ``_output_logits``.
        kind: parameter, buffer, input or output.
        key: of inputs the position or the argument's name, of outputs the position or the key in a dict.
        position: of inputs, where the argument is passed when it is passed without its name, if it can be.
        argument: of inputs, the name of the argument, if the signature of forward says it.
        shape: of parameters and buffers.
        entry: the entry of the list that it comes from.
        settings: what to do with it.
        channels: where its channels are.
    """

    module: str
    name: str
    kind: TargetKind
    key: int | str | None
    position: int | None
    argument: str | None
    shape: tuple[int, ...] | None
    entry: int
    settings: Any
    channels: Channels

    @property
    def path(self) -> str:
        """Module and target, as in messages."""
        return f"{self.module}.{self.name}".lstrip(".")

    @property
    def is_activation(self) -> bool:
        """Whether it is an input or output."""
        return self.kind in (TargetKind.INPUT, TargetKind.OUTPUT)

    def blocks(self, shape: Sequence[int] | None = None) -> Block:
        """Size of a block in every dimension; blocks tile the target.

        Args:
            shape: of inputs and outputs, the shape that was seen, batch first.

        Raises:
            ConfigError: if blocks of this granularity do not tile it.
        """
        seen = self.shape if self.shape is not None else shape
        if seen is None:
            raise ConfigError([f"{self.path}: an input or output has a shape when it has been seen"])
        block, wrong = block_for(
            self.settings.granularity, self.channels, seen, activation=self.is_activation
        )
        if wrong:
            raise ConfigError([f"entry {self.entry}, key 'granularity': {wrong} [{self.path}]"])
        return block

    def counts(self, shape: Sequence[int] | None = None) -> tuple[int, ...]:
        """How many blocks there are along every dimension: the shape of the metric and of a compact mask."""
        seen = self.shape if self.shape is not None else shape
        return tuple(n // part for n, part in zip(seen or (), self.blocks(seen), strict=True))


@dataclass(frozen=True)
class Found:
    """A target of a module, before it has settings; or what is wrong with its name.

    ``absent`` is for what the class knows and this module does not have, such as a bias.
    """

    name: str
    kind: TargetKind = TargetKind.PARAMETER
    key: int | str | None = None
    position: int | None = None
    argument: str | None = None
    tensor: Tensor | None = None
    absent: bool = False
    wrong: str = ""


def find_target(module: nn.Module, name: str) -> Found:
    """The target of that name of a module.

    ``_input_`` and ``_output_`` are short for ``_input_0`` and ``_output_0``.
    """
    activation = _ACTIVATION.fullmatch(name)
    if activation:
        key = activation[2] or "0"
        return _input(module, key) if activation[1] == "input" else _output(key)
    parameters = module._parameters
    # A parameter that torch.nn.utils.prune masks, or that is parametrized, has the same name to its user.
    tensor = parameters.get(name) if name in parameters else parameters.get(f"{name}_orig")
    if tensor is None and nn.utils.parametrize.is_parametrized(module, name):
        tensor = module.parametrizations[name].original  # type: ignore[index,union-attr]
    if isinstance(tensor, Tensor):
        return Found(name, TargetKind.PARAMETER, tensor=tensor)
    buffer = module._buffers.get(name)
    if buffer is not None:
        return Found(name, TargetKind.BUFFER, tensor=buffer)
    if name in parameters or name in module._buffers:
        return Found(name, absent=True)
    own = target_names(module)
    return Found(
        name, wrong=f"{type(module).__name__} has no target {name!r}{nearest(name, own) or _list(own)}"
    )


def target_names(module: nn.Module) -> list[str]:
    """Names of the parameters and buffers of a module itself, and of its first input and output."""
    own = [key for key, value in (*module._parameters.items(), *module._buffers.items()) if value is not None]
    return [*own, "_input_", "_output_"]


def weight_and_bias(module: nn.Module) -> tuple[str, ...]:
    """The usual targets of pruning: those of ``weight`` and ``bias`` that a module has."""
    return tuple(name for name in ("weight", "bias") if find_target(module, name).tensor is not None)


def parameter_path(module: str, name: str) -> str:
    """Path of a parameter in the model."""
    return f"{module}.{name}" if module else name


def _input(module: nn.Module, key: str) -> Found:
    positional, keyword, open_ended = _signature(module)
    if key.isdigit():
        at = int(key)
        if at >= len(positional) and not open_ended:
            count = f"forward of {type(module).__name__} has {len(positional)} inputs"
            return Found("", wrong=f"{count}, counted from _input_0")
        argument = positional[at] if at < len(positional) else None
        return Found(f"_input_{at}", TargetKind.INPUT, at, at, argument)
    if key not in positional and key not in keyword and not open_ended:
        known = [*positional, *keyword]
        hint = nearest(key, known) or _list(known)
        return Found("", wrong=f"forward of {type(module).__name__} has no argument {key!r}{hint}")
    at = positional.index(key) if key in positional else None
    return Found(f"_input_{key}" if at is None else f"_input_{at}", TargetKind.INPUT, key, at, key)


def _output(key: str) -> Found:
    if key.isdigit():
        return Found(f"_output_{int(key)}", TargetKind.OUTPUT, int(key))
    return Found(f"_output_{key}", TargetKind.OUTPUT, key)


def _signature(module: nn.Module) -> tuple[list[str], list[str], bool]:
    """Names of positional and of keyword-only arguments of forward, and whether there may be others."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # forwards made outside of Python
        return [], [], True
    kinds = inspect.Parameter
    positional = [
        p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    keyword = [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    open_ended = any(p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for p in parameters)
    return positional, keyword, open_ended


def _list(known: Sequence[str]) -> str:
    return f"; it has {', '.join(known)}" if known else ""
