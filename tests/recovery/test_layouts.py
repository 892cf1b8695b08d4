"""A layout is right if rows times matrix is what the operator computes."""

import pytest
import torch
from torch.nn import functional as F

from secateur.recovery._layouts import Convolution, Dense, Layout, Stacked


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def shown(layout: Layout, result: torch.Tensor) -> torch.Tensor:
    """All positions of an operator's result."""
    return layout.results(result, torch.arange(layout.places(result)))


def computed(layout: Layout, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Results at all positions, (positions, outputs)."""
    at = torch.arange(layout.positions(x, weight))
    made = layout.rows(x, weight, at) @ layout.matrix(weight)
    return made.transpose(0, 1).flatten(1)


CONVOLUTIONS = [
    (1, {"stride": 2, "padding": 1, "groups": 1}, (3,)),
    (1, {"dilation": 2, "groups": 2}, (3,)),
    (2, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}, (3, 2)),
    (2, {"groups": 4, "padding": 1}, (3, 3)),
    (2, {"padding": "same", "dilation": 2}, (3, 4)),
    (3, {"stride": 2, "padding": 1}, (2, 3, 1)),
]


@pytest.mark.parametrize(("space", "settings", "kernel"), CONVOLUTIONS)
def test_convolutions(space: int, settings: dict, kernel: tuple[int, ...]) -> None:
    groups = settings.get("groups", 1)
    x, weight = draw(2, 4, *(7, 6, 5)[:space]), draw(8, 4 // groups, *kernel)
    wanted = getattr(F, f"conv{space}d")(x, weight, **settings)
    layout = Convolution(**each(settings, space))
    assert torch.allclose(computed(layout, x, weight), wanted.movedim(1, -1).flatten(0, -2))
    assert torch.allclose(computed(layout, x, weight), shown(layout, wanted))
    assert torch.equal(layout.weight(layout.matrix(weight), weight), weight)
    at = torch.tensor([1, 3])
    assert torch.equal(layout.results(wanted, at), wanted.movedim(1, -1).flatten(0, -2)[at])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_transposed_convolutions(space: int, groups: int) -> None:
    settings = {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2, "groups": groups}
    x, weight = draw(2, 4, *(5, 4, 3)[:space]), draw(4, 6 // max(1, groups // 2), *(3, 2, 3)[:space])
    wanted = getattr(F, f"conv_transpose{space}d")(x, weight, **settings)
    layout = Convolution(**each(settings, space), transposed=True)
    assert torch.allclose(computed(layout, x, weight), wanted.movedim(1, -1).flatten(0, -2))
    assert torch.allclose(computed(layout, x, weight), shown(layout, wanted))
    assert torch.equal(layout.weight(layout.matrix(weight), weight), weight)


def each(settings: dict, space: int) -> dict:
    """Numbers for every dimension, with the defaults of a convolution."""
    given = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1} | settings
    return {
        name: value if name == "groups" or isinstance(value, (str, tuple)) else (value,) * space
        for name, value in given.items()
    }


def test_an_input_without_a_batch() -> None:
    x, weight = draw(3, 6, 6), draw(5, 3, 3, 3)
    wanted = F.conv2d(x, weight)
    layout = Convolution((1, 1), (0, 0), (1, 1))
    assert torch.allclose(computed(layout, x, weight), wanted.movedim(0, -1).flatten(0, -2))
    assert torch.allclose(computed(layout, x, weight), shown(layout, wanted))


@pytest.mark.parametrize("transposed", [False, True])
def test_linear(transposed: bool) -> None:
    x, weight = draw(2, 3, 4), draw(4, 5) if transposed else draw(5, 4)
    wanted = x @ (weight if transposed else weight.t())
    layout = Dense(transposed)
    assert torch.allclose(computed(layout, x, weight), wanted.flatten(0, 1))
    assert torch.allclose(computed(layout, x, weight), shown(layout, wanted))
    assert torch.equal(layout.weight(layout.matrix(weight), weight), weight)


def test_stacked_products() -> None:
    x, weight = draw(3, 5, 4), draw(3, 4, 2)
    layout = Stacked()
    at = torch.tensor([0, 4])
    assert torch.allclose(layout.rows(x, weight, at) @ layout.matrix(weight), (x @ weight)[:, at])
    assert torch.allclose(computed(layout, x, weight), shown(layout, x @ weight))
    assert layout.outputs(weight.shape) == 6
