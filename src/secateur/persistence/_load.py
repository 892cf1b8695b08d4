"""Load a model: let its factory build the original, and make that what was saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import torch
from safetensors import safe_open
from torch import nn

from ..capture import Source, unwrap
from ..surgery import Plan, Undo, copy_with, fit, like
from ._mismatch import check_fit
from ._notes import note_again
from ._save import read_recipe
from ._tensors import empty_slot, laid_out


def load(
    factory: Callable[[], nn.Module],
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Make a model again that :func:`secateur.save` wrote.

    ``factory()`` builds the model at its original sizes, as it was before the first pruning; the
    recipe in the file makes it smaller, without any input, and the weights are those of the file.
    Predictions are bit-identical to those of the model that was saved. What was tied is tied again.

    Args:
        factory: builds the original model. It may do so on the ``meta`` device, where large models
            take neither time nor memory: ``with torch.device("meta"): return Model()``. What it
            builds is not changed; the result is a copy.
        path: a file written by :func:`secateur.save`.
        device: where to put the weights. Default: where the factory puts them, the CPU for
            ``meta``.

    Returns:
        A model of the factory's class, in the factory's mode (``train`` or ``eval``) and with its
        ``requires_grad`` flags; dtypes and memory formats are those of the file. Tensors in plain
        attributes that the factory's model does not have are left out: caches of a forward.

    Raises:
        PersistenceError: if the file is no saved model, or the factory's model is not the one that
            it was made from: all differences are named, with what either side has.
        FileNotFoundError: if there is no such file.
        TypeError: if ``factory`` is a model, or does not return one.

    Example: see :func:`secateur.save`.
    """
    recipe = read_recipe(path)
    original = unwrap(_build(factory))
    with safe_open(path, framework="pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        check_fit(recipe, original, stored, path)
        made: dict[str, torch.Tensor] = {}

        def loaded(source: Source, name: str, tensor: torch.Tensor) -> torch.Tensor:
            key = recipe.tied.get(name, name)
            if key not in stored:  # a plain attribute that the saved model did not have
                return tensor.clone()
            if key not in made:
                where = device or ("cpu" if tensor.is_meta else tensor.device)
                values = laid_out(file.get_tensor(key), recipe.strides.get(key))
                made[key] = like(values.to(where), tensor)
            return made[key]

        model = copy_with(original, loaded)
        _fill(model, [name for name in stored if name not in made], file.get_tensor, device)
    fit(model, Plan({}, attributes=recipe.attributes, refits=recipe.refits), Undo(enabled=False))
    note_again(model, recipe)
    return model


def _fill(
    model: nn.Module,
    names: Iterable[str],
    values_of: Callable[[str], torch.Tensor],
    device: torch.device | str | None,
) -> None:
    """Put what the factory's model has a place for, but not the thing itself, in its place."""
    for name in names:
        slots = empty_slot(model, name)
        if slots is None:  # the cache of a forward
            continue
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        beside = next(iter((*module.parameters(), *module.buffers())), torch.empty(0))
        values = values_of(name).clone().to(device or beside.device)
        slots[attribute] = nn.Parameter(values) if slots is module._parameters else values


def _build(factory: Callable[[], nn.Module]) -> nn.Module:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(
            f"factory is a function that builds the original model, got {type(factory).__name__}: "
            "write secateur.load(lambda: Model(...), path)"
        )
    model = factory()
    if not isinstance(model, nn.Module):
        raise TypeError(f"factory() returned {type(model).__name__}, and an nn.Module is needed")
    return model
