"""Random networks, random masks: the small model computes what the masked one computed."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import secateur
from oracle import count, randomise
from speedup.checks import error, masked_copy
from strategies import Recipe, networks

SEEDS = st.integers(0, 2**16)


def random_masks(model: nn.Module, seed: int) -> dict[str, dict[str, Tensor]]:
    """Rows, columns, both or single elements of most parameters; rows that coupled layers share, too."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    shared = {size: torch.rand(size) > 0.4 for size in range(1, 65)}
    masks: dict[str, dict[str, Tensor]] = {}
    for path, module in model.named_modules():
        if "parametrizations" in path:  # a row divided by its norm is not a number once it is masked
            continue
        kind = rng.choice(["rows", "rows", "shared", "shared", "columns", "elements", "none"])
        for name, parameter in module.named_parameters(recurse=False):
            keep = _mask(parameter, kind, rng, shared)
            if keep is not None:
                masks.setdefault(path, {})[name] = keep.to(parameter.dtype).expand_as(parameter).clone()
    return masks


def _mask(parameter: Tensor, kind: str, rng: random.Random, shared: dict[int, Tensor]) -> Tensor | None:
    if kind == "none" or not parameter.dim() or (parameter.dim() == 1 and rng.random() < 0.4):
        return None
    dim = 1 if kind == "columns" and parameter.dim() > 1 else 0
    size = parameter.shape[dim]
    if kind == "elements":
        return torch.rand(parameter.shape) > rng.choice([0.3, 0.9])
    keep = shared[size] if kind == "shared" and size in shared else torch.rand(size) > rng.choice([0.2, 0.6])
    return keep.reshape([-1 if d == dim else 1 for d in range(parameter.dim())])


def check(recipe: Recipe, seed: int) -> None:
    model, args = randomise(recipe.build(), seed).eval(), recipe.inputs()
    masks = random_masks(model, seed)
    reference = masked_copy(model, masks)
    for on_inexact in ("keep", "fold"):
        small = copy.deepcopy(model)
        report = secateur.speedup(small, args, masks=masks, on_inexact=on_inexact)
        assert report.exact or on_inexact == "fold"
        if report.exact:
            assert error(reference, small, *args) < 1e-6
        else:  # what the report says is what a user would measure
            found = secateur.verify(reference, small, args)
            assert found.error == pytest.approx(report.error, rel=1e-3, abs=1e-9)
        assert report.parameters == (count(model), count(small))


@pytest.mark.fuzz
@given(networks("image"), SEEDS)
def test_random_image_networks(recipe: Recipe, seed: int) -> None:
    check(recipe, seed)


@pytest.mark.fuzz
@given(networks("sequence"), SEEDS)
def test_random_sequence_networks(recipe: Recipe, seed: int) -> None:
    check(recipe, seed)


@pytest.mark.parametrize(("recipe", "seed"), [
    # A square weight that is read twice: what is zero on the side that is summed was taken for a zero result.
    (Recipe("sequence", 2, [("Turned", {"out": 6, "how": "t"})]), 0),
])  # fmt: skip
def test_random_masks_that_failed_once(recipe: Recipe, seed: int) -> None:
    check(recipe, seed)
