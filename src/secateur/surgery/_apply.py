"""Carry out a plan: on a copy that is made smaller on the way, or on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..axes import Positions
from ..capture import Source, copy_with, like, owned_tensors
from ._attention import MultiheadAttention
from ._masking import zero_out
from ._plan import Plan, TensorChange
from ._put import Undo, put_numbers, put_tensor, refresh_layers

REFITS: dict[type, Callable[[Any, Any, Any], None]] = {
    nn.MultiheadAttention: MultiheadAttention.refit,
    MultiheadAttention: MultiheadAttention.refit,
}


Scales = tuple[tuple[int, Positions, float], ...]


@dataclass(frozen=True)
class Cut:
    """What became of a parameter: what replaces it, and the positions kept in each dimension.

    ``scales`` are the factors that a part of the new one took in, as in :class:`TensorChange`.
    """

    parameter: torch.Tensor
    positions: tuple[Positions | None, ...]
    scales: Scales = ()


ParameterMap = dict[torch.Tensor, Cut]


def slice_tensor(tensor: torch.Tensor, positions: tuple[Positions | None, ...]) -> torch.Tensor:
    """The kept positions of a tensor, in its memory format; never a view of it."""
    new = tensor.detach()
    for dim, stay in enumerate(positions):
        if stay is not None:
            new = new.index_select(dim, torch.from_numpy(stay).to(new.device))
    if all(stay is None for stay in positions):
        new = new.clone()
    return new.contiguous(memory_format=_memory_format(tensor))


def _memory_format(tensor: torch.Tensor) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def scale_parts(tensor: torch.Tensor, scales: Scales, power: float = 1) -> torch.Tensor:
    """Multiply parts of ``tensor`` by their factors to a power, in place.

    Args:
        tensor: of the shape after the cut.
        scales: (dimension, positions in it, factor).
        power: what to raise the factors to.
    """
    for dim, positions, factor in scales:
        with torch.no_grad():
            scale = torch.ones(tensor.shape[dim], dtype=torch.float64)
            scale[torch.from_numpy(positions)] = factor**power
            shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
            tensor.mul_(scale.reshape(shape).to(tensor))
    return tensor


def cut_copy(model: nn.Module, plan: Plan) -> tuple[nn.Module, ParameterMap]:
    """A smaller copy of ``model``; the model itself is only read."""
    changes = {name: change for change in plan.tensors for name in change.names}
    cuts: ParameterMap = {}

    def smaller(source: Source, name: str, tensor: torch.Tensor) -> torch.Tensor:
        change = changes.get(name)
        new = _cut(tensor, change) if change else like(tensor.detach().clone(), tensor)
        if tensor.is_leaf and tensor.grad is not None:
            new.grad = _cut_grad(tensor.grad, change) if change else tensor.grad.clone()
        cuts[tensor] = Cut(new, change.positions, change.scales) if change else _uncut(new)
        return new

    small = copy_with(model, smaller)
    fit(small, plan, Undo())
    return small, cuts


def cut_inplace(model: nn.Module, plan: Plan, undo: Undo) -> ParameterMap:
    """Make ``model`` itself smaller, one tensor at a time; ``undo`` learns how to take it back."""
    owned: dict[str, torch.Tensor] = {name: tensor for _, name, tensor in owned_tensors(model)}
    cuts: ParameterMap = {}
    for change in plan.tensors:
        old = owned[change.names[0]]
        new = _cut(old, change)
        if old.is_leaf and old.grad is not None:
            new.grad = _cut_grad(old.grad, change)
        cuts[old] = Cut(new, change.positions, change.scales)
        for name in change.names:
            put_tensor(model, change.source, name, new)
            undo.note(lambda name=name, old=old, source=change.source: put_tensor(model, source, name, old))
            owned.pop(name)
    for tensor in owned.values():
        if isinstance(tensor, nn.Parameter):
            cuts[tensor] = _uncut(tensor)
    fit(model, plan, undo)
    return cuts


def _uncut(tensor: torch.Tensor) -> Cut:
    return Cut(tensor, (None,) * tensor.dim())


def _cut(tensor: torch.Tensor, change: TensorChange) -> torch.Tensor:
    new = like(slice_tensor(tensor, change.positions), tensor)
    if change.zeros:
        zero_out(new, [None if rows is None else torch.from_numpy(rows) for rows in change.zeros])
    scale_parts(new, change.scales)
    return new


def _cut_grad(grad: torch.Tensor, change: TensorChange) -> torch.Tensor:
    """The gradient by the new parameter: a ``c``-th where that is ``c`` times the old one."""
    return scale_parts(slice_tensor(grad, change.positions), change.scales, power=-1)


def fit(model: nn.Module, plan: Plan, undo: Undo) -> None:
    """Make everything that is not a tensor fit the tensors, once these have been cut.

    That is: equivalent modules, the attributes of the plan, and the sizes that torch's layers keep.
    """
    for refit in plan.refits:
        module = model.get_submodule(refit.module)
        state, kind = dict(vars(module)), module.__class__
        projection = getattr(module, "out_proj", None)
        undo.note(lambda module=module, state=state, kind=kind: _give_back(module, state, kind))
        if projection is not None:
            inner = dict(vars(projection))
            undo.note(lambda p=projection, state=inner: _give_back(p, state, p.__class__))
        REFITS[refit.type](module, refit.numbers, refit.settings)
    put_numbers(model, {change.place: change.after for change in plan.attributes}, undo)
    refresh_layers(model, undo)


def _give_back(module: nn.Module, state: dict[str, Any], kind: type) -> None:
    module.__class__ = kind
    vars(module).update(state)
