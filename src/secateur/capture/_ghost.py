"""Ghosts: tensors with a shape, a dtype and a device, but no memory and no values.

A model's code can be followed on ghosts without its arithmetic and without its weights. Code that
reads a value cannot, and says so (:class:`NeedsValues`).
"""

from __future__ import annotations

from typing import Any

import torch

from ._lists import listed


class NeedsValues(RuntimeError):
    """The model's code asks for the values of a tensor, and a ghost has none."""


class Ghost(torch.Tensor):
    """Stands in for a tensor while a model's code is followed without being computed.

    It claims the device of the tensor it stands for, so code that asks for it sees no difference.
    ``value_id`` is the id of the graph value that it stands for.
    """

    value_id: int
    _meta: torch.Tensor | None

    @staticmethod
    def __new__(
        cls: type[Ghost],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        value_id: int = -1,
        strides: tuple[int, ...] | None = None,
    ) -> Ghost:
        ghost = torch.Tensor._make_wrapper_subclass(cls, shape, strides=strides, dtype=dtype, device=device)
        ghost.value_id = value_id
        ghost._meta = None
        return ghost

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NeedsValues(f"{func} needs the values of a tensor, and a ghost has none")

    @property
    def meta(self) -> torch.Tensor:
        """A tensor on the ``meta`` device, for finding out shapes."""
        if self._meta is None:
            self._meta = torch.empty(tuple(self.shape), dtype=self.dtype, device="meta")
        return self._meta

    def become(self, other: Ghost) -> Ghost:
        """Take the shape of ``other`` and stand for what it stands for, as an in-place view asks for."""
        with torch._C._DisableTorchDispatch():
            self.data = other
        self.value_id, self._meta = other.value_id, None
        return self

    def tolist(self) -> Any:
        """Its values, by operators that whoever follows the code can answer."""
        return listed(self)

    def __deepcopy__(self, memo: Any) -> Ghost:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Ghost, (tuple(self.shape), self.dtype, self.device, self.value_id)

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Ghost({tuple(self.shape)}, {self.dtype})"


def ghost_of(tensor: torch.Tensor) -> Ghost:
    """A ghost of an ordinary dense tensor.

    Raises:
        NeedsValues: for sparse, quantised and other tensors that are more than shape and dtype.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or type(tensor) not in _DENSE:
        raise NeedsValues(f"a {type(tensor).__name__} of layout {tensor.layout} is more than its shape")
    return Ghost(tuple(tensor.shape), tensor.dtype, tensor.device)


_DENSE = {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, Ghost}
