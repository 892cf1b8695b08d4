"""Which modules and targets a config list selects, and with which settings."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.compression.config import Align, Entry, Resolved, Settings, TargetKind, parse


class Block(nn.Module):
    """A block with two inputs, one by keyword only, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: torch.Tensor, y: torch.Tensor, *, gate: torch.Tensor | None = None) -> torch.Tensor:
        return self.conv(x) + y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2, bias=False)


def modules(config_list: Any, model: nn.Module | None = None) -> list[str]:
    return [module.name for module in parse(config_list, model or Net()).modules]


def settings(resolved: Resolved, module: str, name: str) -> Any:
    return resolved.target(module, name).settings


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"op_types": ["Conv2d"]}, ["stem", "blocks.0.conv", "blocks.1.conv", "blocks.2.conv"]),
        ({"op_names": ["blocks.2.conv", "stem"]}, ["stem", "blocks.2.conv"]),
        ({"op_names_re": [r"blocks\.[01]"]}, ["blocks.0.conv", "blocks.1.conv"]),
        ({"op_names_re": ["conv"], "op_names": ["stem"]}, None),  # the pattern matches from the start
        ({"op_partial_names": ["1.co"]}, ["blocks.1.conv"]),
        (
            {"op_names_re": ["blocks"], "op_names": ["stem"]},
            ["stem", *(f"blocks.{i}.conv" for i in range(3))],
        ),
        ({"op_names_re": ["."], "op_types": ["Linear", "BatchNorm2d"]}, ["bn", "head"]),
        (
            {"op_types": ["Conv2d", "LSTM"], "exclude_op_names": ["stem"]},
            [f"blocks.{i}.conv" for i in range(3)],
        ),
        ({"op_types": ["default"], "exclude_op_names_re": ["blocks"]}, ["stem", "bn", "norm", "head"]),
        ({"op_names_re": ["."], "exclude_op_types": ["Conv2d", "LayerNorm"]}, ["bn", "head"]),
    ],
)
def test_selection_is_names_and_types_without_what_is_excluded(
    selection: dict[str, Any], expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(secateur.ConfigError):
            parse([{**selection, "sparse_ratio": 0.5}], Net())
    else:
        assert modules([{**selection, "sparse_ratio": 0.5}]) == expected


def test_the_model_itself_can_be_selected_and_shared_modules_count_once() -> None:
    assert modules([{"op_types": ["Linear"], "sparse_ratio": 0.5}], nn.Linear(2, 2)) == [""]
    layer = nn.Linear(2, 2)
    shared = nn.Sequential(layer, nn.ReLU(), layer)
    assert modules([{"op_names": ["2"], "sparse_ratio": 0.5}], shared) == ["0"]


def test_the_order_is_that_of_the_model_whatever_the_order_of_the_list() -> None:
    config_list = [{"op_names": ["head"], "sparse_ratio": 0.5}, {"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    assert modules(config_list)[0] == "stem"
    assert modules(config_list)[-1] == "head"


def test_weight_has_the_ratio_and_bias_follows_it() -> None:
    resolved = parse([{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8}], Net())
    weight, bias = settings(resolved, "stem", "weight"), settings(resolved, "stem", "bias")
    assert (weight.sparse_ratio, weight.align, weight.apply_method) == (0.8, None, "mul")
    assert (bias.sparse_ratio, bias.active) == (None, False)
    assert bias.align == Align("stem", "weight", (0,), (1, 3, 3, 3))
    assert [target.name for target in resolved.modules[-1].targets] == ["weight"]  # head has no bias


def test_a_norm_and_a_layer_norm_have_weight_and_bias_too() -> None:
    resolved = parse([{"op_names": ["bn", "norm"], "sparse_ratio": 0.5}], Net())
    for module in ("bn", "norm"):
        assert settings(resolved, module, "weight").sparse_ratio == 0.5
        assert settings(resolved, module, "bias").align.dims == (0,)


def test_settings_of_a_target_overrule_shortcuts() -> None:
    entry = {
        "op_names": ["stem"], "sparse_ratio": 0.5, "granularity": "in_channel",
        "target_settings": {"bias": {"sparse_ratio": 0.6, "granularity": "element"}},
    }  # fmt: skip
    resolved = parse([entry], Net())
    assert settings(resolved, "stem", "weight").sparse_ratio == 0.5
    assert settings(resolved, "stem", "weight").granularity.name == "in_channel"
    assert settings(resolved, "stem", "bias").sparse_ratio == 0.6
    assert settings(resolved, "stem", "bias").align is None


def test_a_threshold_of_a_target_takes_the_place_of_the_ratio_of_the_entry() -> None:
    entry = {**STEM, "sparse_ratio": 0.5, "target_settings": {"weight": {"sparse_threshold": 0.1}}}
    weight = settings(parse([entry], Net()), "stem", "weight")
    assert (weight.sparse_ratio, weight.sparse_threshold) == (None, 0.1)


STEM = {"op_names": ["stem"]}


def test_named_targets_alone_and_a_bias_that_has_no_weight_to_follow() -> None:
    resolved = parse([{**STEM, "target_names": ["bias"], "sparse_ratio": 0.5}], Net())
    assert [target.name for target in resolved.targets] == ["bias"]
    assert settings(resolved, "stem", "bias").sparse_ratio == 0.5


def test_none_is_the_same_as_no_key() -> None:
    entry = {
        **STEM,
        "sparse_ratio": 0.5,
        "max_sparse_ratio": None,
        "op_types": None,
        "sparse_threshold": None,
    }
    assert settings(parse([entry], Net()), "stem", "weight").max_sparse_ratio == 1.0


def test_targets_are_inputs_outputs_parameters_and_buffers() -> None:
    names = [
        "_input_",
        "_input_1",
        "_input_y",
        "_input_gate",
        "_output_",
        "_output_1",
        "_output_logits",
        "scale",
    ]
    entry = {"op_types": ["Block"], "target_names": names, "sparse_ratio": 0.5}
    resolved = parse([entry], Net())
    found = {target.name: target for target in resolved.modules[0].targets}
    assert list(found) == [
        "_input_0", "_input_1", "_input_gate", "_output_0", "_output_1", "_output_logits", "scale"
    ]  # fmt: skip
    assert (found["_input_0"].position, found["_input_0"].argument) == (0, "x")
    assert (found["_input_1"].key, found["_input_1"].argument) == ("y", "y")  # y is input 1
    assert (found["_input_gate"].position, found["_input_gate"].argument) == (None, "gate")
    assert found["_output_logits"].key == "logits"
    assert found["scale"].kind is TargetKind.BUFFER
    assert found["scale"].shape == (4,)
    assert resolved.target("blocks.0", "_input_") is found["_input_0"]
    with pytest.raises(KeyError, match="weight is no target"):
        resolved.target("blocks.0", "weight")


def test_a_pattern_leaves_out_modules_without_the_targets() -> None:
    assert modules([{"op_names_re": ["."], "sparse_ratio": 0.5}]) == [
        "stem", "bn", *(f"blocks.{i}.conv" for i in range(3)), "norm", "head",
    ]  # fmt: skip


def test_the_first_entry_configures_a_target_and_others_are_noted() -> None:
    config_list = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}, {**STEM, "sparse_ratio": 0.9}]
    resolved = parse(config_list, Net())
    assert settings(resolved, "stem", "weight").sparse_ratio == 0.5
    assert resolved.notes[0] == "stem.weight: entry 1 has no effect, entry 0 configures it"
    assert resolved.notes[0] in resolved.explain()


def test_two_entries_may_configure_different_targets_of_a_module() -> None:
    config_list = [
        {**STEM, "sparse_ratio": 0.5},
        {**STEM, "target_names": ["_output_"], "sparse_ratio": 0.25},
    ]
    resolved = parse(config_list, Net())
    assert not resolved.notes
    assert settings(resolved, "stem", "_output_").sparse_ratio == 0.25


def test_masks_that_follow_each_other_come_after_those_they_follow() -> None:
    config_list = [
        {"op_names": ["bn"], "align": {"module_name": "stem", "target_name": "weight", "dims": [0]}},
        {**STEM, "sparse_ratio": 0.5},
    ]
    resolved = parse(config_list, Net())
    order = [target.path for target in resolved.ordered]
    assert sorted(order) == sorted(target.path for target in resolved.targets)
    assert order.index("stem.weight") < order.index("bn.weight") < order.index("bn.bias")


def test_groups_are_found_by_their_tags() -> None:
    config_list = [
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": 7, "dependency_group_id": "a"},
        {"op_types": ["Linear"], "sparse_ratio": 0.5, "global_group_id": 7},
    ]
    resolved = parse(config_list, Net())
    assert [t.path for t in resolved.global_groups[7]][-1] == "head.weight"
    assert len(resolved.dependency_groups["a"]) == 4
    assert not resolved.automatic


def test_replace_changes_one_target_of_a_copy() -> None:
    resolved = parse([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], Net())
    changed = resolved.replace(resolved.target("stem", "weight"), sparse_ratio=0.1)
    assert settings(changed, "stem", "weight").sparse_ratio == 0.1
    assert settings(resolved, "stem", "weight").sparse_ratio == 0.5
    assert settings(changed, "blocks.0.conv", "weight").sparse_ratio == 0.5


def test_pruned_and_parametrized_modules_are_selected_by_the_names_their_users_know() -> None:
    net = Net()
    nn.utils.prune.l1_unstructured(net.stem, "weight", 0.5)
    nn.utils.parametrizations.orthogonal(net.head)
    resolved = parse([{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}], net)
    assert resolved.target("stem", "weight").shape == (4, 3, 3, 3)
    assert resolved.target("head", "weight").shape == (2, 4)
    assert resolved.modules[-1].kind == "Linear"


def test_typed_entries_say_the_same_as_dicts() -> None:
    typed = Entry(op_types=["Conv2d"], sparse_ratio=0.5, target_settings={"bias": Settings(sparse_ratio=0.1)})
    plain = {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "target_settings": {"bias": {"sparse_ratio": 0.1}}}
    assert parse([typed], Net()) == parse([plain], Net())
    assert Entry.from_dict(plain).to_dict() == plain


def test_the_list_written_in_full_resolves_to_the_same() -> None:
    config_list = [
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.9},
        {"op_names": ["head"], "sparse_threshold": 0.1, "granularity": [2, 2]},
        {"op_names": ["bn"], "align": {"module_name": "stem", "target_name": "weight", "dims": [0]}},
    ]
    resolved = parse(config_list, Net())
    again = parse(resolved.to_config(), Net())
    assert [t.path for t in again.targets] == [t.path for t in resolved.targets]
    assert [t.settings for t in again.targets] == [t.settings for t in resolved.targets]
