"""Random networks, random labels: what the masked model computes, the small one computes too."""

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st

from networks import BLOCKS, Chooser
from oracle import check_cut, count, outputs, random_labels, randomise, snapshot_of
from strategies import Recipe, networks

SEEDS = st.integers(0, 2**16)


def check_network(recipe: Recipe, seed: int) -> None:
    """Exact groups keep outputs, all groups keep the network running; a half of each, and uneven shares."""
    model, args = randomise(recipe.build(), seed), recipe.inputs()
    ir = snapshot_of(model, args)
    groups = ir.groups()
    note(f"{recipe!r}, seed {seed}: {[group.name for group in groups]}")
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


class First:
    """Chooses the simplest of everything."""

    def pick(self, *options: object) -> object:
        return options[0]

    def width(self, least: int = 2, most: int = 8) -> int:
        return max(least, min(most, 6))

    def inside(self, width: int) -> tuple[list[tuple[str, dict[str, object]]], int]:
        return [], width


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, blocks in BLOCKS.items() for name in blocks]
)
def test_every_block_alone_can_be_pruned_almost_whole(kind: str, name: str) -> None:
    """Correct is not enough: pinning everything would be. Both axes of almost every matrix can be cut."""
    chooser: Chooser = First()
    recipe = Recipe(kind, 6, [(name, BLOCKS[kind][name].draw(chooser, 6))])
    check_network(recipe, 0)
    ir = snapshot_of(recipe.build(), recipe.inputs())
    assert ir.reach() >= 0.9
    small = ir.prune(labels=random_labels(ir.groups(), 0), verify=False).model
    assert count(small) < 0.75 * count(recipe.build())


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
    from oracle import difference

    assert difference(right, outputs(wrong, args, {})) > 1e-9
