"""The recorded and the actual arguments of one call, side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain, zip_longest
from types import NoneType
from typing import Any

from ..capture import Node

Leaf = tuple[tuple[str, int | None], Any, Any]
"""(argument name, position in a list), recorded, actual."""


class PathChanged(Exception):
    """The code dispatched another operator than it did when it was recorded."""


def pairs(
    node: Node,
    names: tuple[str, ...],
    sizes: Collection[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Iterator[Leaf]:
    """What a call was recorded with, and what it is called with now.

    Args:
        node: the recorded call.
        names: of its positional arguments.
        sizes: names of arguments that are wanted even if they are numbers that have not changed.
        args: positional arguments now.
        kwargs: the others.

    Raises:
        PathChanged: if their numbers differ.
    """
    recorded_args, recorded_kwargs = node.args, node.kwargs
    if len(args) != len(recorded_args) or kwargs.keys() != recorded_kwargs.keys() - {"module"}:
        # The dispatcher leaves out arguments that have their default value.
        args, kwargs = _with_defaults(node.op, args, kwargs)
        recorded_args, recorded_kwargs = _with_defaults(node.op, recorded_args, recorded_kwargs)
    if len(args) != len(recorded_args):
        raise PathChanged(f"{node} is called with other arguments than it was when recorded")
    positional = zip_longest(names[: len(args)], recorded_args, args, fillvalue="")
    by_name = ((name, recorded, kwargs[name]) for name, recorded in recorded_kwargs.items() if name in kwargs)
    for name, recorded, actual in chain(positional, by_name):
        if name in sizes or not _equal_numbers(recorded, actual):
            yield from _leaves(name, recorded, actual)


def _with_defaults(
    op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    schema = getattr(op, "_schema", None)
    filled, named = list(args), dict(kwargs)
    for position, argument in enumerate(schema.arguments if schema else ()):
        if argument.kwarg_only:
            named.setdefault(argument.name, argument.default_value)
        elif position >= len(filled):
            filled.append(named.pop(argument.name, argument.default_value))
    return tuple(filled), named


_LISTS, _NUMBERS = {list, tuple}, {NoneType, bool, int, float}


def _equal_numbers(recorded: Any, actual: Any) -> bool:
    """Whether two arguments are the same number, or lists of the same."""
    if type(recorded) in _LISTS:
        alike = type(actual) in _LISTS and len(actual) == len(recorded)
        return alike and all(map(_equal_numbers, recorded, actual))
    return type(recorded) in _NUMBERS and type(actual) in _NUMBERS and recorded == actual


def _leaves(name: str, recorded: Any, actual: Any) -> Iterator[Leaf]:
    if isinstance(recorded, (list, tuple)) and isinstance(actual, (list, tuple)):
        if len(recorded) != len(actual):
            raise PathChanged(f"the argument {name} has {len(actual)} items, {len(recorded)} were recorded")
        for position, (left, right) in enumerate(zip(recorded, actual, strict=True)):
            yield (name, position), left, right
    else:
        yield (name, None), recorded, actual
