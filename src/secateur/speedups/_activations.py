"""Masks on what goes into and comes out of modules.

Where the module has weights that make or read the masked positions, the mask becomes one on these
weights. Elsewhere it is multiplied by a hook while the model is recorded and run as reference; the
positions then have to go, since no hook stays in the small model.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import MaskError, SurgeryError
from ..masks import ActivationMask, Masks, compact
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
        if mask.additive:
            rest.append(mask)
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
    return {
        "weight": each.reshape(*each.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).to(weight.device)
    }


def _channel_of_norm(module: nn.Module, keep: Tensor) -> int:
    fixed = {
        nn.BatchNorm2d: 2,
        nn.BatchNorm3d: 3,
        nn.InstanceNorm1d: 1,
        nn.InstanceNorm2d: 2,
        nn.InstanceNorm3d: 3,
    }
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


@dataclass(eq=False)
class _Hook:
    """A mask that is multiplied by a hook; it is kept in a buffer of the module, so a cut cuts it."""

    mask: ActivationMask
    buffer: str
    checked: bool = False

    @property
    def path(self) -> str:
        """Path of the buffer."""
        return f"{self.mask.module}.{self.buffer}".lstrip(".")

    def on_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        """A forward hook."""
        return replace_item(output, self.mask.key, self._where, lambda tensor: self._times(module, tensor))

    def on_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """A forward pre-hook."""
        key = self.mask.key

        def change(tensor: Tensor) -> Tensor:
            return self._times(module, tensor)

        if key in kwargs:
            return args, replace_item(kwargs, key, self._where, change)
        index = int(key) if key.isdigit() else argument_position(module, key, self._where)
        if index >= len(args):
            raise MaskError(f"{self._where}: the module is called with {len(args)} positional arguments")
        return tuple(replace_item(args, str(index), self._where, change)), kwargs

    @property
    def _where(self) -> str:
        return f"{self.mask.module}, target {self.mask.target!r}"

    def _times(self, module: nn.Module, tensor: Tensor) -> Tensor:
        shape, own = tuple(self.mask.keep.shape), tuple(tensor.shape)
        if not self.checked:  # the first run is that of the whole model
            fits = all(m in (1, n) for m, n in zip(shape[::-1], own[::-1], strict=False))
            if len(shape) > len(own) or not fits:
                raise MaskError(f"{self._where}: the mask has shape {shape} and the tensor {own}")
            self.checked = True
        mask = module._buffers[self.buffer]
        assert mask is not None
        return tensor + mask if self.mask.additive else tensor * mask

    def values(self, like: Tensor) -> Tensor:
        """What the buffer holds: 1 where something is kept, or 0 if the mask is added."""
        keep = compact(self.mask.keep).to(like.device)
        if self.mask.additive:
            return torch.zeros(keep.shape, dtype=like.dtype, device=like.device).masked_fill(
                ~keep, -torch.inf
            )
        return keep.to(like.dtype)

    def hides(self, buffer: Tensor) -> bool:
        """Whether anything is masked in what is left of the buffer."""
        return bool((buffer != 0).any()) if self.mask.additive else not bool(buffer.all())


@contextlib.contextmanager
def masking_hooks(model: nn.Module, masks: Sequence[ActivationMask]) -> Generator[list[_Hook]]:
    """Multiply masks onto activations while the body runs."""
    hooks = [_Hook(mask, f"_mask_of_{number}") for number, mask in enumerate(masks)]
    handles = []
    try:
        for hook in hooks:
            module = model.get_submodule(hook.mask.module)
            like = next(model.parameters(), torch.empty(()))
            module.register_buffer(hook.buffer, hook.values(like), False)
            if hook.mask.is_input:
                handles.append(module.register_forward_pre_hook(hook.on_input, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(hook.on_output))
        yield hooks
    finally:
        for handle in handles:
            handle.remove()
        for hook in hooks:
            module = model.get_submodule(hook.mask.module)
            module._buffers.pop(hook.buffer, None)
            module._non_persistent_buffers_set.discard(hook.buffer)


def leftovers(model: nn.Module, hooked: Sequence[_Hook]) -> list[ActivationMask]:
    """Masks that still hide something in the small model."""
    buffers = dict(model.named_buffers())
    return [hook.mask for hook in hooked if hook.hides(buffers[hook.path])]


def refuse_leftovers(masks: Sequence[ActivationMask]) -> None:
    """Raise, since a mask on an activation would be lost.

    Raises:
        SurgeryError: if there are any.
    """
    if masks:
        names = ", ".join(f"{mask.module} {mask.target}" for mask in masks)
        raise SurgeryError(
            "some positions that these masks hide cannot be removed, and no weight can hide them instead: "
            f"{names}. Mask the weight and bias of the layer that makes them. Nothing has been changed."
        )


def argument_position(module: nn.Module, name: str, where: str) -> int:
    """Which positional argument of a module's forward has a name.

    Raises:
        MaskError: if none has.
    """
    names = list(inspect.signature(module.forward).parameters)
    if name not in names:
        raise MaskError(f"{where}: {type(module).__name__}.forward has no argument {name!r}, but {names}")
    return names.index(name)


def replace_item(tree: Any, key: str, where: str, change: Callable[[Tensor], Tensor]) -> Any:
    """Arguments or outputs of a module with the tensor at ``key`` changed.

    Raises:
        MaskError: if there is nothing at ``key``.

    >>> replace_item((torch.ones(1), {"x": 1}), "0", "relu, target '_input_0'", lambda tensor: tensor * 2)
    (tensor([2.]), {'x': 1})
    """
    if isinstance(tree, Tensor) and key == "0":
        return change(tree)
    if isinstance(tree, Mapping) and key in tree:
        items = dict(tree) | {key: change(tree[key])}
        return items if type(tree) is dict else type(tree)(**items)
    if isinstance(tree, Mapping) and key.isdigit() and int(key) < len(tree):
        return replace_item(tree, list(tree)[int(key)], where, change)
    if isinstance(tree, (list, tuple)) and key.isdigit() and int(key) < len(tree):
        items = [change(item) if i == int(key) else item for i, item in enumerate(tree)]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    known = (
        list(tree)
        if isinstance(tree, Mapping)
        else len(tree)
        if isinstance(tree, (list, tuple))
        else "one tensor"
    )
    raise MaskError(f"{where}: there is nothing of that name; there is {known}")
