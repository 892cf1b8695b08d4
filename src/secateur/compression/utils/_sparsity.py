"""How much masks and speed-ups take, entry by entry of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from ...capture import unwrap
from ..config import parse

Sparsity = list[dict[str, Any]]


def compute_sparsity_mask2compact(
    model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]], config_list: Sequence[Mapping[str, Any]]
) -> Sparsity:
    """For every entry of a configuration, the share of its weights that masks hide.

    Args:
        model: the model that the masks are for, unwrapped.
        masks: as :meth:`Pruner.get_masks` gives them.
        config_list: the configuration.

    Returns:
        One dict an entry: ``op_names`` and ``sparsity``.

    Raises:
        ConfigError: for a configuration that does not fit the model.
    """

    def left(module: str, name: str, shape: tuple[int, ...]) -> float:
        mask = masks.get(module, {}).get(name)
        return float(prod(shape)) if mask is None else float((mask != 0).double().mean()) * prod(shape)

    return _by_entry(model, config_list, left)


def compute_sparsity_compact2origin(
    origin_model: nn.Module, compact_model: nn.Module, config_list: Sequence[Mapping[str, Any]]
) -> Sparsity:
    """For every entry of a configuration, the share of its weights that a speed-up took off.

    Args:
        origin_model: the model before.
        compact_model: the model after, with modules of the same names.
        config_list: the configuration of the first.

    Returns:
        One dict an entry: ``op_names`` and ``sparsity``.

    Raises:
        ConfigError: for a configuration that does not fit the model.
    """

    def left(module: str, name: str, shape: tuple[int, ...]) -> float:
        parameter = compact_model.get_submodule(module)._parameters.get(name)
        return 0.0 if parameter is None else float(parameter.numel())

    return _by_entry(origin_model, config_list, left)


def _by_entry(model: nn.Module, config_list: Sequence[Mapping[str, Any]], left: Any) -> Sparsity:
    totals: dict[int, tuple[dict[str, None], float, float]] = {}
    for target in parse(config_list, unwrap(model)).targets:
        if target.shape is not None and target.settings.active:
            names, whole, rest = totals.get(target.entry, ({}, 0.0, 0.0))
            names[target.module] = None
            rest += left(target.module, target.name, target.shape)
            totals[target.entry] = names, whole + prod(target.shape), rest
    ordered = (totals[entry] for entry in sorted(totals))
    return [{"op_names": [*names], "sparsity": 1 - rest / whole} for names, whole, rest in ordered]
