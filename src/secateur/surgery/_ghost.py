"""Ghosts: tensors with a shape, a dtype and a device, but no memory and no values."""

from __future__ import annotations

from typing import Any

import torch


class Ghost(torch.Tensor):
    """Stands in for a tensor while a model's code is followed without being computed.

    It claims the device of the tensor it stands for, so code that asks for it sees no difference.
    ``value_id`` is the id of the graph value that it stands for.
    """

    value_id: int

    @staticmethod
    def __new__(  # noqa: D102
        cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, value_id: int
    ) -> Ghost:
        ghost = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, shape, dtype=dtype, device=device
        )
        ghost.value_id = value_id
        return ghost

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} needs the values of a tensor, and a ghost has none")

    def __deepcopy__(self, memo: Any) -> Ghost:
        return self

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Ghost({tuple(self.shape)}, {self.dtype})"
