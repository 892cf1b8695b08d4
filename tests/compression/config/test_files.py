"""Config lists in files: what is read means what was written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import secateur
from secateur.compression.config import Entry, Settings, parse, read_config, write_config

CONFIG_LIST: list[dict[str, Any]] = [
    {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "granularity": [[4, 1], "back", -1], "global_group_id": 1},
    {
        "op_names": ["2"],
        "target_settings": {"weight": {"sparse_threshold": 0.001, "granularity": "out_channel"}},
    },
    {"op_names": ["1"], "align": {"module_name": "0", "target_name": "weight", "dims": (0,)}},
    {"exclude": True, "op_names_re": ["3.*"]},
]


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4))


@pytest.mark.parametrize("name", ["list.yaml", "list.yml", "list.json"])
def test_a_list_comes_back_and_means_the_same(name: str, tmp_path: Path) -> None:
    config_list = CONFIG_LIST[:2] + CONFIG_LIST[3:]
    write_config(config_list, tmp_path / name)
    assert read_config(tmp_path / name) == config_list
    assert parse(read_config(tmp_path / name), net()) == parse(config_list, net())


def test_tuples_are_written_as_lists_and_typed_entries_as_dicts(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    write_config([Entry(op_names=("2",), target_settings={"weight": Settings(sparse_ratio=0.5)})], path)
    assert read_config(path) == [{"op_names": ["2"], "target_settings": {"weight": {"sparse_ratio": 0.5}}}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.yaml", None, "there is no file"),
        ("list.toml", "x = 1", "ends with neither .yaml, .yml nor .json"),
        ("broken.json", "[", "is no JSON"),
        ("broken.yaml", "[", "is no YAML"),
        ("dict.yaml", "op_types: [Conv2d]", "holds a dict, not a list of entries"),
        ("tag.yaml", "!!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_file_that_holds_no_list(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(secateur.ConfigError, match=message):
        read_config(path)


def test_what_no_file_can_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(secateur.ConfigError, match="cannot be written to a file"):
        write_config([{"op_types": {1, 2}}], tmp_path / "list.yaml")
    with pytest.raises(secateur.ConfigError, match="cannot be written to a file"):
        write_config([{"sparse_ratio": float("nan")}], tmp_path / "list.json")
    assert not list(tmp_path.iterdir())


def test_without_pyyaml_json_works_and_yaml_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["yaml"] = None
from secateur.compression.config import read_config, write_config
write_config([{"op_types": ["Linear"], "sparse_ratio": 0.5}], "list.json")
assert read_config("list.json")[0]["sparse_ratio"] == 0.5
try:
    write_config([], "list.yaml")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'YAML needs pyyaml: pip install "secateur[config]"'
