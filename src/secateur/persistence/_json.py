"""Recipes and notes as JSON. What is read is checked: a file may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._errors import PersistenceError
from ..surgery import REFITS, AttributeChange, Place, Refit
from ._positions import check
from ._recipe import Changes, Kept, Recipe

VERSION = 1

REFITTED: dict[str, type] = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in REFITS}
"""The classes whose modules surgery may replace by equivalent ones, by name."""


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe as JSON."""
    tree = {
        "version": VERSION,
        "model": recipe.model,
        **changes_to_tree(recipe),
        "tied": recipe.tied,
        "strides": {name: list(strides) for name, strides in recipe.strides.items()},
        "plain": list(recipe.plain),
    }
    return json.dumps(tree)


def recipe_from_json(text: str) -> Recipe:
    """The recipe that :func:`recipe_to_json` wrote.

    Raises:
        PersistenceError: for any other text, or a version that is not known here.
    """
    try:
        tree = json.loads(text)
        version = tree["version"]
        if version == VERSION:
            return _recipe(tree)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PersistenceError(f"the recipe is damaged ({reason})") from error
    raise PersistenceError(
        f"the recipe has version {version!r}, and this Secateur reads version {VERSION}: it was "
        "written by a newer one. Update: pip install --upgrade secateur"
    )


def changes_to_tree(changes: Changes) -> dict[str, Any]:
    """Changes as nested dicts and lists, which JSON can write."""
    tensors = {
        name: {
            "before": list(kept.before),
            "after": list(kept.after),
            "kept": list(kept.positions),
        }
        for name, kept in changes.tensors.items()
    }
    attributes = [
        {
            "module": change.place.module,
            "path": list(change.place.path),
            "before": change.before,
            "after": change.after,
        }
        for change in changes.attributes
    ]
    refits = [
        {
            "module": refit.module,
            "type": f"{refit.type.__module__}.{refit.type.__qualname__}",
            "numbers": dict(refit.numbers),
            "settings": dict(refit.settings),
        }
        for refit in changes.refits
    ]
    return {"tensors": tensors, "attributes": attributes, "refits": refits}


def changes_from_tree(tree: Mapping[str, Any]) -> Changes:
    """The changes that :func:`changes_to_tree` wrote.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: for anything else.
    """
    return Changes(
        {_text(name): _kept(item) for name, item in tree["tensors"].items()},
        [_attribute(item) for item in tree["attributes"]],
        list(_refits(tree["refits"])),
    )


def _recipe(tree: Mapping[str, Any]) -> Recipe:
    return Recipe(
        **vars(changes_from_tree(tree)),
        model=_text(tree["model"]),
        tied={_text(name): _text(stored) for name, stored in tree["tied"].items()},
        strides={_text(name): _sizes(strides) for name, strides in tree["strides"].items()},
        plain=tuple(map(_text, tree["plain"])),
    )


def _kept(item: Mapping[str, Any]) -> Kept:
    texts = tuple(None if text is None else _text(text) for text in item["kept"])
    kept = Kept(_sizes(item["before"]), texts)
    for size, text in zip(kept.before, kept.positions, strict=True):
        if text is not None:
            check(text, size)
    return kept


def _attribute(item: Mapping[str, Any]) -> AttributeChange:
    place = Place(_text(item["module"]), _path(item["path"]))
    before = item["before"]  # None for a field of a config that was not set
    return AttributeChange(place, None if before is None else _number(before), _number(item["after"]))


def _refits(items: Sequence[Mapping[str, Any]]) -> Iterator[Refit]:
    for item in items:
        if item["type"] not in REFITTED:
            raise ValueError(f"nothing is known of a replacement for {item['type']}")
        numbers = {_text(name): _int(value) for name, value in item["numbers"].items()}
        settings = {_text(name): value for name, value in item["settings"].items()}
        if not all(isinstance(value, (bool, int, float)) for value in settings.values()):
            raise TypeError(f"settings of {item['module']!r} that are not numbers")
        yield Refit(_text(item["module"]), REFITTED[item["type"]], numbers, settings)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _number(value: Any) -> Any:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {value!r}")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(map(_int, values))
    if any(size < 0 for size in sizes):
        raise ValueError(f"expected sizes, got {sizes}")
    return sizes


def _path(steps: Any) -> tuple[str | int, ...]:
    path = tuple(steps)
    plain = all(type(s) is int or (isinstance(s, str) and not s.startswith("__")) for s in path)
    if not plain or not path or not isinstance(path[0], str):
        raise ValueError(f"{path} is no path to an attribute")
    return path
