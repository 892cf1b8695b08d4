"""``dependency_group_id="auto"``: groups from the model's own axes."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from secateur.compression.config import Resolved, parse


def grouped(model: nn.Module, x: torch.Tensor, **entry: Any) -> Resolved:
    config_list = [{"sparse_ratio": 0.5, "dependency_group_id": "auto", **entry}]
    resolved = parse(config_list, model)
    assert resolved.automatic
    return resolved.with_groups(model, (x,))


def sets(resolved: Resolved) -> set[frozenset[str]]:
    return {frozenset(t.module for t in targets) for targets in resolved.dependency_groups.values()}


def test_resnet18_has_the_groups_of_its_residual_streams() -> None:
    model = models.resnet18().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    resolved = grouped(model, torch.randn(1, 3, 64, 64), op_types=["Conv2d"])
    assert sets(resolved) == {
        frozenset({"conv1", "layer1.0.conv2", "layer1.1.conv2"}),
        *(
            frozenset({f"layer{i}.0.conv2", f"layer{i}.0.downsample.0", f"layer{i}.1.conv2"})
            for i in (2, 3, 4)
        ),
    }
    assert not resolved.automatic
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1"])
def test_chains_and_concatenations_have_no_groups(name: str) -> None:
    resolved = grouped(models.get_model(name), torch.randn(1, 3, 96, 96), op_types=["Conv2d"])
    assert not resolved.dependency_groups


class Grouped(nn.Module):
    """A residual sum of a grouped and a plain convolution: NNI's reference network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2, self.conv3 = nn.Conv2d(16, 32, 3, groups=4), nn.Conv2d(16, 32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return (self.conv2(x) + self.conv3(x)).flatten(1).relu()


def test_grouped_convolutions_need_equal_numbers_in_every_group() -> None:
    resolved = grouped(Grouped(), torch.randn(1, 1, 8, 8), op_types=["Conv2d"])
    assert sets(resolved) == {frozenset({"conv2", "conv3"})}
    blocks = {t.module: t.settings.internal_metric_block for t in resolved.targets if t.name == "weight"}
    assert blocks == {"conv1": 4, "conv2": 4, "conv3": 4}


class Chunked(nn.Module):
    """A gate whose halves come out of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 12), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(gate.sigmoid() * value)


def test_input_channels_have_groups_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.a(x)
            return self.b(x), self.c(x)

    resolved = grouped(Two(), torch.randn(2, 4), op_names=["b", "c"], granularity="in_channel")
    assert sets(resolved) == {frozenset({"b", "c"})}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).flatten(2))


def test_heads_of_queries_keys_and_values_go_together() -> None:
    entry = {"op_names": ["q", "k", "v"]}
    heads = grouped(Attention(), torch.randn(1, 5, 16), **entry, granularity="heads")
    assert sets(heads) == {frozenset({"q", "k", "v"})}
    rows = grouped(Attention(), torch.randn(1, 5, 16), **entry)
    assert sets(rows) == {frozenset({"q", "k"})}  # the features of values are not those of queries
    assert {t.settings.internal_metric_block for t in rows.targets if t.name == "weight"} == {4}


def test_nothing_is_recorded_without_auto() -> None:
    resolved = parse([{"op_types": ["Linear"], "sparse_ratio": 0.5}], Chunked())
    assert resolved.with_groups(Chunked(), ()) is resolved
