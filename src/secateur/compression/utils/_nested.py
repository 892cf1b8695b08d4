"""Attributes by dotted paths."""

from __future__ import annotations

from operator import attrgetter
from typing import Any


def get_nested_attr(obj: Any, path: str) -> Any:
    """The attribute at a dotted path.

    >>> import torch
    >>> get_nested_attr(torch.nn.Sequential(torch.nn.Linear(2, 3)), "0.out_features")
    3
    """
    return attrgetter(path)(obj)


def set_nested_attr(obj: Any, path: str, value: Any) -> None:
    """Set the attribute at a dotted path."""
    owner, _, name = path.rpartition(".")
    setattr(get_nested_attr(obj, owner) if owner else obj, name, value)


def has_nested_attr(obj: Any, path: str) -> bool:
    """Whether there is an attribute at a dotted path."""
    try:
        get_nested_attr(obj, path)
    except AttributeError:
        return False
    return True
