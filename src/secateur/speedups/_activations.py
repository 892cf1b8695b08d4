"""Masks on what goes into and comes out of modules.

Where the module has weights that make or read the masked positions, the mask becomes one on these
weights. Elsewhere it is multiplied by a hook while the model is recorded and run as reference; the
positions then have to go, since no hook stays in the small model.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import MaskError, SurgeryError
from ..masks import ActivationMask, Masks
from ..masks import canonical_names as names_of

_CONVS = (nn.modules.conv._ConvNd,)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_FEATURES = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)


def to_parameters(masks: Masks, model: nn.Module) -> list[ActivationMask]:
    """Turn masks on activations into masks on parameters; returns those that cannot be."""
    names = names_of(model)
    rest = []
    for mask in masks.activations:
        if bool(mask.keep.all()):
            continue
        module = model.get_submodule(mask.module)
        found = _of_input(module, mask) if mask.is_input else _of_output(module, mask)
        if found is None:
            rest.append(mask)
            continue
        for name, keep in found.items():
            masks.add(names[f"{mask.module}.{name}".lstrip(".")], keep)
    return rest


def _of_output(module: nn.Module, mask: ActivationMask) -> dict[str, Tensor] | None:
    """Masks on the rows that make the output."""
    if mask.key != "0":
        return None
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None:
        return None
    if isinstance(module, _CONVS):
        vector = _vector(mask.keep, -1 - (weight.dim() - 2), module.out_channels)
        if isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups > 1:
            return None
        dim = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
    elif isinstance(module, _NORMS):
        vector, dim = _vector(mask.keep, _channel_of_norm(module, mask.keep), len(weight)), 0
    elif isinstance(module, _FEATURES):
        dim = 0 if isinstance(module, nn.Linear) else weight.dim() - 1
        vector = _vector(mask.keep, -1, weight.shape[dim])
    else:
        return None
    if vector is None:
        return None
    found = {"weight": _along(vector, dim, weight)}
    return found if bias is None else found | {"bias": vector.to(bias.device)}


def _of_input(module: nn.Module, mask: ActivationMask) -> dict[str, Tensor] | None:
    """Masks on the columns that read the input."""
    weight = module._parameters.get("weight")
    if mask.key not in ("0", "input") or weight is None:
        return None
    if isinstance(module, nn.Linear):
        vector = _vector(mask.keep, -1, weight.shape[1])
        return None if vector is None else {"weight": _along(vector, 1, weight)}
    if not isinstance(module, _CONVS):
        return None
    vector = _vector(mask.keep, -1 - (weight.dim() - 2), module.in_channels)
    if vector is None:
        return None
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return {"weight": _along(vector, 0, weight)}
    each = vector.reshape(module.groups, -1).repeat_interleave(module.out_channels // module.groups, 0)
    return {"weight": each.reshape(*each.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).to(weight.device)}


def _channel_of_norm(module: nn.Module, keep: Tensor) -> int:
    fixed = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3, nn.InstanceNorm1d: 1, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}
    spatial = next((n for kind, n in fixed.items() if isinstance(module, kind)), max(0, keep.dim() - 2))
    return -1 - spatial


def _vector(keep: Tensor, dim: int, size: int) -> Tensor | None:
    """The mask along its channels, where it is the same in all other positions."""
    if keep.dim() < -dim or keep.shape[dim] not in (1, size):
        return None
    others = [d for d in range(keep.dim()) if d != dim % keep.dim()]
    first = keep
    for other in others:
        first = first.narrow(other, 0, 1)
    return first.reshape(-1).expand(size) if bool((keep == first).all()) else None


def _along(vector: Tensor, dim: int, like: Tensor) -> Tensor:
    shape = [-1 if d == dim else 1 for d in range(like.dim())]
    return vector.to(like.device).reshape(shape).expand(like.shape)


# -- hooks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hooked:
    """A mask that is multiplied by a hook; it is kept in a buffer of the module, so a cut cuts it."""

    mask: ActivationMask
    buffer: str


@contextlib.contextmanager
def masking_hooks(model: nn.Module, masks: Sequence[ActivationMask]) -> Iterator[list[_Hooked]]:
    """Multiply masks onto activations while the body runs."""
    hooked = [_Hooked(mask, f"_mask_of_{number}") for number, mask in enumerate(masks)]
    handles = []
    try:
        for each in hooked:
            module = model.get_submodule(each.mask.module)
            like = next(module.parameters(), torch.empty(()))
            module.register_buffer(each.buffer, _compact(each.mask.keep).to(like.device, like.dtype), False)
            if each.mask.is_input:
                hook = functools.partial(_mask_input, each.mask.module, each.mask.key, each.buffer)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = functools.partial(_mask_output, each.mask.module, each.mask.key, each.buffer)
                handles.append(module.register_forward_hook(hook))
        yield hooked
    finally:
        for handle in handles:
            handle.remove()
        for each in hooked:
            model.get_submodule(each.mask.module)._buffers.pop(each.buffer, None)
            model.get_submodule(each.mask.module)._non_persistent_buffers_set.discard(each.buffer)


def _compact(keep: Tensor) -> Tensor:
    """The mask with every dimension along which it is the same narrowed to size 1."""
    for dim in range(keep.dim()):
        first = keep.narrow(dim, 0, 1)
        if bool((keep == first).all()):
            keep = first
    return keep


def leftovers(model: nn.Module, hooked: Sequence[_Hooked]) -> list[ActivationMask]:
    """Masks that still hide something in the small model."""
    return [
        each.mask for each in hooked if not bool(model.get_submodule(each.mask.module)._buffers[each.buffer].all())
    ]


def refuse_leftovers(masks: Sequence[ActivationMask]) -> None:
    """Raise, since a mask on an activation would be lost.

    Raises:
        SurgeryError: if there are any.
    """
    if masks:
        names = ", ".join(f"{mask.module} {mask.target}" for mask in masks)
        raise SurgeryError(
            f"some positions that these masks hide cannot be removed, and no weight can hide them instead: {names}. "
            "Mask the weight and bias of the layer that makes them. Nothing has been changed."
        )


def _mask_output(path: str, key: str, buffer: str, module: nn.Module, args: Any, output: Any) -> Any:
    return _replaced(output, key, f"{path}, target '_output_{key}'", lambda t: _times(t, module, buffer, path, key))


def _mask_input(
    path: str, key: str, buffer: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    where = f"{path}, target '_input_{key}'"
    change = functools.partial(_times, module=module, buffer=buffer, path=path, key=key)
    if key in kwargs:
        return args, _replaced(kwargs, key, where, change)
    index = int(key) if key.isdigit() else _position(module, key, where)
    if index >= len(args):
        raise MaskError(f"{where}: the module is called with {len(args)} positional arguments")
    return tuple(_replaced(args, str(index), where, change)), kwargs


def _position(module: nn.Module, name: str, where: str) -> int:
    names = list(inspect.signature(module.forward).parameters)
    if name not in names:
        raise MaskError(f"{where}: {type(module).__name__}.forward has no argument {name!r}, but {names}")
    return names.index(name)


def _replaced(tree: Any, key: str, where: str, change: Callable[[Tensor], Tensor]) -> Any:
    """``tree`` with the tensor at ``key`` changed."""
    if isinstance(tree, Tensor) and key == "0":
        return change(tree)
    if isinstance(tree, Mapping) and key in tree:
        items = dict(tree) | {key: change(tree[key])}
        return items if type(tree) is dict else type(tree)(**items)
    if isinstance(tree, Mapping) and key.isdigit() and int(key) < len(tree):
        return _replaced(tree, list(tree)[int(key)], where, change)
    if isinstance(tree, (list, tuple)) and key.isdigit() and int(key) < len(tree):
        items = [change(item) if i == int(key) else item for i, item in enumerate(tree)]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    known = list(tree) if isinstance(tree, Mapping) else len(tree) if isinstance(tree, (list, tuple)) else "one tensor"
    raise MaskError(f"{where}: there is nothing of that name; there is {known}")


def _times(tensor: Tensor, module: nn.Module, buffer: str, path: str, key: str) -> Tensor:
    mask = module._buffers[buffer]
    assert mask is not None
    shape, own = tuple(mask.shape), tuple(tensor.shape)
    if len(shape) > len(own) or any(m not in (1, n) for m, n in zip(shape[::-1], own[::-1], strict=False)):
        raise MaskError(f"{path}, mask {key!r}: the mask has shape {shape} and the tensor {own}")
    return tensor * mask
