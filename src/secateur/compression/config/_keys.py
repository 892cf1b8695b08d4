"""The keys of an entry, in one table a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import _values as values
from ._problems import Problems
from ._selection import Catalogue
from ._settings import PruningSettings
from ._targets import Target, weight_and_bias
from ._values import Check


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        check: what is wrong with a value.
        meaning: what it says, in a line; the documentation is made of these.
    """

    check: Check
    meaning: str


@dataclass(frozen=True)
class Mode:
    """What config lists are for: pruning, quantisation, distillation.

    Attributes:
        name: as in messages.
        settings_keys: keys of a target's settings, allowed in an entry (a shortcut, for all its targets) and
            in ``target_settings``.
        entry_keys: keys of an entry that are neither selection nor settings.
        settings: makes the settings of a target from the checked values, by key.
        active: the keys of which an entry has to give one to some target.
        defaults: names of the targets that a module has where an entry names none.
        follows: targets that follow the mask of another one of the same module, unless told otherwise.
        activations: what granularity ``"default"`` means for inputs and outputs.
        check: notes what is wrong between targets: ``check(targets, extras by entry, modules, problems)``.
    """

    name: str
    settings_keys: Mapping[str, Key]
    entry_keys: Mapping[str, Key]
    settings: Callable[..., Any]
    active: tuple[str, ...]
    defaults: Callable[[nn.Module], tuple[str, ...]]
    follows: Mapping[str, str]
    activations: str = "per_channel"
    check: Callable[[Sequence[Target], Mapping[int, Mapping[str, Any]], Catalogue, Problems], None] = (
        lambda targets, extras, models, problems: None
    )


SELECTION: dict[str, Key] = {
    "op_names": Key(values.names, "names of modules, as in named_modules()"),
    "op_types": Key(values.names, "class names; with names, a module has to satisfy both"),
    "op_names_re": Key(values.patterns, "regular expressions that match from the start of a module's name"),
    "op_partial_names": Key(values.names, "2.x: parts of names"),
    "exclude_op_names": Key(values.names, "names of modules to leave out"),
    "exclude_op_types": Key(values.names, "class names of modules to leave out"),
    "exclude_op_names_re": Key(values.patterns, "regular expressions for modules to leave out"),
    "exclude": Key(values.true, "2.x: what this entry selects is left out of all others"),
}

TARGETS: dict[str, Key] = {
    "target_names": Key(values.names, "parameters, buffers, _input_<i or name>, _output_<i or key>"),
    "target_settings": Key(values.settings, "settings of single targets"),
}

_RATIO = values.number(0, 1)

PRUNING_SETTINGS: dict[str, Key] = {
    "sparse_ratio": Key(_RATIO, "the share of blocks to mask"),
    "sparse_threshold": Key(values.finite, "mask where the metric is below this"),
    "min_sparse_ratio": Key(values.number(0, 1, open_high=True), "at least this share of the target"),
    "max_sparse_ratio": Key(values.number(0, 1, open_low=True), "at most this share of the target"),
    "granularity": Key(values.granularity, "what is masked together"),
    "global_group_id": Key(values.group, "targets that share one ratio, distributed by the metric"),
    "dependency_group_id": Key(values.group, "targets that are masked at the same positions, or 'auto'"),
    "internal_metric_block": Key(values.positive_integer, "equal blocks in each of which the ratio holds"),
    "align": Key(values.align, "follow the mask of another target"),
    "apply_method": Key(values.one_of("mul", "add", "bypass"), "how the mask acts"),
    "rho": Key(values.number(0, float("inf"), open_low=True), "ADMM: weight of the penalty"),
}

LEGACY: dict[str, Key] = {
    "sparsity": Key(_RATIO, "2.x: sparse_ratio"),
    "sparsity_per_layer": Key(_RATIO, "2.x: sparse_ratio"),
    "total_sparsity": Key(_RATIO, "2.x: sparse_ratio of all that the entry selects, as one global group"),
    "max_sparsity_per_layer": Key(values.ratios, "2.x: max_sparse_ratio, or one for each of some modules"),
}

PRUNING = Mode(
    name="pruning",
    settings_keys=PRUNING_SETTINGS,
    entry_keys=LEGACY,
    settings=PruningSettings,
    active=("sparse_ratio", "sparse_threshold", "align"),
    defaults=weight_and_bias,
    follows={"bias": "weight"},
)

OTHER_MODES: dict[str, str] = {
    "quant_dtype": "quantisation",
    "quant_scheme": "quantisation",
    "quant_types": "quantisation",
    "quant_bits": "quantisation",
    "quant_start_step": "quantisation",
    "fuse_names": "quantisation",
    "lambda": "distillation",
    "link": "distillation",
}
"""Keys that are right in a config list for something else."""


def known_keys(mode: Mode) -> dict[str, Key]:
    """All keys that an entry may have."""
    return {**SELECTION, **TARGETS, **mode.settings_keys, **mode.entry_keys}
