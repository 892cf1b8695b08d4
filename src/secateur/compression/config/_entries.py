"""Entries of a config list: keys and values checked, keys of NNI 2.x translated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._errors import nearest
from ._keys import LEGACY, OTHER_MODES, PRUNING, SELECTION, Key, Mode, known_keys
from ._problems import Problems, unset
from ._typed import Entry


@dataclass(frozen=True)
class Checked:
    """An entry whose keys and values are right.

    Attributes:
        index: which one of the list.
        selection: the selection keys.
        target_names: as given; None for the usual ones.
        target_settings: by target, as given.
        shortcuts: settings for all targets of the entry.
        extras: keys of the entry that are no settings (of other modes).
        excludes: 2.x: whether what it selects is left out of the others.
        limits: 2.x: max_sparse_ratio of single modules.
    """

    index: int
    selection: Mapping[str, Any]
    target_names: Sequence[str] | None
    target_settings: Mapping[str, Mapping[str, Any]]
    shortcuts: Mapping[str, Any]
    extras: Mapping[str, Any]
    excludes: bool = False
    limits: Mapping[str, float] | None = None


def check_list(config_list: Any, problems: Problems) -> list[Any]:
    """The entries, if it is a list of them."""
    if isinstance(config_list, (Mapping, Entry)):
        problems.add(-1, text="a list of entries is expected, got one entry: write [entry]")
        return []
    if isinstance(config_list, str) or not isinstance(config_list, Sequence):
        kind = type(config_list).__name__
        problems.add(-1, text=f"a list of entries (dicts) is expected, got {kind}")
        return []
    if not config_list:
        problems.add(-1, text="it is empty: nothing would be selected")
    return list(config_list)


def is_legacy(entries: Sequence[Any]) -> bool:
    """Whether the list is one of NNI 2.x: later entries overrule earlier ones there."""
    legacy = {*LEGACY, "exclude", "op_partial_names"}
    return any(isinstance(entry, Mapping) and legacy & set(entry) for entry in entries)


def check_entry(given: Any, index: int, mode: Mode, problems: Problems) -> Checked | None:
    """An entry in order, or None if it cannot be used; mistakes are noted."""
    if isinstance(given, Entry):
        given = given.to_dict()
    if not isinstance(given, Mapping):
        problems.add(index, text=f"an entry is a dict, got {type(given).__name__}")
        return None
    before = len(problems)
    entry = unset(given)
    _check_keys(entry, known_keys(mode), index, "", mode, problems)
    for target, inner in _inner(entry).items():
        _check_keys(unset(inner), mode.settings_keys, index, f"target_settings.{target}.", mode, problems)
    if len(problems) > before:
        return None
    excludes = entry.pop("exclude", False)
    extras = {key: entry.pop(key) for key in mode.entry_keys if key in entry and key not in LEGACY}
    limits = _translate(entry, index, excludes, problems)
    return Checked(
        index=index,
        selection={key: entry[key] for key in SELECTION if key in entry},
        target_names=entry.get("target_names"),
        target_settings={target: unset(inner) for target, inner in _inner(entry).items()},
        shortcuts={key: entry[key] for key in mode.settings_keys if key in entry},
        extras=extras,
        excludes=excludes,
        limits=limits,
    )


def _inner(entry: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Target settings, as far as they are dicts."""
    value = entry.get("target_settings", {})
    if not isinstance(value, Mapping):
        return {}
    return {str(target): inner for target, inner in value.items() if isinstance(inner, Mapping)}


def _check_keys(
    entry: Mapping[Any, Any],
    known: Mapping[str, Key],
    index: int,
    prefix: str,
    mode: Mode,
    problems: Problems,
) -> None:
    for name, value in entry.items():
        key = known.get(name)
        if key is None:
            problems.add(index, f"{prefix}{name}", value, _unknown(str(name), known, prefix, mode))
            continue
        wrong = key.check(value)
        if wrong:
            problems.add(index, f"{prefix}{name}", value, wrong)


def _unknown(name: str, known: Mapping[str, Key], prefix: str, mode: Mode) -> str:
    if name in PRUNING.settings_keys and mode is not PRUNING:
        return f"this is a key for pruning, and the list is for {mode.name}"
    if name in OTHER_MODES:
        return f"this is a key for {OTHER_MODES[name]}, and the list is for {mode.name}"
    if prefix and (name in SELECTION or name in ("target_names", "target_settings")):
        return "this key belongs to the entry, not to the settings of a target"
    if name in LEGACY:
        return "this key of NNI 2.x belongs to the entry, not to the settings of a target"
    return f"unknown key{nearest(name, known)}"


def _translate(
    entry: dict[str, Any], index: int, excludes: bool, problems: Problems
) -> Mapping[str, float] | None:
    """Turn keys of NNI 2.x into those of 3.0, in place; returns limits of single modules."""
    ratios = [
        key for key in ("sparse_ratio", "sparsity", "sparsity_per_layer", "total_sparsity") if key in entry
    ]
    if len(ratios) > 1:
        problems.add(index, ratios[1], entry[ratios[1]], f"{ratios[0]!r} is given too: one of them")
    if excludes and ratios:
        problems.add(index, "exclude", True, f"{ratios[0]!r} is given too, and what is excluded has none")
    for key in ("sparsity", "sparsity_per_layer"):
        if key in entry:
            entry["sparse_ratio"] = entry.pop(key)
    if "total_sparsity" in entry:
        entry["sparse_ratio"] = entry.pop("total_sparsity")
        entry.setdefault("global_group_id", f"total_sparsity of entry {index}")
    limit = entry.pop("max_sparsity_per_layer", None)
    if limit is not None and "max_sparse_ratio" in entry:
        problems.add(index, "max_sparsity_per_layer", limit, "'max_sparse_ratio' is given too: one of them")
    if isinstance(limit, (int, float)):
        entry["max_sparse_ratio"] = limit
    return limit if isinstance(limit, Mapping) else None
