"""Save a model: its tensors as safetensors, its recipe as JSON in the same file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import fx, nn

from .._errors import PersistenceError
from ..capture import Source, unwrap
from ._json import recipe_from_json, recipe_to_json
from ._notes import collect
from ._recipe import Recipe
from ._tensors import check_storable, is_dense, storable, tensors_of

if TYPE_CHECKING:
    from .._ir import PruningIR

METADATA = "secateur"
"""Key of the recipe in the metadata of the safetensors file."""


def save(model: nn.Module | PruningIR, path: str | os.PathLike[str]) -> Recipe:
    """Write a model to a file from which :func:`secateur.load` makes it again.

    The file is a safetensors file: all parameters, buffers (also those that are not persistent) and
    plain tensor attributes, tied ones once, under the names of ``state_dict()``. Its metadata holds
    the recipe: for every tensor that was cut its shape before and the positions that were kept, and
    every attribute and module that changed, over all prunings that the model went through.

    Args:
        model: any model, pruned or not, or the :class:`PruningIR` of one. Wrappers such as
            ``DataParallel`` and ``torch.compile`` are looked through.
        path: the file to write, usually ``*.safetensors``. It is replaced in one step: a failure
            leaves what was there.

    Returns:
        The recipe, which prints as a table.

    Raises:
        PersistenceError: for a ``GraphModule``, and for tensors without values (``meta``) or of a
            kind that safetensors cannot hold.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile, torch, secateur
        >>> def factory():
        ...     return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> small, _ = secateur.prune(factory(), (torch.ones(1, 4),), ratio=0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recipe = secateur.save(small, f"{folder}/small.safetensors")
        ...     loaded = secateur.load(factory, f"{folder}/small.safetensors")
        >>> recipe.tensors["0.weight"].before, recipe.tensors["0.weight"].after
        ((8, 4), (4, 4))
        >>> torch.equal(loaded(torch.ones(1, 4)), small(torch.ones(1, 4)))
        True
    """
    module = unwrap(model if isinstance(model, nn.Module) else model.model)
    if isinstance(module, fx.GraphModule):
        raise PersistenceError(
            "a torch.fx.GraphModule has its sizes in its code, so no factory can build it again. "
            "Keep it with torch.export.save(torch.export.export(model, args), path)"
        )
    recipe, tensors = _describe(module)
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.touch()
        mode = draft.stat().st_mode  # safetensors makes files that only their owner may read
        save_file(tensors, draft, metadata={"format": "pt", METADATA: recipe_to_json(recipe)})
        draft.chmod(mode)
        os.replace(draft, path)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise PersistenceError(f"{type(module).__name__} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe of a saved model, without its weights.

    Raises:
        PersistenceError: if the file was not written by :func:`secateur.save`.
        FileNotFoundError: if there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise PersistenceError(f"{path} is no safetensors file: {error}") from error
    if METADATA not in metadata:
        raise PersistenceError(
            f"{path} holds tensors but no recipe, so it was not written by secateur.save. "
            "safetensors.torch.load_file reads the tensors."
        )
    try:
        return recipe_from_json(metadata[METADATA])
    except PersistenceError as error:
        raise PersistenceError(f"{path}: {error}") from error


def class_name(model: nn.Module) -> str:
    """Module and name of a model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _describe(model: nn.Module) -> tuple[Recipe, dict[str, torch.Tensor]]:
    """The recipe of a model, and its tensors as they are to be stored."""
    stored: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    tensors: dict[str, torch.Tensor] = {}
    recipe = Recipe(model=class_name(model))
    for source, name, tensor in tensors_of(model):
        check_storable(name, tensor)
        shapes[name] = tuple(tensor.shape)
        if stored.setdefault(id(tensor), name) != name:
            recipe.tied[name] = stored[id(tensor)]
            continue
        tensors[name] = storable(tensor)
        if tensor.stride() != tensors[name].stride() and is_dense(tensor.shape, tensor.stride()):
            recipe.strides[name] = tuple(tensor.stride())
        if source is Source.ATTRIBUTE:
            recipe.plain = (*recipe.plain, name)
    changes = collect(model)
    recipe.attributes, recipe.refits = changes.attributes, changes.refits
    # A parameter that was replaced since its last cut is the factory's business, as any other.
    cut = changes.tensors.items()
    recipe.tensors = {name: kept for name, kept in cut if shapes.get(name) == kept.after}
    return recipe, tensors
