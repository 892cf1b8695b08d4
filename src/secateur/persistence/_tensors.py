"""The tensors of a model as a file holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .._errors import PersistenceError
from ..capture import Source, owned_tensors


def tensors_of(model: nn.Module) -> Iterator[tuple[Source, str, torch.Tensor]]:
    """Everything that a model owns, but no attribute that is a parameter or buffer under way.

    Recurrent layers, for one, list their parameters a second time in a plain attribute.
    """
    registered: set[int] = set()
    for source, name, tensor in owned_tensors(model):
        if source is not Source.ATTRIBUTE:
            registered.add(id(tensor))
        elif id(tensor) in registered:
            continue
        yield source, name, tensor


def empty_slot(model: nn.Module, name: str) -> dict[str, Any] | None:
    """The registry in which a module has a place of that name and nothing in it, if there is one.

    Such as the bias of a layer that was built without one, and was given one by a fold.
    """
    path, _, attribute = name.rpartition(".")
    modules = dict(model.named_modules())
    if path not in modules:
        return None
    registries: list[dict[str, Any]] = [modules[path]._parameters, modules[path]._buffers]
    return next((r for r in registries if attribute in r and r[attribute] is None), None)


def check_storable(name: str, tensor: torch.Tensor) -> None:
    """That safetensors can hold a tensor.

    Raises:
        PersistenceError: if not.
    """
    if tensor.is_meta:
        raise PersistenceError(f"{name} is on the meta device and has no values to save")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise PersistenceError(f"{name} is a {kind} tensor, which safetensors cannot hold")


def storable(tensor: torch.Tensor) -> torch.Tensor:
    """The values row by row, in memory of their own: safetensors takes nothing else."""
    plain = tensor.detach().contiguous()
    return plain.clone() if plain.data_ptr() == tensor.data_ptr() and _is_view(tensor) else plain


def _is_view(tensor: torch.Tensor) -> bool:
    return tensor._base is not None or tensor.untyped_storage().nbytes() != tensor.nbytes


def laid_out(values: torch.Tensor, strides: Sequence[int] | None) -> torch.Tensor:
    """The values in memory of their own, which the file may not outlive, as they lay when saved.

    Raises:
        PersistenceError: for strides that do not fit the shape.
    """
    if strides is None:
        return values.clone()
    if len(strides) != values.dim() or not is_dense(values.shape, strides):
        raise PersistenceError(f"strides {strides} do not fit the shape {tuple(values.shape)}")
    return torch.empty_strided(values.shape, strides, dtype=values.dtype).copy_(values)


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether strides fill a block of memory without gaps, in any order of the dimensions.

    >>> is_dense((2, 3), (3, 1)), is_dense((2, 3), (1, 2)), is_dense((2, 3), (0, 1))
    (True, True, False)
    """
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True
