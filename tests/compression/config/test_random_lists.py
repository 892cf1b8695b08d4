"""Whatever is given for a config list: it resolves, or its mistakes are listed, and nothing else happens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur.compression.config import PRUNING, Resolved, parse, read_config, write_config
from secateur.compression.config._keys import known_keys


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 4, bias=False))


NET = net()
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.floats()
    | st.sampled_from(["", "0", "weight", "Conv2d", "("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.lists(st.sampled_from(["0", "1", "2", "3", "", "7"]), min_size=1, max_size=2)
RATIO = st.floats(0, 1).map(lambda x: round(x, 2))
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "sparse_ratio": RATIO,
    "sparse_threshold": RATIO,
    "min_sparse_ratio": RATIO,
    "max_sparse_ratio": RATIO,
    "granularity": st.sampled_from(
        [
            "default",
            "element",
            "out_channel",
            "in_channel",
            "per_channel",
            "heads",
            [2],
            [2, 2],
            [[2], "back", -1],
        ]
    ),
    "global_group_id": st.sampled_from([1, "a"]),
    "dependency_group_id": st.sampled_from([1, "auto"]),
    "internal_metric_block": st.integers(1, 3),
    "align": st.fixed_dictionaries(
        {"target_name": st.sampled_from(["weight", "bias", "_output_"]), "dims": st.just([0])},
        optional={"module_name": st.sampled_from(["0", "1", "3"])},
    ),
    "apply_method": st.sampled_from(["mul", "add", "bypass"]),
}
TARGETS = st.sampled_from(
    ["weight", "bias", "running_mean", "_input_", "_output_", "_input_input", "_output_x"]
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        **SETTINGS,
        "op_names": NAMES,
        "op_types": st.lists(
            st.sampled_from(["Conv2d", "Linear", "BatchNorm2d", "ReLU", "LSTM"]), min_size=1, max_size=2
        ),
        "op_names_re": st.sampled_from([["."], ["[01]"], ["x"]]),
        "exclude_op_names": NAMES,
        "target_names": st.lists(TARGETS, min_size=1, max_size=2),
        "target_settings": st.dictionaries(TARGETS, st.fixed_dictionaries({}, optional=SETTINGS), max_size=2),
        "sparsity": RATIO,
        "exclude": st.just(True),
    },
)
# Right in every key for itself; together they may still contradict each other.
RIGHT = st.fixed_dictionaries(
    {
        "op_names": st.lists(st.sampled_from(["0", "1", "3"]), min_size=1, max_size=2),
        "sparse_ratio": st.sampled_from([0.25, 0.5, 0.5]),
    },
    optional={
        "granularity": st.sampled_from(["default", "element", "out_channel"]),
        "min_sparse_ratio": st.sampled_from([0.0, 0.25]),
        "max_sparse_ratio": st.sampled_from([0.5, 1.0]),
        "global_group_id": st.just(1),
        "dependency_group_id": st.sampled_from(["a", "auto"]),
        "target_settings": st.fixed_dictionaries(
            {},
            optional={
                "_input_": st.just({"sparse_ratio": 0.5}),
                "bias": st.just({"sparse_ratio": 0.25}),
                "weight": st.sampled_from([{"sparse_threshold": 0.1}, {"apply_method": "bypass"}]),
                "_output_": st.just({"align": {"target_name": "weight", "dims": [0]}}),
            },
        ),
    },
)
BROKEN = st.dictionaries(st.sampled_from(sorted(known_keys(PRUNING))) | st.text(max_size=4), JUNK, max_size=4)


def resolve(config_list: Any) -> Resolved | None:
    try:
        return parse(config_list, NET)
    except secateur.ConfigError as error:
        assert error.problems
        assert all(line.startswith(("entry ", "the list")) for line in error.problems)
        return None


@given(JUNK | st.lists(LIKELY | BROKEN | JUNK, max_size=3))
def test_junk_is_refused_with_its_mistakes(config_list: Any) -> None:
    resolve(config_list)


@given(st.lists(RIGHT, min_size=1, max_size=3))
def test_what_resolves_is_consistent_and_can_be_written_in_full(config_list: list[dict[str, Any]]) -> None:
    resolved = resolve(config_list)
    if resolved is None:
        return
    paths = [target.path for target in resolved.targets]
    assert len(set(paths)) == len(paths)
    assert sorted(target.path for target in resolved.ordered) == sorted(paths)
    for target in resolved.targets:
        if target.shape is not None and target.settings.active:
            pairs = zip(target.counts(), target.blocks(), target.shape, strict=True)
            assert all(count * part == size for count, part, size in pairs)
    again = parse(resolved.to_config(), NET)
    assert {t.path: t.settings for t in again.targets} == {t.path: t.settings for t in resolved.targets}


@given(st.lists(LIKELY | RIGHT, min_size=1, max_size=2))
def test_a_file_means_what_the_list_means(config_list: list[dict[str, Any]]) -> None:
    resolved = resolve(config_list)
    for name in ("list.yaml", "list.json"):
        path = Path(FOLDER[0], name)
        write_config(config_list, path)
        assert read_config(path) == json.loads(json.dumps(config_list))
        assert resolve(read_config(path)) == resolved


FOLDER: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDER[:] = [str(tmp_path_factory.mktemp("lists"))]


def test_enough_of_the_right_lists_resolve() -> None:
    resolved = []

    @settings(max_examples=60)
    @given(st.lists(RIGHT, min_size=1, max_size=3))
    def count(config_list: list[dict[str, Any]]) -> None:
        resolved.append(resolve(config_list) is not None)

    count()
    assert sum(resolved) > 0.3 * len(resolved)
