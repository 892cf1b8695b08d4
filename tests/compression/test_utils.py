"""Helpers under NNI's path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compression.pruning.nets import S_CONFIG, SimpleTorchModel, images
from secateur import PruningError
from secateur.compression.pruning import L1NormPruner
from secateur.compression.speedup import ModelSpeedup
from secateur.compression.utils import (
    Scaling,
    auto_set_denpendency_group_ids,
    compute_sparsity_compact2origin,
    compute_sparsity_mask2compact,
    get_nested_attr,
    has_nested_attr,
    set_nested_attr,
)

DATA = torch.arange(24.0).reshape(2, 3, 4)
CASES = [
    (("back", -1), DATA.mean((1, 2))),
    (("front", -1), DATA.mean((0, 1))),
    (("front", 1), DATA),
    (("back", 1), DATA),
]


@pytest.mark.parametrize(("padding", "wanted"), CASES)
@pytest.mark.parametrize("keepdim", [True, False])
def test_scaling(padding: tuple[str, int], wanted: torch.Tensor, keepdim: bool) -> None:
    scaling = Scaling([1], *padding)
    small = scaling.shrink(DATA, keepdim=keepdim)
    assert torch.equal(small.flatten(), wanted.flatten())
    assert (small.dim() == 3) == (keepdim or padding[1] == 1)
    assert scaling.expand(small, (2, 3, 4), keepdim=keepdim).shape == (2, 3, 4)


def test_gradients_flow_through_scaling_unless_the_reducer_stops_them() -> None:
    data = DATA.clone().requires_grad_()
    Scaling([1], "back").shrink(data, lambda rows: rows.sum(-1)).sum().backward()
    assert data.grad is not None and bool((data.grad == 1).all())
    assert not Scaling([1], "back").shrink(data, lambda rows: rows.detach().sum(-1)).requires_grad


def test_what_a_kernel_does_not_tile_is_refused() -> None:
    with pytest.raises(
        PruningError, match=r"blocks of \(1, 2, 4\) do not tile a tensor of shape \(2, 3, 4\)"
    ):
        Scaling([1, 2, 4]).shrink(DATA)
    with pytest.raises(PruningError, match="does not fit 3 dimensions"):
        Scaling([1]).shrink(DATA)
    with pytest.raises(PruningError, match="got values of shape"):
        Scaling([1], "back").expand(torch.ones(3), (2, 3, 4))


def test_groups_are_written_into_the_configuration() -> None:
    net, x = SimpleTorchModel(), images()
    config = [{"op_names": ["conv1", "conv2", "conv3"], "sparse_ratio": 0.75}]
    written = {entry["op_names"][0]: entry for entry in auto_set_denpendency_group_ids(net, config, x)}
    groups = {name: e["target_settings"]["weight"].get("dependency_group_id") for name, e in written.items()}
    assert groups["conv2"] == groups["conv3"] != groups["conv1"]
    masks = L1NormPruner(net, [*written.values()]).compress()[1]
    assert torch.equal(masks["conv2"]["bias"], masks["conv3"]["bias"])


def test_sparsities_by_entry() -> None:
    net, other = SimpleTorchModel(), SimpleTorchModel()
    pruner = L1NormPruner(net, S_CONFIG, dummy_input=images())
    masks = pruner.compress()[1]
    pruner.unwrap_model()
    linear, convs = compute_sparsity_mask2compact(net, masks, S_CONFIG)
    assert linear == {"op_names": ["fc1"], "sparsity": 0.75} and convs["sparsity"] == 0.75
    small = ModelSpeedup(net, images(), masks, on_inexact="keep").speedup_model()
    linear, convs = compute_sparsity_compact2origin(other, small, S_CONFIG)
    assert linear["sparsity"] == 1 - 1 / 16 and convs["sparsity"] > 0.9


def test_nested_attributes() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    set_nested_attr(net, "0.0.out_features", 7)
    assert get_nested_attr(net, "0.0.out_features") == 7
    assert has_nested_attr(net, "0.0.weight") and not has_nested_attr(net, "0.1")
