"""Does a saved model fit what a factory builds? Everything that does not is said at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from .._errors import PersistenceError
from ..capture import Source
from ..surgery import read
from ._recipe import Recipe
from ._save import class_name
from ._tensors import empty_slot, tensors_of

MOST_LINES = 12

Shapes = Mapping[str, tuple[int, ...]]
Owned = list[tuple[Source, str, torch.Tensor]]


def check_fit(recipe: Recipe, model: nn.Module, stored: Shapes, path: str | os.PathLike[str]) -> None:
    """That the model of a factory is what a file was made from.

    Args:
        recipe: of the file.
        model: what the factory built.
        stored: shapes of the tensors in the file.
        path: of the file, for the message.

    Raises:
        PersistenceError: if not, with every difference and what either side has.
    """
    problems = list(_problems(recipe, model, stored))
    if not problems:
        return
    shown = [f"  {problem}" for problem in problems[:MOST_LINES]]
    if len(problems) > MOST_LINES:
        shown.append(f"  and {len(problems) - MOST_LINES} more")
    lines = "\n".join(shown)
    raise PersistenceError(
        f"{path} does not fit what the factory builds:\n{lines}\n"
        "The factory has to build the model as it was before its first pruning. A layer that was "
        "put in afterwards (a new head) the factory puts in too, at the size it has in the file."
    )


def _problems(recipe: Recipe, model: nn.Module, stored: Shapes) -> Iterator[str]:
    name = class_name(model)
    if name.rpartition(".")[2] != recipe.model.rpartition(".")[2]:
        yield f"class: the factory builds {name}, the file holds {recipe.model}"
        return  # nothing below would fit either, and this says why
    owned = list(tensors_of(model))
    yield from _name_problems(recipe, model, owned, stored)
    yield from _shape_problems(recipe, owned, stored)
    yield from _tie_problems(recipe, owned)
    yield from _number_problems(recipe, model)


def _name_problems(recipe: Recipe, model: nn.Module, owned: Owned, stored: Shapes) -> Iterator[str]:
    saved = {**{name: name for name in stored}, **recipe.tied}
    for source, name, tensor in owned:
        cache = source is Source.ATTRIBUTE and not tensor.is_meta
        if name not in saved and not cache:
            yield f"{name}: the factory's model has it, {tuple(tensor.shape)}; the file does not"
    ours = {name for _, name, _ in owned}
    for name, key in saved.items():
        known = name in ours or key in recipe.plain or empty_slot(model, name) is not None
        if not known:
            yield f"{name}: the file has it, {stored.get(key)}; the factory's model does not"


def _shape_problems(recipe: Recipe, owned: Owned, stored: Shapes) -> Iterator[str]:
    for _, name, tensor in owned:
        built, saved = tuple(tensor.shape), stored.get(recipe.tied.get(name, name))
        kept = recipe.tensors.get(name)
        if saved is None:
            continue
        if kept is None and built != saved:
            yield f"{name}: {built} in the factory's model, {saved} in the file, and never pruned"
        elif kept is not None and built != kept.before:
            yield f"{name}: {built} in the factory's model, the file's was cut from {kept.before}"
        elif kept is not None and saved != kept.after:
            yield f"{name}: {saved} in the file, {kept.after} in its recipe"


def _tie_problems(recipe: Recipe, owned: Owned) -> Iterator[str]:
    first: dict[int, str] = {}
    for _, name, tensor in owned:
        other = first.setdefault(id(tensor), name)
        if recipe.tied.get(name, name) != recipe.tied.get(other, other):
            yield f"{name} and {other}: one tensor in the factory's model, two in the file"


def _number_problems(recipe: Recipe, model: nn.Module) -> Iterator[str]:
    modules = dict(model.named_modules())
    for refit in recipe.refits:
        kind = type(modules.get(refit.module))
        if kind is not refit.type:
            yield f"{refit.module}: {kind} in the factory's model, {refit.type} in the recipe"
    for change in recipe.attributes:
        try:
            value = read(modules[change.place.module], change.place.path)
        except (KeyError, AttributeError, IndexError, TypeError):
            value = None  # a field that is not set
        if type(value) is not type(change.before) or value != change.before:
            yield f"{change.place}: {value} in the factory's model, {change.before} in the recipe"
