"""Another purpose is another table of keys: selection, mistakes and files are the same."""

from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

import secateur
from secateur.compression.config import Granularity, Key, Mode, parse


@dataclass(frozen=True)
class Rounding:
    """Settings of a mode that rounds values to some digits."""

    digits: int
    granularity: Granularity
    align: None = None


def digits(value: Any) -> str:
    return "" if isinstance(value, int) and 0 <= value < 8 else "a number of digits from 0 to 7 is expected"


ROUNDING = Mode(
    name="rounding",
    settings_keys={"digits": Key(digits, "how many digits stay")},
    entry_keys={"together": Key(lambda value: "" if isinstance(value, list) else "a list", "modules")},
    settings=Rounding,
    active=("digits",),
    defaults=lambda module: ("weight",) if isinstance(module, nn.Linear) else (),
    follows={},
)


def test_a_mode_brings_its_own_keys_settings_and_usual_targets() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    entry = {
        "op_types": ["Linear"],
        "digits": 3,
        "together": ["0", "1"],
        "target_settings": {"_output_": {"digits": 2}},
    }
    resolved = parse([entry], net, mode=ROUNDING)
    assert [(target.name, target.settings.digits) for target in resolved.targets] == [
        ("weight", 3),
        ("_output_0", 2),
    ]
    assert resolved.modules[0].extras == {"together": ["0", "1"]}
    assert resolved.mode is ROUNDING


def test_its_mistakes_are_reported_like_all_others() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with pytest.raises(secateur.ConfigError) as error:
        parse(
            [{"op_types": ["Linear"], "digit": 3}, {"op_names": ["1"], "digits": 9, "sparse_ratio": 1}],
            net,
            mode=ROUNDING,
        )
    assert error.value.problems == (
        "entry 0, key 'digit' (3): unknown key; did you mean 'digits'?",
        "entry 1, key 'digits' (9): a number of digits from 0 to 7 is expected",
        "entry 1, key 'sparse_ratio' (1): this is a key for pruning, and the list is for rounding",
    )
