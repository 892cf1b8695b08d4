"""Blocks: what is masked together, for every kind of module and target."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.compression.config import parse


def blocks(module: nn.Module, granularity: Any, name: str = "weight", shape: Any = None) -> tuple[int, ...]:
    entry = {"op_names": [""], "target_names": [name], "sparse_ratio": 0.5, "granularity": granularity}
    return parse([entry], module).target("", name).blocks(shape)


@pytest.mark.parametrize(
    ("module", "granularity", "expected"),
    [
        (nn.Conv2d(6, 8, 3), "out_channel", (1, 6, 3, 3)),
        (nn.Conv2d(6, 8, 3), "in_channel", (8, 1, 3, 3)),
        (nn.Conv2d(6, 8, 3), "element", (1, 1, 1, 1)),
        (nn.Conv2d(6, 8, 3, groups=2), "out_channel", (1, 3, 3, 3)),
        (nn.Conv2d(6, 8, 3, groups=2), "in_channel", (4, 1, 3, 3)),
        (nn.ConvTranspose2d(6, 8, 3), "out_channel", (6, 1, 3, 3)),
        (nn.ConvTranspose2d(6, 8, 3), "in_channel", (1, 8, 3, 3)),
        (nn.ConvTranspose2d(6, 8, 3, groups=2), "out_channel", (3, 1, 3, 3)),
        (nn.ConvTranspose2d(6, 8, 3, groups=2), "in_channel", (1, 4, 3, 3)),
        (nn.Conv1d(6, 8, 3), "out_channel", (1, 6, 3)),
        (nn.Conv3d(2, 4, 3), "out_channel", (1, 2, 3, 3, 3)),
        (nn.Linear(6, 8), "out_channel", (1, 6)),
        (nn.Linear(6, 8), "in_channel", (8, 1)),
        (nn.Embedding(10, 6), "out_channel", (1, 6)),
        (nn.Embedding(10, 6), "in_channel", (10, 1)),
        (nn.BatchNorm2d(6), "out_channel", (1,)),
        (nn.Linear(8, 8), [4, 4], (4, 4)),
        (nn.Conv2d(8, 8, 3), [3, 3], (1, 1, 3, 3)),
        (nn.Conv2d(8, 8, 3), [[4, 4], "back", -1], (4, 4, 3, 3)),
        (nn.Conv2d(8, 8, 3), [[4, 4], "back"], (4, 4, 1, 1)),
        (nn.Conv2d(8, 8, 3), [2, -1, -1, -1], (2, 8, 3, 3)),
    ],
)
def test_blocks_of_parameters(module: nn.Module, granularity: Any, expected: tuple[int, ...]) -> None:
    assert blocks(module, granularity) == expected


@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_is_what_makes_one_output_channel(groups: int) -> None:
    """The block of a transposed convolution zeroed is exactly one channel of the output zeroed."""
    module = nn.ConvTranspose2d(4, 6, 2, groups=groups, bias=False)
    rows, columns, *_ = blocks(module, "out_channel")
    counts = parse([{"op_names": [""], "sparse_ratio": 0.5}], module).target("", "weight").counts()
    assert counts == (groups, 6 // groups, 1, 1)
    with torch.no_grad():
        module.weight[:rows, 1 : 1 + columns] = 0  # the second output channel
        zero = module(torch.ones(1, 4, 3, 3)).flatten(2).abs().sum((0, 2)) == 0
    assert zero.tolist() == [False, True, False, False, False, False]


def test_the_bias_of_a_transposed_convolution_follows_its_output_channels() -> None:
    for groups, block in ((1, (4, 1, 2, 2)), (2, (2, 1, 2, 2))):
        module = nn.ConvTranspose2d(4, 6, 2, groups=groups)
        align = parse([{"op_names": [""], "sparse_ratio": 0.5}], module).target("", "bias").settings.align
        assert align.blocks(module.weight.shape) == block


def test_the_weight_of_a_transformers_conv1d_has_its_outputs_in_dimension_1() -> None:
    from transformers.pytorch_utils import Conv1D

    resolved = parse([{"op_names": [""], "sparse_ratio": 0.5}], Conv1D(12, 4))
    assert resolved.target("", "weight").counts() == (1, 12)
    assert resolved.target("", "bias").settings.align.dims == (1,)


@pytest.mark.parametrize(
    ("module", "shape", "granularity", "expected"),
    [
        (nn.Conv2d(3, 8, 1), (2, 8, 5, 5), "default", (2, 1, 5, 5)),
        (nn.Linear(3, 8), (2, 7, 8), "per_channel", (2, 7, 1)),
        (nn.ReLU(), (2, 8, 5, 5), "per_channel", (2, 1, 5, 5)),
        (nn.ReLU(), (2, 7, 8), "per_channel", (2, 7, 1)),
        (nn.ReLU(), (2, 8), "element", (2, 1)),
        (nn.Linear(3, 8), (2, 7, 8), [4], (2, 1, 4)),
    ],
)
def test_blocks_of_outputs_span_the_batch(
    module: nn.Module, shape: tuple[int, ...], granularity: str, expected: tuple[int, ...]
) -> None:
    assert blocks(module, granularity, "_output_", shape) == expected


def test_the_shape_of_an_output_has_to_be_given_and_to_fit() -> None:
    with pytest.raises(secateur.ConfigError, match="has a shape when it has been seen"):
        blocks(nn.ReLU(), "per_channel", "_output_")
    with pytest.raises(
        secateur.ConfigError, match=r"blocks of \(2, 3\) do not tile a target of shape \(2, 8\)"
    ):
        blocks(nn.ReLU(), [3], "_output_", (2, 8))


class Attention(nn.Module):
    def __init__(self, heads: int = 3) -> None:
        super().__init__()
        self.num_heads = heads
        self.q, self.v = nn.Linear(12, 12), nn.Linear(12, 12)
        self.qkv = nn.Linear(12, 36)


def test_heads_are_blocks_of_the_heads_of_the_module_around() -> None:
    resolved = parse([{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": "heads"}], Attention())
    assert resolved.target("q", "weight").blocks() == (4, 12)
    assert resolved.target("q", "weight").counts() == (3, 1)
    assert resolved.target("qkv", "weight").counts() == (9, 1)


def test_default_is_what_the_caller_says() -> None:
    target = parse([{"op_names": [""], "sparse_ratio": 0.5}], nn.Linear(2, 3), granularity="element")
    assert target.target("", "weight").counts() == (3, 2)
