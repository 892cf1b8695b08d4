"""What the values of keys have to look like: each check returns what is wrong, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..._errors import nearest

Check = Callable[[Any], str]
"""Returns what is wrong with a value, an empty string if nothing is."""


def names(value: Any) -> str:
    """A list of strings."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"a list of strings is expected, got {_kind(value)}: write [{value!r}]"
    if not value:
        return "the list is empty: leave the key out, or name something"
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        quote = f"; in YAML, quote the name: '{wrong[0]}'" if isinstance(wrong[0], int) else ""
        return f"a list of strings is expected, and {wrong[0]!r} is {_kind(wrong[0])}{quote}"
    return ""


def patterns(value: Any) -> str:
    """A list of regular expressions."""
    wrong = names(value)
    if wrong:
        return wrong
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"{pattern!r} is no regular expression ({error})"
    return ""


def number(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Check:
    """A number in a range."""
    left, right = "(" if open_low else "[", ")" if open_high else "]"
    said = f"a number in {left}{low:g}, {high:g}{right} is expected"

    def check(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{said}, got {_kind(value)}"
        inside = (value > low if open_low else value >= low) and (
            value < high if open_high else value <= high
        )
        return "" if inside and not math.isnan(value) else said

    return check


def finite(value: Any) -> str:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"a number is expected, got {_kind(value)}"
    return "" if math.isfinite(value) else "a finite number is expected"


def group(value: Any) -> str:
    """The tag of a group."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return f"a group is named by an integer or a string, got {_kind(value)}"
    return "" if value != "" else "the name of a group is empty"


def positive_integer(value: Any) -> str:
    """An integer from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        return "an integer from 1 on is expected"
    return ""


def one_of(*options: str) -> Check:
    """One of some strings."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in options:
            return ""
        hint = nearest(value, options) if isinstance(value, str) else ""
        return f"one of {', '.join(map(repr, options))} is expected{hint}"

    return check


def true(value: Any) -> str:
    """The word True."""
    return "" if value is True else "True is expected; leave the key out otherwise"


def ratios(value: Any) -> str:
    """A ratio, or a ratio for each of some modules (2.x)."""
    check = number(0, 1, open_low=True)
    if not isinstance(value, Mapping):
        return check(value)
    for name, ratio in value.items():
        wrong = check(ratio)
        if wrong or not isinstance(name, str):
            return f"{name!r}: {wrong or 'the name of a module is expected'}"
    return ""


def granularity(value: Any) -> str:
    """A name, the sizes of a block, or [sizes, 'front' or 'back', size in the dimensions that are left]."""
    if isinstance(value, str):
        return one_of("default", "element", "in_channel", "out_channel", "per_channel", "heads")(value)
    if not isinstance(value, Sequence) or not value:
        return f"a name or a list of block sizes is expected, got {_kind(value)}"
    if isinstance(value[0], Sequence) and not isinstance(value[0], str):
        return _padded(value)
    return _sizes(value)


def align(value: Any) -> str:
    """The mask that is followed: target_name and dims, and module_name if it is another module."""
    if not isinstance(value, Mapping):
        return f"a dict with 'target_name' and 'dims' is expected, got {_kind(value)}"
    known = ("module_name", "target_name", "dims")
    for key in value:
        if key not in known:
            return f"unknown key {key!r}{nearest(str(key), known)}"
    missing = [key for key in known[1:] if value.get(key) is None]
    if missing:
        return f"{' and '.join(map(repr, missing))} is missing"
    if not isinstance(value["target_name"], str) or not isinstance(value.get("module_name") or "", str):
        return "module_name and target_name are strings"
    dims = value["dims"]
    whole = isinstance(dims, Sequence) and all(type(dim) is int for dim in dims)
    return "" if whole and dims and not isinstance(dims, str) else "dims is a list of integers"


def settings(value: Any) -> str:
    """A dict of dicts."""
    if not isinstance(value, Mapping):
        return f"a dict {{target: settings}} is expected, got {_kind(value)}"
    for name, inner in value.items():
        if not isinstance(name, str) or not isinstance(inner, Mapping):
            return f"{name!r}: a dict of settings is expected, got {_kind(inner)}"
    return ""


def _padded(value: Sequence[Any]) -> str:
    rest = list(value[1:])
    if len(rest) > 2 or (rest and rest[0] not in ("front", "back")):
        return "[sizes, 'front' or 'back', size in the dimensions that are left] is expected"
    if len(rest) == 2 and (type(rest[1]) is not int or (rest[1] != -1 and rest[1] < 1)):
        return "the size in the dimensions that are left is a positive integer, or -1 for all of it"
    return _sizes(value[0])


def _sizes(value: Sequence[Any]) -> str:
    wrong = [size for size in value if type(size) is not int or (size != -1 and size < 1)]
    return (
        f"block sizes are positive integers, or -1 for all of a dimension; got {wrong[0]!r}" if wrong else ""
    )


def _kind(value: Any) -> str:
    return type(value).__name__
