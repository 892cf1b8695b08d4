"""Random networks, random labels: what the masked model computes, the small one computes too."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from networks import BLOCKS, Block, Spec
from oracle import check_cut, difference, outputs, random_labels, randomise, snapshot_of
from strategies import Recipe, networks

SEEDS = st.integers(0, 2**16)


def check_network(recipe: Recipe, seed: int) -> None:
    """Exact groups keep outputs, all groups keep the network running; a half of each, and uneven shares."""
    model, args = randomise(recipe.build(), seed), recipe.inputs()
    ir = snapshot_of(model, args)
    groups = ir.groups()
    exact = [group for group in groups if group.exact]
    for share in (0.5, None):
        check_cut(ir, random_labels(exact, seed, share), args, exact=True)
        check_cut(ir, random_labels(groups, seed, share), args, exact=False)


@pytest.mark.fuzz
@given(networks("image"), SEEDS)
def test_random_image_networks(recipe: Recipe, seed: int) -> None:
    check_network(recipe, seed)


@pytest.mark.fuzz
@given(networks("sequence"), SEEDS)
def test_random_sequence_networks(recipe: Recipe, seed: int) -> None:
    check_network(recipe, seed)


class Variant:
    """Chooses the simplest of everything, except in one place; ``options`` counts what there was."""

    def __init__(self, place: int = -1, option: int = 0) -> None:
        self._place, self._option = place, option
        self.options: list[int] = []

    def pick(self, *options: Any) -> Any:
        """The first option, or at the one place another."""
        self.options.append(len(options))
        return options[self._option if len(self.options) - 1 == self._place else 0]

    def width(self, least: int = 2, most: int = 8) -> int:
        """Wide enough for a half to be taken off."""
        return max(least, min(most, 6))

    def inside(self, width: int) -> tuple[list[Spec], int]:
        """Nothing."""
        return [], width


def variants(cls: type[Block], width: int) -> Iterator[dict[str, Any]]:
    """Settings of a block that differ from the simplest in one choice."""
    simplest = Variant()
    yield cls.draw(simplest, width)
    for place, options in enumerate(simplest.options):
        for option in range(1, options):
            yield cls.draw(Variant(place, option), width)


# Where positions have a meaning of their own: neighbouring channels, and the six tokens of the input.
# Queries and keys that share a norm cannot be scaled apart; one attribute counts the values' features too.
LEAST_REACH = {"LocalChannels": 0.0, "TokensMixed": 0.75, "Recurrent": 0.85, "HeadParameters": 0.85}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, blocks in BLOCKS.items() for name in blocks]
)
def test_every_idiom_alone_is_in_reach(kind: str, name: str) -> None:
    """Correct is not enough: pinning everything would be. Almost every parameter can be taken off."""
    for settings in variants(BLOCKS[kind][name], 6):
        recipe = Recipe(kind, 6, [(name, settings)])
        check_network(recipe, 0)
        ir = snapshot_of(recipe.build(), recipe.inputs())
        assert ir.reach() >= LEAST_REACH.get(name, 0.88), f"{settings}: {ir.pinned()}"


def test_the_oracle_fails_for_a_wrong_small_model() -> None:
    """The meta-test: an error of one weight does not go unnoticed."""
    recipe = Recipe("image", 4, [("ConvNorm", {"out": 4})])
    model, args = randomise(recipe.build()), recipe.inputs()
    ir = snapshot_of(model, args)
    labels = random_labels(ir.groups(), 0)
    right = outputs(ir.masked(labels=labels), args, {})
    wrong = ir.prune(labels=labels).model
    with torch.no_grad():
        wrong.get_parameter("classifier.weight")[0, 0] += 1e-6
    assert difference(right, outputs(wrong, args, {})) > 1e-9
