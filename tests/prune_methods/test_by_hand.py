"""Masks worked out by hand, which torch and ``secateur.masks`` both have to make."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from prune_methods.layers import container_of, linear

T = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
BEFORE = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1]])


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("L1Unstructured", {"amount": 2}, [[0, 0, 1, 0], [1, 1, 0, 1]]),
        ("LnStructured", {"amount": 1, "n": 2, "dim": 0}, [[0, 0, 0, 0], [1, 1, 0, 1]]),
        ("LnStructured", {"amount": 1, "n": 2, "dim": 1}, [[0, 1, 1, 0], [0, 1, 0, 1]]),
        ("Identity", {}, [[1, 1, 1, 0], [1, 1, 0, 1]]),
        (
            "CustomFromMask",
            {"mask": torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1]])},
            [[0, 1, 1, 0], [0, 1, 0, 1]],
        ),
    ],
)
def test_masks_of_a_container_by_hand(
    prune: ModuleType, method: str, arguments: dict[str, Any], expected: list[list[int]]
) -> None:
    container = container_of(prune, getattr(prune, method)(**arguments))
    assert container.compute_mask(T, BEFORE).tolist() == expected


def test_pruning_a_tensor_without_a_module(prune: ModuleType) -> None:
    method = prune.L1Unstructured(amount=2)
    assert method.prune(T, BEFORE).tolist() == [[0, 0, 3, 0], [5, 6, 0, 8]]
    assert method.prune(T, BEFORE, importance_scores=T).tolist() == [[0, 0, 3, 0], [5, 6, 0, 8]]
    scores = torch.tensor([[1, 2, 3, 4], [1.5, 1.6, 1.7, 1.8]])
    assert method.prune(T, BEFORE, importance_scores=scores).tolist() == [[0, 2, 3, 0], [0, 6, 0, 8]]


def test_l1_by_hand(prune: ModuleType) -> None:
    layer = linear([[1.0, 2, 3, 4], [-4, -3, -2, -1]])
    prune.l1_unstructured(layer, "weight", amount=2)
    assert layer.weight.tolist() == [[0, 2, 3, 4], [-4, -3, -2, 0]]
    prune.l1_unstructured(layer, "weight", amount=2)
    assert layer.weight.tolist() == [[0, 0, 3, 4], [-4, -3, 0, 0]]


def test_l1_with_scores_by_hand(prune: ModuleType) -> None:
    layer = linear([[1.0, 2, 3, 4], [-4, -3, -2, -1]])
    scores = torch.tensor([[4.0, 2, 1, 3], [-3, -1, -2, -4]])
    prune.l1_unstructured(layer, "weight", amount=2, importance_scores=scores)
    assert layer.weight.tolist() == [[1, 2, 0, 4], [-4, 0, -2, -1]]
    prune.l1_unstructured(layer, "weight", amount=2, importance_scores=scores)
    assert layer.weight.tolist() == [[1, 0, 0, 4], [-4, 0, 0, -1]]


def test_ties_are_broken_by_count_and_not_by_threshold(prune: ModuleType) -> None:
    t = 2 * torch.randint(-1, 2, (10, 7))
    mask = prune.L1Unstructured(amount=0.2).compute_mask(t, default_mask=torch.ones_like(t))
    assert int((mask == 0).sum()) == 14


def test_random_channels_are_whole(prune: ModuleType) -> None:
    t = torch.rand(5, 4, 2)
    mask = prune.RandomStructured(amount=0.6, dim=2).compute_mask(t, default_mask=torch.ones_like(t))
    assert sorted((mask == 0).sum((0, 1)).tolist()) == [0, 20]


CUBE = torch.tensor([[[[1.0, 2], [1, 2.5]], [[0.5, 1], [0.1, 0.1]], [[-3, -5], [0.1, -1]]]])
CUBE_SCORES = torch.tensor([[[[10.0, 1], [10, 1]], [[30, 3], [30, 3]], [[-20, -2], [-20, -2]]]])


@pytest.mark.parametrize(("scores", "channel", "column"), [(None, 1, 0), (CUBE_SCORES, 0, 1)])
def test_ln_structured_by_hand_along_two_axes(
    prune: ModuleType, scores: torch.Tensor | None, channel: int, column: int
) -> None:
    layer = nn.Conv2d(3, 1, 2)
    layer.weight.data = CUBE.clone()
    expected = torch.ones_like(CUBE)
    prune.ln_structured(layer, "weight", amount=1, n=2, dim=1, importance_scores=scores)
    expected[:, channel] = 0
    assert torch.equal(layer.weight_mask, expected)
    prune.ln_structured(layer, "weight", amount=1, n=1, dim=-1, importance_scores=scores)
    expected[..., column] = 0
    assert torch.equal(layer.weight_mask, expected)


@pytest.mark.parametrize(
    ("scores", "first", "second"),
    [
        (None, [[0, 2, 3, 4], [-4, -3, -2, 0]], [[0, 0, -2]]),
        (
            ([[4.0, 2, 1, 3], [-3, -1, -2, -4]], [[0.0, 10, -0.2]]),
            [[1, 2, 0, 4], [-4, 0, -2, -1]],
            [[0, pytest.approx(0.1), 0]],
        ),
    ],
)
def test_global_by_hand(prune: ModuleType, scores: Any, first: Any, second: Any) -> None:
    a, b = linear([[1.0, 2, 3, 4], [-4, -3, -2, -1]]), linear([[0.0, 0.1, -2]])
    places = ((a, "weight"), (b, "weight"))
    given = scores and {place: torch.tensor(s) for place, s in zip(places, scores, strict=True)}
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=4, importance_scores=given)
    assert a.weight.tolist() == first
    assert b.weight.tolist() == second


def test_global_pruning_refuses_structured_methods_and_wrong_types(prune: ModuleType) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="unstructured"):
        prune.global_unstructured([(layer, "weight")], prune.LnStructured, amount=1, n=2)
    with pytest.raises(TypeError, match="terable"):
        prune.global_unstructured(3, prune.L1Unstructured, amount=1)
    with pytest.raises(TypeError, match="dict"):
        prune.global_unstructured([(layer, "weight")], prune.L1Unstructured, importance_scores=[1], amount=1)
    assert not prune.is_pruned(layer)


def test_a_custom_mask_and_the_one_before(prune: ModuleType) -> None:
    method = prune.CustomFromMask(mask=torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]]))
    before = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    assert method.compute_mask(torch.rand(2, 4), before).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


def test_floats_are_of_what_remains(prune: ModuleType) -> None:
    layer = nn.Linear(100, 1)
    counts = []
    for _ in range(3):
        prune.l1_unstructured(layer, "weight", 0.5)
        counts.append(int((layer.weight_mask == 0).sum()))
    assert counts == [50, 75, 87]
    rows = nn.Linear(2, 10)
    counts = []
    for _ in range(3):
        prune.ln_structured(rows, "weight", 0.3, n=2, dim=0)
        counts.append(int((rows.weight_mask[:, 0] == 0).sum()))
    assert counts == [3, 5, 7]


def test_a_structured_prune_skips_channels_that_are_gone(prune: ModuleType) -> None:
    layer = linear([[10.0] * 3, [0.1, 0.1, 0.1], [1.0] * 3, [2.0] * 3])
    prune.l1_unstructured(layer, "weight", 3)  # the second row goes
    prune.ln_structured(layer, "weight", 1, n=2, dim=0)  # and so does the third
    assert layer.weight_mask[:, 0].tolist() == [1, 0, 0, 1]


def test_a_method_of_ones_own(prune: ModuleType) -> None:
    class Odd(prune.BasePruningMethod):  # type: ignore[name-defined]
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    layer = linear([[1.0, 2, 3, 4]])
    Odd.apply(layer, "weight")
    assert layer.weight.tolist() == [[0, 2, 0, 4]]
    Odd.apply(layer, "weight")  # of the two that are left
    assert layer.weight.tolist() == [[0, 0, 0, 4]]
