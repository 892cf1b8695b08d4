"""Import paths become functions: checked, with their arguments, before anything runs."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .._errors import RecipeError, nearest
from ._read import place_of
from ._schema import Call, Recipe

LATER = {"optimizer": 1, "evaluate": 1, "loss": 2}
"""How many arguments come first that the recipe does not give: parameters, the model, output and batch."""


@contextmanager
def importable(folder: Path) -> Generator[None]:
    """Modules beside the recipe can be imported while the body runs."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def called(call: Call, *first: Any) -> Any:
    """What the function gives for the recipe's arguments, behind ``first``."""
    return resolve(call)(*first, **call.arguments)


def resolve(call: Call) -> Callable[..., Any]:
    """The function at an import path ``package.module:name``.

    Raises:
        ValueError: if there is none; with the nearest name.
    """
    module_name, _, name = call.use.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"cannot import {module_name!r}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module_name!r} has no {part!r}{nearest(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{call.use} is no function, but {type(found).__name__}")
    return found


def check_names(recipe: Recipe, file: str, text: str) -> None:
    """Import everything that a recipe names, and see that it takes the arguments given; nothing is called.

    Raises:
        RecipeError: with every mistake and its line.
    """
    problems = []
    for place, call in calls_of(recipe, []):
        try:
            _check_arguments(resolve(call), call, LATER.get(str(place[-1]), 0))
        except ValueError as error:
            problems.append(f"{place_of(text, place)}: {error}")
    if problems:
        raise RecipeError(file, problems)


def calls_of(part: BaseModel, place: list[str | int]) -> Iterator[tuple[list[str | int], Call]]:
    """Every call in a recipe with its place in the file."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Call):
            yield [*place, name], value
        elif isinstance(value, BaseModel):
            yield from calls_of(value, [*place, name])
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from calls_of(item, [*place, name, index, str(getattr(item, "kind", ""))])


def _check_arguments(function: Callable[..., Any], call: Call, first: int) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(*[None] * first, **call.arguments)
    except TypeError as error:
        unknown = [name for name in call.arguments if name not in signature.parameters]
        hint = nearest(unknown[0], signature.parameters) if unknown else ""
        raise ValueError(f"{call.use}{signature}: {error}{hint}") from error
