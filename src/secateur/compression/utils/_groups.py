"""Dependency groups written into a configuration, under NNI's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ...capture import unwrap
from ...speedups import dummy_inputs
from ..config import parse


def auto_set_denpendency_group_ids(
    model: nn.Module, config_list: Sequence[Mapping[str, Any]], dummy_input: Any
) -> list[dict[str, Any]]:
    """A configuration with the groups of layers that have to be pruned alike, from the model's own axes.

    The same as ``dependency_group_id="auto"`` in every entry. The name is spelt as in NNI.

    Args:
        model: the model.
        config_list: the configuration, which is left as it is.
        dummy_input: inputs to record the model at: a tensor, a tuple, or a dict.

    Returns:
        A configuration with one entry a module.

    Raises:
        ConfigError: for a configuration that does not fit the model.
    """
    model = unwrap(model)
    wanted = [
        entry if "dependency_group_id" in entry else {**entry, "dependency_group_id": "auto"}
        for entry in config_list
    ]
    args, kwargs = dummy_inputs(dummy_input)
    return parse(wanted, model).with_groups(model, args, kwargs).to_config()


auto_set_dependency_group_ids = auto_set_denpendency_group_ids
