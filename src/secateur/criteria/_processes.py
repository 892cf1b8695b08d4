"""Sums over the processes of ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether this is one of several processes that can talk."""
    return dist.is_available() and dist.is_initialized()


def communication_device(group: Any) -> torch.device:
    """Where the backend of a process group wants tensors."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def sum_over_processes(tensors: Iterable[torch.Tensor], group: Any = None) -> None:
    """Replace each tensor by its sum over all processes; without several processes nothing happens.

    Every process has to pass the same tensors in the same order.
    """
    if not is_distributed():
        return
    device = communication_device(group)
    for tensor in tensors:
        moved = tensor.to(device)
        dist.all_reduce(moved, group=group)
        tensor.copy_(moved)
