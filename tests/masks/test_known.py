"""What is known of a tensor: views, stride 0, and what holds along a dimension."""

import torch

from secateur.masks import EXACTLY, NEARLY, UNKNOWN, Known
from secateur.masks._known import along, compress, constant, spread, uniform, unknown


def test_what_is_alike_costs_nothing() -> None:
    known = constant(torch.tensor([1.0, 2.0, 3.0])[:, None], (1000, 3, 1000))
    assert known.shape == (1000, 3, 1000)
    assert known.value.untyped_storage().nbytes() == 24
    value, state = compress(known.value, known.state)
    assert value.shape == (1, 3, 1) and state.shape == (1, 3, 1)
    assert spread(value, known.shape).stride() == known.value.stride()


def test_uniform_loses_what_differs() -> None:
    value = torch.tensor([[1.0, 2.0], [1.0, 3.0]], dtype=torch.float64)
    state = torch.tensor([[EXACTLY, EXACTLY], [NEARLY, EXACTLY]], dtype=torch.uint8)
    known = uniform(Known(value, state), [0])
    assert known.value[0, 0] == 1 and known.state.tolist() == [[NEARLY, UNKNOWN]]
    assert along(Known(value, state), 1).state.tolist() == [NEARLY, UNKNOWN]


def test_parameters_are_masked_when_they_are_computed_with() -> None:
    value, masked = torch.tensor([5.0, 0.0, 7.0]), torch.tensor([True, False, False])
    known = Known(value, torch.full((3,), EXACTLY, dtype=torch.uint8), masked)
    assert known.numbers().value.tolist() == [0, 0, 7]
    assert known.zeros().tolist() == [True, False, False]  # the other zero is chance
    assert known.without_chance().state.tolist() == [EXACTLY, UNKNOWN, EXACTLY]


def test_nothing_and_everything() -> None:
    assert not unknown((2, 3)).anything
    assert constant(1.0, (2, 3)).everything and not unknown((2,)).everything
    assert constant(0.0, (4,)).zeros().all() and not constant(0.0, (4,), NEARLY).zeros().any()


def test_numbers_of_the_meta_device_are_not_numbers() -> None:
    value = torch.empty(3, device="meta")
    masked = torch.tensor([True, False, True])
    known = Known(value, torch.full((3,), EXACTLY, dtype=torch.uint8), masked)
    numbers = known.numbers().value
    assert numbers[0] == numbers[2] == 0 and bool(numbers[1].isnan())
