"""Mistakes in a recipe: all at once, with line, key and what may be meant; before anything runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur._errors import RecipeError
from secateur.recipe import plan, read_recipe

Write = Callable[[str], Path]

MODEL = "model: torch.nn:ReLU\ndata: {example: torch:ones}\n"

MISTAKES = {
    "steps:\n  - prun: {ratio: 0.5}\n": r"line 4, column 5, steps.0.prun: .*did you mean 'prune'",
    "steps:\n  - prune: {ration: 0.5}\n": r"line 4, .*ration: unknown key; did you mean 'ratio'",
    "steps:\n  - prune: {ratio: 1.5}\n": r"line 4, .*ratio: Input should be less than 1, got 1.5",
    "steps:\n  - prune: {ratio: half}\n": r"line 4, .*ratio: .*valid number, got 'half'",
    "steps:\n  - prune: {}\n": r"line 4, .*give one of ratio, target_latency and config_list",
    "steps: []\n": r"line 3, .*steps: ",
    "stepz:\n  - prune: {ratio: 0.5}\n": r"stepz: unknown key; did you mean 'steps'",
    "steps:\n  - deploy: {to: onxn}\n": r"line 4, .*to: .*'onnx'",
    "steps:\n  - deploy: {max_batch: 8}\n": r"line 4, .*max_batch is for executorch",
    "steps:\n  - train: {epochs: 1}\n": r"line 4, .*loss: is missing",
    "steps:\n  - deploy:\n  - quantize:\n": r"step 2, quantize, needs data.calibrate or data.train",
    "steps:\n  - distill:\n": r"step 1, distill, needs data.train",
    "seed: one\nsteps:\n  - prune: {ratio: 0.5}\n": r"line 3, .*seed: .*integer, got 'one'",
    "evaluate: accuracy\nsteps:\n  - prune: {ratio: 0.5}\n": r"evaluate.*package.module:name, got 'accuracy'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, write: Write) -> None:
    with pytest.raises(RecipeError, match=MISTAKES[text]):
        read_recipe(write(MODEL + text))


def test_all_mistakes_come_at_once(write: Write) -> None:
    text = MODEL + "sead: 1\nsteps:\n  - prune: {ratio: 2.0}\n  - deplyo: {}\n"
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(text))
    assert len(caught.value.problems) == 3
    assert str(caught.value).startswith("recipe.yaml has 3 mistakes:\nline 3")
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_only_deployment_follows_quantisation(write: Write) -> None:
    text = "model: torch.nn:ReLU\ndata: {train: torch:ones}\nsteps:\n  - quantize:\n  - prune: {ratio: 0.5}\n"
    with pytest.raises(RecipeError, match="step 2, prune, cannot follow quantize"):
        read_recipe(write(text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model: no_such_module:thing", "cannot import 'no_such_module'"),
        ("model: torch.nn:Conv2D", r"has no 'Conv2D'; did you mean 'Conv2d'"),
        ("model: torch:float32", "is no function"),
        ('model: {use: "torch.nn:ReLU", arguments: {inplac: true}}', "inplac"),
    ],
)
def test_import_paths_are_checked_before_anything_runs(line: str, said: str, write: Write) -> None:
    path = write(f"{line}\ndata: {{example: torch:ones}}\nsteps:\n  - prune: {{ratio: 0.5}}\n")
    with pytest.raises(RecipeError, match=rf"line 1, column 1, model: .*{said}"):
        plan(path)


def test_config_lists_are_checked_against_the_model(write: Write) -> None:
    text = "model: {use: 'torch.nn:Linear', arguments: {in_features: 4, out_features: 2}}\n"
    text += "data: {example: torch:ones}\nsteps:\n"
    text += "  - prune: {config_list: [{op_types: [Linnear], sparse_ratio: 0.5}]}\n"
    with pytest.raises(RecipeError, match=r"line 4, .*op_types.*did you mean 'Linear'"):
        plan(write(text))


@pytest.mark.parametrize("text", ["a: [", "- 1\n", ""])
def test_what_is_no_recipe_is_refused(text: str, write: Write) -> None:
    with pytest.raises(RecipeError):
        read_recipe(write(text))


def test_nothing_in_a_recipe_is_evaluated(write: Write) -> None:
    text = MODEL + "steps:\n  - prune: !!python/object/apply:os.getcwd []\n"
    with pytest.raises(RecipeError, match="no YAML"):
        read_recipe(write(text))
