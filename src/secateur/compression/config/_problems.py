"""Mistakes of a config list: all of them are collected, then raised together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._errors import ConfigError

_UNSET = object()


@dataclass
class Problems:
    """Mistakes found so far; the same mistake at many modules is one line.

    Example:
        >>> problems = Problems()
        >>> problems.add(0, "sparse_ratio", 1.6, "a number from 0 to 1 is expected")
        >>> problems.lines()
        ["entry 0, key 'sparse_ratio' (1.6): a number from 0 to 1 is expected"]
    """

    _found: dict[tuple[int, str, str, str], list[str]] = field(default_factory=dict)

    def add(self, entry: int, key: str = "", value: Any = _UNSET, text: str = "", module: str = "") -> None:
        """Note a mistake.

        Args:
            entry: which entry of the list, from 0; -1 for the list as a whole.
            key: which key of it, with dots inside ``target_settings``.
            value: the value of the key, if it matters.
            text: what is wrong, and what would be right.
            module: at which module it shows.
        """
        shown = "" if value is _UNSET else _short(value)
        modules = self._found.setdefault((entry, key, shown, text), [])
        if module:
            modules.append(module)

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        """A line for each mistake: entry, key, value, what is wrong, where."""
        return [_line(*found, modules) for found, modules in sorted(self._found.items(), key=_entry)]

    def check(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: if there is any mistake.
        """
        if self:
            raise ConfigError(self.lines())


def unset(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value: None means the same as no key."""
    return {key: value for key, value in entry.items() if value is not None}


def _entry(item: tuple[tuple[int, str, str, str], list[str]]) -> int:
    return item[0][0]


def _line(entry: int, key: str, value: str, text: str, modules: list[str]) -> str:
    where = f"entry {entry}" if entry >= 0 else "the list"
    where += f", key {key!r}" if key else ""
    where += f" ({value})" if value else ""
    at = ""
    if modules:
        at = f" [{modules[0]}" + (f" and {len(modules) - 1} more" if len(modules) > 1 else "") + "]"
    return f"{where}: {text}{at}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
