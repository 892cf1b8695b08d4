"""Places at which all runs of the small model wait for each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..capture import owned_tensors
from ..criteria import sum_over_processes
from ._report import Stage

Operands = Mapping[int, torch.Tensor]


class Scene:
    """The model that is worked on: its tensors, and what they were before.

    Args:
        model: the small model.
        group: processes to sum over when ``torch.distributed`` is initialised.
    """

    def __init__(self, model: nn.Module, group: Any = None) -> None:
        self.owned = {name: tensor for _, name, tensor in owned_tensors(model)}
        self.batch = 0
        self._group = group
        self._memory = {tensor.untyped_storage().data_ptr() for tensor in self.owned.values()}
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is the model's own memory, so that writing into it changes the model."""
        return tensor.untyped_storage().data_ptr() in self._memory

    def write(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """Give a tensor a value, in its own type; :meth:`undo` takes it back."""
        tensor = tensor.detach()
        self._before.append((tensor, tensor.clone()))
        tensor.copy_(value)

    def add(self, tensor: torch.Tensor, change: torch.Tensor) -> None:
        """Add to a tensor, in float64 before it is rounded."""
        self.write(tensor, tensor.detach().cpu().double() + change.cpu().double())

    def undo(self) -> None:
        """Give every tensor its first value back."""
        for tensor, value in reversed(self._before):
            tensor.copy_(value)
        self._before.clear()

    def sum(self, *tensors: torch.Tensor) -> None:
        """Sum over all processes, in place."""
        sum_over_processes(tensors, self._group)


@dataclass
class Stop(ABC):
    """A node of the small model's graph; ``batches`` is how many runs meet there."""

    scene: Scene
    node: int
    batches: int
    done: bool = field(default=False, init=False)

    @abstractmethod
    def take(self, operands: Operands) -> None:
        """Take in what one batch brings, before the node runs."""

    @abstractmethod
    def finish(self) -> Stage | None:
        """Change the model, now that all have come; None if that was not possible."""

    def glances(self) -> Mapping[int, Any]:
        """What else to do at which nodes, without stopping."""
        return {}
