"""From a config list and a model to what is done with which tensor; nothing of the model is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..._errors import ConfigError
from ._checks import check_targets
from ._drafts import Drafter
from ._entries import Checked, check_entry, check_list, is_legacy
from ._keys import PRUNING, Mode
from ._problems import Problems
from ._resolved import ModuleConfig, Resolved
from ._selection import Catalogue, select
from ._targets import Target

_Taken = dict[tuple[str, str], Target]


def parse(
    config_list: Any,
    model: nn.Module,
    *,
    mode: Mode = PRUNING,
    granularity: str = "out_channel",
) -> Resolved:
    """Resolve a config list for a model.

    Args:
        config_list: a list of dicts with the keys of NNI 3.0 or 2.x, or of :class:`Entry`.
        model: the model; only looked at.
        mode: what the list is for.
        granularity: what ``"default"`` means for parameters; for inputs and outputs it is ``"per_channel"``.

    Raises:
        ConfigError: with every mistake, a line each: entry, key, value, what is wrong.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> resolved = parse([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], net)
        >>> print(resolved.explain())
        0.weight (entry 0): sparse_ratio=0.5, granularity=out_channel
        0.bias (entry 0): follows 0.weight
        2.weight (entry 0): sparse_ratio=0.5, granularity=out_channel
        2.bias (entry 0): follows 2.weight
        >>> resolved.target("0", "weight").counts()
        (8, 1, 1, 1)
    """
    if not isinstance(model, nn.Module):
        raise ConfigError([f"a config list is resolved for an nn.Module, got {type(model).__name__}"])
    problems, models = Problems(), Catalogue.of(model)
    given = check_list(config_list, problems)
    checked = [check_entry(entry, index, mode, problems) for index, entry in enumerate(given)]
    entries = [entry for entry in checked if entry is not None]
    drafter = Drafter(models, mode, granularity, problems)
    taken, notes = _take(entries, drafter, later_wins=is_legacy(given))
    targets = list(taken.values())
    extras = {entry.index: entry.extras for entry in entries}
    check_targets(targets, problems)
    mode.check(targets, extras, models, problems)
    problems.check()
    return Resolved(mode, _by_module(targets, models, extras), tuple(notes))


def _take(entries: Sequence[Checked], drafter: Drafter, *, later_wins: bool) -> tuple[_Taken, list[str]]:
    """The targets of all entries, each configured once, and notes on what has no effect."""
    models, problems = drafter.models, drafter.problems
    chosen = [(entry, select(entry.selection, entry.index, models, problems)) for entry in entries]
    out = {path for entry, selection in chosen if entry.excludes for path in selection.paths}
    taken: _Taken = {}
    notes = []
    for entry, selection in reversed(chosen) if later_wins else chosen:
        for target in () if entry.excludes else drafter.targets(entry, selection, out):
            first = taken.setdefault((target.module, target.name), target)
            if first is not target:
                what = f"entry {target.entry} has no effect, entry {first.entry} configures it"
                notes.append(f"{target.path}: {what}")
    return taken, notes


def _by_module(
    targets: Sequence[Target], models: Catalogue, extras: Mapping[int, Mapping[str, Any]]
) -> tuple[ModuleConfig, ...]:
    """Targets by module, in the order of the model."""
    by_module: dict[str, list[Target]] = {}
    for target in targets:
        by_module.setdefault(target.module, []).append(target)
    return tuple(
        ModuleConfig(path, models.kind(path), tuple(by_module[path]), extras[by_module[path][0].entry])
        for path in models.modules
        if path in by_module
    )
