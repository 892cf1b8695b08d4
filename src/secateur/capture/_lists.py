"""Values that code reads by ``tolist``, which torch hands out without dispatching anything."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def listed(tensor: torch.Tensor) -> Any:
    """What ``tensor.tolist()`` gives, read by operators, so that a recorder sees it.

    >>> listed(torch.tensor([[1, 2], [3, 4]]))
    [[1, 2], [3, 4]]
    """
    return [listed(row) for row in tensor.unbind()] if tensor.dim() else tensor.item()


class DispatchedLists(TorchFunctionMode):
    """Makes ``Tensor.tolist`` dispatch what it reads; everything else is left alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.tolist:
            return listed(args[0])
        return func(*args, **(kwargs or {}))
