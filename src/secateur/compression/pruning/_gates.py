"""Trainable numbers on blocks, with an optimizer of their own: the user's does not see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..._errors import PruningError
from ..config import Target
from ..sites import Key, Sites, block_counts, key_of

LEARNING_RATE = 1e-2
"""Of the Adam that trains them, as in NNI."""


class Gates:
    """One trainable number for every block of some targets.

    Args:
        sites: the masked targets of the model.
        targets: which of them; inputs and outputs must have been seen.
        start: what all numbers are at first.
        scale: whether they multiply their blocks, or only get gradients.
    """

    def __init__(self, sites: Sites, targets: Iterable[Target], start: float, *, scale: bool) -> None:
        self._sites, self._scale = sites, scale
        self._targets = {key_of(target): target for target in targets}
        self.values: dict[Key, Tensor] = {}
        for key, target in self._targets.items():
            count = prod(block_counts(*sites.frame(target)))
            device = getattr(sites[target].mask, "device", None)
            self.values[key] = torch.full((count,), start, device=device, requires_grad=True)
        self._optimizer = torch.optim.Adam(self.values.values(), LEARNING_RATE) if self.values else None
        self.put()

    def put(self) -> None:
        """Put them on their targets."""
        for key, target in self._targets.items():
            self._sites.set_gate(target, self.values[key], scale=self._scale)

    def remove(self) -> None:
        """Take them off."""
        for target in self._targets.values():
            self._sites.set_gate(target, None)

    def train(self, on: bool) -> None:
        """Whether they get gradients."""
        for value in self.values.values():
            value.requires_grad_(on)
            value.grad = None

    def take_gradients(self) -> dict[Key, Tensor]:
        """The gradients since the last call, means over the processes of ``torch.distributed``.

        Raises:
            PruningError: where there is none: backward has not been called, or the block is not used.
        """
        found: dict[Key, Tensor] = {}
        for key, value in self.values.items():
            if value.grad is None:
                raise PruningError(
                    f"{'.'.join(key)} got no gradient in this step: call step() after backward() and "
                    "after the optimizer's step; is the module used?"
                )
            found[key], value.grad = value.grad, None
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(found[key])
                found[key] /= dist.get_world_size()
        return found

    def step(self, grad_scale: float = 1.0) -> None:
        """One step of the optimizer."""
        for key, gradient in self.take_gradients().items():
            self.values[key].grad = gradient / grad_scale
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Numbers and moments."""
        values = {".".join(key): value.detach().clone() for key, value in self.values.items()}
        return {"values": values, "optimizer": self._optimizer.state_dict() if self._optimizer else {}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state` gave."""
        with torch.no_grad():
            for key, value in self.values.items():
                value.copy_(state["values"][".".join(key)])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
