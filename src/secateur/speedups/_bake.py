"""Masks made part of a model: parameters zeroed, pruning hooks taken off. All of it can be undone."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from ..capture import owned_tensors
from ..masks import compress, pruned_parameters
from ..surgery import Plan, Undo, slice_tensor


def bake(model: nn.Module, masks: Mapping[str, Tensor], undo: Undo) -> None:
    """Set what is masked to zero, in place; ``undo`` keeps only the values that were lost."""
    owned = {name: tensor for _, name, tensor in owned_tensors(model)}
    for name, keep in masks.items():
        parameter = owned[name].detach()
        if parameter.device.type != "meta":
            _zero(parameter, _where(keep.to(parameter.device)), undo)


def _where(keep: Tensor) -> tuple[Tensor, ...]:
    """Index of what is masked: of whole rows where only whole rows are masked, which is much faster."""
    (small,) = compress(keep)
    if keep.dim() > 1 and small.numel() == small.shape[0]:
        return (torch.nonzero(~small.flatten().expand(keep.shape[0])).flatten(),)
    return torch.nonzero(~keep, as_tuple=True)


def _zero(parameter: Tensor, index: tuple[Tensor, ...], undo: Undo) -> None:
    if not len(index[0]):
        return
    lost = parameter[index]
    undo.note(lambda: put(parameter, index, lost))
    parameter.index_put_(index, torch.zeros((), dtype=parameter.dtype, device=parameter.device))


def put(tensor: Tensor, index: tuple[Tensor, ...], values: Tensor) -> None:
    """``tensor[index] = values``."""
    tensor[index] = values


def bake_slices(model: nn.Module, masks: Mapping[str, Tensor], plan: Plan, undo: Undo) -> None:
    """Mask a model that has been cut: what the cut made, and in place what it left alone."""
    changes = {name: change for change in plan.tensors for name in change.names}
    bake(model, {name: keep for name, keep in masks.items() if name not in changes}, undo)
    owned = {name: tensor for _, name, tensor in owned_tensors(model)}
    for name, keep in masks.items():
        if name in changes and owned[name].device.type != "meta":
            owned[name].detach().masked_fill_(~slice_tensor(keep, changes[name].positions), 0)


@contextlib.contextmanager
def baked(model: nn.Module, masks: Mapping[str, Tensor]) -> Generator[None]:
    """The masked model while the body runs, then the model as it was."""
    undo = Undo()
    try:
        bake(model, masks, undo)
        yield
    finally:
        undo.restore()


def strip_pruning(model: nn.Module, undo: Undo) -> None:
    """Take the hooks of ``torch.nn.utils.prune`` off; the parameters keep their unmasked values."""
    for _, module, name in pruned_parameters(model):
        before = _state(module)
        undo.note(lambda module=module, before=before: _restore(module, before))
        parameters = [
            (name, parameter) if key == f"{name}_orig" else (key, parameter)
            for key, parameter in module._parameters.items()
        ]
        module._parameters.clear()
        module._parameters.update(parameters)
        module._buffers.pop(f"{name}_mask")
        vars(module).pop(name, None)  # the masked weight of the last forward
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
                del module._forward_pre_hooks[key]


def _state(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    return {
        key: (value, dict(value) if isinstance(value, dict) else None) for key, value in vars(module).items()
    }


def _restore(module: nn.Module, before: dict[str, tuple[Any, Any]]) -> None:
    own = vars(module)
    for key in [key for key in own if key not in before]:
        del own[key]
    for key, (value, content) in before.items():
        own[key] = value
        if content is not None:
            value.clear()
            value.update(content)
