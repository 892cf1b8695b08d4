"""Linear maps from the features of a student to those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Projections(nn.Module):
    """One linear map for each target whose features are fewer or more than the teacher's.

    They are no part of the student: its ``state_dict``, averages and copies of it, and a speed-up do not see
    them. In every process they begin the same and get the same gradients. The random state of torch stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, str] = {}

    def add(self, path: str, student: int, teacher: int, device: torch.device) -> None:
        """A map for the target ``path``, from ``student`` features to ``teacher``."""
        name = f"projection_{len(self._names)}"  # names of modules have no dots
        self._names[path] = name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self._names))
            # In float32, whatever the model computes in: that is what losses are computed in.
            linear = nn.Linear(student, teacher, dtype=torch.float32)
        for parameter in linear.to(device).parameters():
            parameter.register_post_accumulate_grad_hook(_mean_over_processes)
        self.add_module(name, linear)

    def of(self, path: str) -> nn.Linear | None:
        """The map for a target, if it has one."""
        linear = self.get_submodule(self._names[path]) if path in self._names else None
        assert linear is None or isinstance(linear, nn.Linear)
        return linear

    def project(self, path: str, tensor: Tensor, dim: int) -> Tensor:
        """A tensor of the student through its map, if it has one: with the teacher's features in ``dim``."""
        linear = self.of(path)
        if linear is None:
            return tensor
        linear.to(tensor.device)  # the model may have moved; the parameters stay the same objects
        return linear(tensor.float().movedim(dim, -1)).movedim(-1, dim)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Weights and biases, by target."""
        return {
            path: {name: value.clone() for name, value in self.get_submodule(own).state_dict().items()}
            for path, own in self._names.items()
        }

    def set_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """What :meth:`state` gave."""
        for path, tensors in state.items():
            teacher, student = tensors["weight"].shape
            if path not in self._names:
                self.add(path, student, teacher, tensors["weight"].device)
            self.get_submodule(self._names[path]).load_state_dict(dict(tensors))


def _mean_over_processes(parameter: Tensor) -> None:
    """Make a gradient the mean over the processes of ``torch.distributed``.

    Also where gradients accumulate: the part of earlier backward passes is the same everywhere by now, and
    the mean of what is the same is itself.
    """
    if parameter.grad is not None and dist.is_available() and dist.is_initialized():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
