"""Malformed config lists: each gives its message, all of one list at once, and the model stays as it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.compression.config import Entry, parse


class Net(nn.Module):
    """Two convolutions, an attention, a head without bias, and a module without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.relu = nn.ReLU()
        self.up = nn.ConvTranspose2d(12, 6, 2)
        self.attn = nn.MultiheadAttention(6, 2)
        self.fc = nn.Linear(6, 4, bias=False)


RATIO = {"sparse_ratio": 0.5}
CONVS = {"op_types": ["Conv2d"]}
CONV = {"op_names": ["conv1"]}


def one(**keys: Any) -> list[dict[str, Any]]:
    """A list of one right entry with some keys changed or added."""
    return [{**CONVS, **RATIO, **keys}]


def target(**settings: Any) -> list[dict[str, Any]]:
    """A list of one entry with settings of the weight."""
    return [{**CONVS, "target_settings": {"weight": settings}}]


# What the list is, and a part of its message.
MALFORMED: dict[str, tuple[Any, str]] = {
    "one entry": ({**CONVS, **RATIO}, "a list of entries is expected, got one entry: write [entry]"),
    "one typed entry": (Entry(op_types=["Conv2d"]), "got one entry: write [entry]"),
    "a string": ("conv1", "a list of entries (dicts) is expected, got str"),
    "a number": (3, "a list of entries (dicts) is expected, got int"),
    "None": (None, "a list of entries (dicts) is expected, got NoneType"),
    "empty": ([], "the list: it is empty"),
    "entry is a string": (["conv1"], "entry 0: an entry is a dict, got str"),
    "entry is a list": ([[CONVS]], "entry 0: an entry is a dict, got list"),
    "no selector": ([RATIO], "entry 0: nothing is selected: give op_names, op_types or op_names_re"),
    "empty entry": ([{}], "entry 0: nothing is selected"),
    "typo of sparse_ratio": (
        one(sparse_ratoi=0.5),
        "entry 0, key 'sparse_ratoi' (0.5): unknown key; did you mean 'sparse_ratio'?",
    ),
    "typo of op_types": ([{"op_type": ["Conv2d"], **RATIO}], "did you mean 'op_types'?"),
    "typo of granularity": (one(granularty="out_channel"), "did you mean 'granularity'?"),
    "unknown key": (one(zzz=1), "entry 0, key 'zzz' (1): unknown key"),
    "key is no string": (
        [*one(**{"op_names_re": ["conv"]}), {5: 1, **CONVS}],
        "entry 1, key '5' (1): unknown key",
    ),
    "quantisation key": (
        one(quant_dtype="int8"),
        "this is a key for quantisation, and the list is for pruning",
    ),
    "distillation key": (one(**{"lambda": 0.5}), "this is a key for distillation"),
    "ratio is a string": (one(sparse_ratio="0.5"), "a number in [0, 1] is expected, got str"),
    "ratio above one": (one(sparse_ratio=1.6), "key 'sparse_ratio' (1.6): a number in [0, 1] is expected"),
    "ratio below zero": (one(sparse_ratio=-0.1), "a number in [0, 1] is expected"),
    "ratio is NaN": (one(sparse_ratio=float("nan")), "a number in [0, 1] is expected"),
    "ratio is a bool": (one(sparse_ratio=True), "a number in [0, 1] is expected, got bool"),
    "threshold is a string": ([{**CONVS, "sparse_threshold": "low"}], "a number is expected, got str"),
    "threshold is infinite": (
        [{**CONVS, "sparse_threshold": float("inf")}],
        "key 'sparse_threshold' (inf): a finite number is expected",
    ),
    "ratio and threshold": (one(sparse_threshold=0.1), "'sparse_ratio' is given too: one of them"),
    "max is zero": (one(max_sparse_ratio=0.0), "a number in (0, 1] is expected"),
    "max above one": (one(max_sparse_ratio=1.1), "a number in (0, 1] is expected"),
    "min is one": (one(min_sparse_ratio=1.0), "a number in [0, 1) is expected"),
    "min above max": (one(min_sparse_ratio=0.6, max_sparse_ratio=0.4), "more than max_sparse_ratio, 0.4"),
    "op_types is a string": ([{"op_types": "Conv2d", **RATIO}], "got str: write ['Conv2d']"),
    "op_names is a string": ([{"op_names": "conv1", **RATIO}], "a list of strings is expected, got str"),
    "op_names has a number": ([{"op_names": [0], **RATIO}], "0 is int; in YAML, quote the name: '0'"),
    "op_names is empty": ([{"op_names": [], **RATIO}], "the list is empty: leave the key out"),
    "unknown name": ([{"op_names": ["conv"], **RATIO}], "there is no module 'conv'; did you mean 'conv2'?"),
    "unknown type": ([{"op_types": ["Conv2D"], **RATIO}], "no module is a 'Conv2D'; did you mean 'Conv2d'?"),
    "type that is absent": ([{"op_types": ["LSTM"], **RATIO}], "nothing is selected: none is a LSTM"),
    "pattern without match": ([{"op_names_re": ["layer"], **RATIO}], "no module's name matches"),
    "broken pattern": ([{"op_names_re": ["conv("], **RATIO}], "'conv(' is no regular expression"),
    "part without match": ([{"op_partial_names": ["lstm"], **RATIO}], "no module's name matches"),
    "name and type": (
        [{"op_names": ["conv1"], "op_types": ["Linear"], **RATIO}],
        "nothing is selected: of the 1 modules named, none is a Linear",
    ),
    "all excluded": (
        one(exclude_op_types=["Conv2d"]),
        "nothing is selected: none is a Conv2d, 2 are excluded",
    ),
    "unknown excluded name": (
        one(exclude_op_names=["conv3"]),
        "key 'exclude_op_names' ('conv3'): there is no module",
    ),
    "unknown excluded type": (
        one(exclude_op_types=["conv2d"]),
        "no module is a 'conv2d'; did you mean 'Conv2d'?",
    ),
    "excluded pattern without match": (one(exclude_op_names_re=["x"]), "key 'exclude_op_names_re' ('x')"),
    "exclude is False": (
        [*one(), {**CONV, "exclude": False}],
        "True is expected; leave the key out otherwise",
    ),
    "exclude with a ratio": ([{**CONV, **RATIO, "exclude": True}], "what is excluded has none"),
    "no target": (
        [{"op_types": ["ReLU"], **RATIO}],
        "ReLU has no weight: name its targets with target_names",
    ),
    "unknown target": (one(target_names=["weigth"]), "Conv2d has no target 'weigth'; did you mean 'weight'?"),
    "absent target": (
        [{"op_names": ["fc"], "target_names": ["bias"], **RATIO}],
        "key 'target_names' ('bias'): the selected modules were made without it",
    ),
    "target_names is a string": (one(target_names="weight"), "a list of strings is expected, got str"),
    "input out of range": (
        one(target_names=["_input_1"]),
        "forward of Conv2d has 1 inputs, counted from _input_0",
    ),
    "unknown argument": (one(target_names=["_input_inputs"]), "no argument 'inputs'; did you mean 'input'?"),
    "unknown target in settings": (
        one(target_settings={"wait": {"sparse_ratio": 0.1}}),
        "key 'target_settings' ('wait'): Conv2d has no target 'wait'",
    ),
    "target_settings is a list": (
        one(target_settings=["weight"]),
        "a dict {target: settings} is expected, got list",
    ),
    "settings are no dict": (
        one(target_settings={"weight": 0.5}),
        "'weight': a dict of settings is expected",
    ),
    "typo in settings": (
        target(sparse_ration=0.5),
        "key 'target_settings.weight.sparse_ration' (0.5): unknown key; did you mean 'sparse_ratio'?",
    ),
    "wrong value in settings": (target(sparse_ratio=2), "key 'target_settings.weight.sparse_ratio' (2)"),
    "selector in settings": (target(op_names=["conv1"], **RATIO), "this key belongs to the entry"),
    "2.x key in settings": (target(sparsity=0.5), "this key of NNI 2.x belongs to the entry"),
    "nothing to do": ([CONVS], "nothing is to be done: give sparse_ratio or sparse_threshold"),
    "granularity is misspelt": (one(granularity="out_channels"), "expected; did you mean 'out_channel'?"),
    "granularity is a number": (one(granularity=4), "a name or a list of block sizes is expected, got int"),
    "granularity is empty": (one(granularity=[]), "a name or a list of block sizes is expected"),
    "block size zero": (one(granularity=[0, 4]), "block sizes are positive integers, or -1"),
    "block size is a float": (one(granularity=[2.0]), "block sizes are positive integers, or -1"),
    "wrong side": (one(granularity=[[4], "left", 1]), "[sizes, 'front' or 'back', size in the dimensions"),
    "wrong fill": (one(granularity=[[4], "back", 0]), "is a positive integer, or -1 for all of it"),
    "blocks do not tile": (
        one(granularity=[4, 4]),
        "blocks of (1, 1, 4, 4) do not tile a target of shape (8, 3, 3, 3)",
    ),
    "too many block sizes": (one(granularity=[1, 1, 1, 1, 1]), "5 block sizes for the shape (8, 3, 3, 3)"),
    "per_channel on a weight": (one(granularity="per_channel"), "is for inputs and outputs; a parameter has"),
    "out_channel on an output": (
        one(target_names=["_output_"], granularity="out_channel"),
        "'out_channel' is for parameters; inputs and outputs have 'per_channel'",
    ),
    "in_channel of a vector": (
        [{"op_names": ["bn1"], **RATIO, "granularity": "in_channel"}],
        "a target of shape (8,) has no input channels",
    ),
    "heads of a convolution": (one(granularity="heads"), "no number of heads was found"),
    "metric block": (one(internal_metric_block=5), "the target has 8 blocks, which is no multiple of it"),
    "metric block zero": (one(internal_metric_block=0), "an integer from 1 on is expected"),
    "group is a list": (one(global_group_id=[1]), "a group is named by an integer or a string, got list"),
    "group is empty": (one(dependency_group_id=""), "the name of a group is empty"),
    "ratios of a global group": (
        [
            {**CONV, **RATIO, "global_group_id": 1},
            {"op_names": ["conv2"], "sparse_ratio": 0.4, "global_group_id": 1},
        ],
        "have one sparse_ratio, and here are conv1.weight 0.5, conv2.weight 0.4",
    ),
    "global group with a threshold": (
        [{**CONVS, "sparse_threshold": 0.1, "global_group_id": "a"}],
        "a global group shares a sparse_ratio, and there is none",
    ),
    "sizes of a dependency group": (
        one(dependency_group_id="a"),
        "equally many blocks, and here are conv1.weight 8, conv2.weight 12",
    ),
    "apply_method": (one(apply_method="multiply"), "one of 'mul', 'add', 'bypass' is expected"),
    "add on a weight": (one(apply_method="add"), "adding is for inputs and outputs"),
    "align is a string": (one(align="weight"), "a dict with 'target_name' and 'dims' is expected, got str"),
    "align without dims": (one(align={"target_name": "weight"}), "'dims' is missing"),
    "align with a typo": (
        one(align={"target": "weight", "target_name": "weight", "dims": [0]}),
        "unknown key 'target'; did you mean 'target_name'?",
    ),
    "align dims": (one(align={"target_name": "weight", "dims": [0.5]}), "dims is a list of integers"),
    "align to nowhere": (
        [{**CONV, "align": {"module_name": "conv9", "target_name": "weight", "dims": [0]}}],
        "there is no module 'conv9'; did you mean",
    ),
    "align to no target": (
        [{**CONV, "align": {"module_name": "fc", "target_name": "bias", "dims": [0]}}],
        "fc was made without 'bias'",
    ),
    "align to what has no mask": (
        [{**CONV, "align": {"module_name": "bn1", "target_name": "weight", "dims": [0]}}],
        "bn1.weight gets no mask from this list that could be followed",
    ),
    "align dimension": (
        [
            {**CONV, **RATIO},
            {"op_names": ["bn1"], "align": {"module_name": "conv1", "target_name": "weight", "dims": [4]}},
        ],
        "the mask that is followed has dimensions 0 to 3",
    ),
    "align sizes": (
        [
            {**CONV, **RATIO},
            {"op_names": ["bn1"], "align": {"module_name": "conv1", "target_name": "weight", "dims": [1]}},
        ],
        "3 positions are followed, and the target has 8",
    ),
    "align in a circle": (
        [
            {**CONV, "align": {"module_name": "bn1", "target_name": "weight", "dims": [0]}},
            {"op_names": ["bn1"], "align": {"module_name": "conv1", "target_name": "weight", "dims": [0]}},
        ],
        "masks follow each other in a circle: conv1.weight -> bn1.weight -> conv1.weight",
    ),
    "rho": (one(rho=0), "a number in (0, inf] is expected"),
    "two ratios of 2.x": (one(sparsity=0.5), "'sparse_ratio' is given too: one of them"),
    "sparsity is a string": ([{**CONVS, "sparsity": "half"}], "a number in [0, 1] is expected, got str"),
    "limit of no module": (
        [{**CONVS, "total_sparsity": 0.5, "max_sparsity_per_layer": {"conv7": 0.5}}],
        "key 'max_sparsity_per_layer' ('conv7'): there is no module 'conv7'",
    ),
    "limit is a string": (
        [{**CONVS, "total_sparsity": 0.5, "max_sparsity_per_layer": {"conv1": "half"}}],
        "'conv1': a number in (0, 1] is expected, got str",
    ),
    "two limits": (
        [{**CONVS, "total_sparsity": 0.5, "max_sparsity_per_layer": 0.9, "max_sparse_ratio": 0.8}],
        "'max_sparse_ratio' is given too: one of them",
    ),
}


def test_there_are_enough_of_them() -> None:
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_list_gives_its_message(name: str, unchanged: Callable[[nn.Module], None]) -> None:
    model = Net()
    check = unchanged(model)
    config_list, message = MALFORMED[name]
    with pytest.raises(secateur.ConfigError) as error:
        parse(config_list, model)
    assert message in str(error.value)
    assert isinstance(error.value, ValueError)
    check()


@pytest.fixture
def unchanged() -> Callable[[nn.Module], Callable[[], None]]:
    """Looks at all of a model now, and at the end whether it is still so."""

    def look(model: nn.Module) -> Callable[[], None]:
        def state() -> list[Any]:
            return [
                (path, type(module), sorted(vars(module)), dict(module._forward_pre_hooks), module.training)
                for path, module in model.named_modules()
            ]

        before, tensors = state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
        names = list(tensors)

        def check() -> None:
            assert state() == before
            assert list(model.state_dict()) == names
            assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())

        return check

    return look


def test_the_right_list_that_malformed_ones_are_made_of_is_right() -> None:
    assert len(parse(one(), Net()).modules) == 2


def test_all_mistakes_are_reported_at_once_in_order() -> None:
    config_list = [
        {"op_types": ["Conv2d"], "sparse_ratoi": 0.5, "granularity": "rows"},
        {"op_names": ["conv1", "nothing"], "sparse_ratio": 3},
        7,
    ]
    with pytest.raises(secateur.ConfigError) as error:
        parse(config_list, Net())
    assert [line.split(":")[0] for line in error.value.problems] == [
        "entry 0, key 'sparse_ratoi' (0.5)",
        "entry 0, key 'granularity' ('rows')",
        "entry 1, key 'sparse_ratio' (3)",
        "entry 2",
    ]
    assert str(error.value).startswith("the config list has 4 mistakes:\nentry 0")


def test_one_mistake_at_many_modules_is_one_line() -> None:
    with pytest.raises(secateur.ConfigError) as error:
        parse(one(apply_method="add"), Net())
    assert len(error.value.problems) == 1
    assert error.value.problems[0].endswith("[conv1.weight and 3 more]")


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(secateur.ConfigError, match=r"resolved for an nn\.Module, got dict"):
        parse(one(), {})  # type: ignore[arg-type]


def test_the_error_survives_being_sent_to_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(secateur.ConfigError(["entry 0: wrong", "entry 1: too"])))
    assert error.problems == ("entry 0: wrong", "entry 1: too")
    assert "2 mistakes" in str(error)
