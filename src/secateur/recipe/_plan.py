"""The plan of a run: everything checked, nothing done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import ConfigError, RecipeError
from ..compression.config import PRUNING, QUANTIZATION, Mode, parse
from ..report import render
from ._context import build
from ._names import check_names, importable
from ._read import place_of, read_recipe
from ._schema import ConfigList, Fuse, Prune, Quantize, Recipe, Section
from ._state import State, fingerprints


@dataclass(frozen=True)
class Plan:
    """A recipe that is ready to run.

    Attributes:
        recipe: what is to be done.
        file: where it was read.
        folder: where results go.
    """

    recipe: Recipe
    file: Path
    folder: Path

    def build(self) -> nn.Module:
        """The recipe's model."""
        return build(self.recipe)

    def __str__(self) -> str:
        done = len(State.read(self.folder, fingerprints(self.recipe)).done)
        rows = [["0 original", self.recipe.model.use, "done" if done else "to do"]]
        for index, step in enumerate(self.recipe.steps, 1):
            settings = step.model_dump(exclude={"kind"}, exclude_defaults=True)
            text = ", ".join(f"{name}={_short(value)}" for name, value in settings.items())
            rows.append([f"{index} {step.kind}", text, "done" if index < done else "to do"])
        return f"{render(['step', 'settings', 'state'], rows)}results: {self.folder}\n"


def plan(path: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None) -> Plan:
    """Read a recipe and check all that can be checked beforehand: keys, values, import paths, config lists.

    The model is built once, since config lists are checked against its modules.

    Args:
        path: of the YAML file.
        out: the output folder; by default the recipe's ``output``, or ``build/<name of the file>``.

    Raises:
        RecipeError: with every mistake and its line.
    """
    file = Path(path).resolve()
    recipe = read_recipe(file)
    text = file.read_text(encoding="utf-8")
    with importable(file.parent):
        check_names(recipe, file.name, text)
        _check_config_lists(recipe, file.name, text)
    return Plan(recipe, file, Path(out or recipe.output or Path("build") / file.stem))


def _check_config_lists(recipe: Recipe, file: str, text: str) -> None:
    model: nn.Module | None = None
    problems: list[str] = []
    for index, step in enumerate(recipe.steps):
        for key, given, mode in _config_lists(step):
            model = build(recipe) if model is None else model
            try:
                parse(given, model, mode=mode)
            except ConfigError as error:
                place = place_of(text, ["steps", index, step.kind, key])
                problems += [f"{place}: {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(file, problems)


def _config_lists(step: Section) -> Iterator[tuple[str, ConfigList, Mode]]:
    """The config lists that a step has, each with its key and what it is for."""
    if isinstance(step, Fuse):
        yield "prune", step.prune, PRUNING
    if isinstance(step, (Prune, Quantize, Fuse)) and isinstance(step.config_list, list):
        yield "config_list", step.config_list, PRUNING if isinstance(step, Prune) else QUANTIZATION


def _short(value: Any) -> str:
    text = value["use"] if isinstance(value, dict) and "use" in value else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
