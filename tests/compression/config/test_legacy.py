"""Config lists of NNI 2.x mean what they meant there."""

import pytest
from torch import nn

from secateur.compression.config import parse


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 2)


def ratios(config_list: list[dict[str, object]]) -> dict[str, float]:
    resolved = parse(config_list, Net())
    return {t.module: t.settings.sparse_ratio for t in resolved.targets if t.name == "weight"}


@pytest.mark.parametrize("key", ["sparsity", "sparsity_per_layer"])
def test_sparsity_is_the_ratio_of_each_layer(key: str) -> None:
    assert ratios([{"op_types": ["Linear"], key: 0.8}]) == {"fc1": 0.8, "fc2": 0.8}


def test_total_sparsity_is_a_global_group_of_its_entry() -> None:
    config_list = [
        {"op_types": ["Conv2d"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.9},
        {"op_types": ["Linear"], "total_sparsity": 0.8, "max_sparsity_per_layer": {"fc1": 0.95}},
    ]
    resolved = parse(config_list, Net())
    groups = [[t.module for t in targets] for targets in resolved.global_groups.values()]
    assert groups == [["conv1", "conv2"], ["fc1", "fc2"]]
    limits = {t.module: t.settings.max_sparse_ratio for t in resolved.targets if t.name == "weight"}
    assert limits == {"conv1": 0.9, "conv2": 0.9, "fc1": 0.95, "fc2": 1.0}


def test_an_exclude_entry_takes_modules_out_of_all_others() -> None:
    config_list = [
        {"op_types": ["Conv2d", "Linear"], "sparsity": 0.5},
        {"exclude": True, "op_names": ["fc2"]},
    ]
    assert list(ratios(config_list)) == ["conv1", "conv2", "fc1"]


def test_parts_of_names_and_the_default_types() -> None:
    assert list(ratios([{"op_partial_names": ["c2"], "sparsity": 0.5}])) == ["fc2"]
    assert list(ratios([{"op_types": ["default"], "sparsity": 0.5}])) == ["conv1", "conv2", "fc1", "fc2"]


def test_later_entries_overrule_earlier_ones() -> None:
    config_list = [{"op_types": ["Linear"], "sparsity": 0.5}, {"op_names": ["fc2"], "sparsity": 0.9}]
    assert ratios(config_list) == {"fc1": 0.5, "fc2": 0.9}
    assert "fc2.weight: entry 0 has no effect, entry 1 configures it" in parse(config_list, Net()).notes
