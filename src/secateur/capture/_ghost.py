"""Ghosts: tensors with a shape, a dtype and a device, but no memory and no values.

A model's code can be followed on ghosts without its arithmetic and without its weights. Code that
reads a value cannot, and says so (:class:`NeedsValues`).
"""

from __future__ import annotations

from typing import Any

import torch

from ._graph import map_tree

_SHAPED_LIKE_FIRST = {
    f"aten::{name}{suffix}"
    for name in (
        "batch_norm", "layer_norm", "group_norm", "instance_norm", "relu", "relu6", "gelu", "silu", "mish",
        "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "dropout",
    )
    for suffix in ("", "_")
}  # fmt: skip


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
        cls: type[Ghost], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, value_id: int = -1
    ) -> Ghost:
        ghost = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
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
    kinds = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, Ghost)
    if tensor.layout is not torch.strided or tensor.is_quantized or type(tensor) not in kinds:
        raise NeedsValues(f"a {type(tensor).__name__} of layout {tensor.layout} is more than its shape")
    return Ghost(tuple(tensor.shape), tensor.dtype, tensor.device)


def compute_shapes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator as far as it can be run: on ghosts for its shapes only, else for real.

    Raises:
        NeedsValues: if the operator reads values of a ghost, or writes a ghost's into a real tensor.
    """
    ghosts = [t for t in _tensors((args, kwargs)) if isinstance(t, Ghost)]
    if not ghosts:
        return func(*args, **kwargs)
    if func._schema.name in _SHAPED_LIKE_FIRST and ghosts[0] is args[0] and args[0].is_floating_point():
        # Said at once what the meta kernels of these take long to find out.
        return args[0] if func._schema.is_mutable else ghost_of(args[0])
    known: dict[int, torch.Tensor] = {}
    device = [ghosts[0].device]

    def to_meta(tensor: torch.Tensor) -> torch.Tensor:
        meta = tensor.meta if isinstance(tensor, Ghost) else tensor.to("meta")
        known[id(meta)] = tensor
        return meta

    def moved(target: torch.device) -> torch.device:
        device[0] = target
        return torch.device("meta")

    def named(meta: torch.Tensor) -> torch.Tensor:
        tensor = known.get(id(meta))
        if tensor is None:
            return Ghost(tuple(meta.shape), meta.dtype, device[0])
        if not isinstance(tensor, Ghost) and func._schema.is_mutable:
            raise NeedsValues(f"{func} writes the values of a ghost into a tensor")
        return tensor

    inputs = map_tree(map_tree((args, kwargs), torch.device, moved), torch.Tensor, to_meta)
    result = func(*inputs[0], **inputs[1])
    if result is not None and not _tensors(result):
        raise NeedsValues(f"{func} reads the values of a tensor, and a ghost has none")
    return map_tree(result, torch.Tensor, named)


def _tensors(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_tree(tree, torch.Tensor, found.append)
    return found
