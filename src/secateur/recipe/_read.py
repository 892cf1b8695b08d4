"""From a YAML file to a recipe; every mistake with its line and the key that may have been meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .._errors import RecipeError, nearest
from ._schema import KINDS, Call, Data, Recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe; nothing that it names is imported yet.

    Raises:
        RecipeError: with every mistake, a line each: line and column, key, what is wrong, what may be meant.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(path.name, [f"no YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise RecipeError(path.name, [f"a mapping is expected, got {type(content).__name__}"])
    problems = [_at(tree, place, text) for place, text in _unknown_kinds(content)]
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems += [line for line in map(lambda e: _problem(tree, e), error.errors()) if line]
    raise RecipeError(path.name, sorted(set(problems), key=_line_number))


def place_of(text: str, place: Sequence[str | int]) -> str:
    """``line 3, steps.0.prune`` for a path of keys in the text of a recipe."""
    return _at(yaml.compose(text, Loader=yaml.SafeLoader), place, "").rstrip(": ")


def _unknown_kinds(content: dict[str, Any]) -> Iterable[tuple[list[str | int], str]]:
    steps = content.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if not isinstance(step, dict) or len(step) != 1:
            yield ["steps", index], f"a step is one of {', '.join(KINDS)}, with its settings below it"
        elif next(iter(step)) not in KINDS:
            kind = next(iter(step))
            known = ", ".join(KINDS)
            yield ["steps", index, kind], f"no step is called {kind!r} ({known}){nearest(kind, KINDS)}"


def _problem(tree: Any, error: Any) -> str:
    place = [part for part in error["loc"] if part != "function-before[_as_call(), Call]"]
    if error["type"].startswith("union_tag"):
        return ""  # said by _unknown_kinds
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        text = f"unknown key{nearest(str(place[-1]), _keys_at(place[:-1]))}"
    elif error["type"] == "missing":
        text = "is missing"
    elif error["type"] == "string_pattern_mismatch":
        text = f"an import path is written package.module:name, got {error['input']!r}"
    elif "input" in error and not isinstance(error["input"], (dict, list, BaseModel)):
        text = f"{text}, got {error['input']!r}"
    return _at(tree, place, text)


def _keys_at(place: Sequence[str | int]) -> Iterable[str]:
    """Which keys are known at a place."""
    if not place:
        return Recipe.model_fields
    if place[0] == "steps" and len(place) == 3 and place[2] in KINDS:
        return [name for name in KINDS[str(place[2])].model_fields if name != "kind"]
    if place == ["data"]:
        return Data.model_fields
    return Call.model_fields


def _at(tree: Any, place: Sequence[str | int], text: str) -> str:
    """The text behind line and key: as deep as the file goes along the path."""
    node, mark = tree, tree.start_mark
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        elif isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            mark, node = pair[0].start_mark, pair[1]
    name = ".".join(map(str, place))
    return f"line {mark.line + 1}, column {mark.column + 1}{f', {name}' if name else ''}: {text}"


def _line_number(problem: str) -> tuple[int, str]:
    digits = problem.removeprefix("line ").partition(",")[0]
    return (int(digits) if digits.isdigit() else 0), problem
