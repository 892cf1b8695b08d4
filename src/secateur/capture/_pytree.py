"""Tensors inside the arguments and results of a model, with their paths.

Only containers are opened: mappings, sequences, dataclasses (also transformers' ``ModelOutput``).
Other objects, such as a key/value cache, are the model's own business: their tensors are
neither inputs nor outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def named_tensors(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in ``tree`` with its path, such as ``[0].boxes`` or ``['ids']``.

    >>> [path for path, _ in named_tensors({"ids": torch.ones(1), "more": [torch.ones(2)]})]
    ["['ids']", "['more'][0]"]
    """
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from named_tensors(item, f"{path}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            yield from named_tensors(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from named_tensors(getattr(tree, field.name, None), f"{path}.{field.name}")


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor among the arguments or results of an operator, in order.

    >>> len(list(tensors_in((torch.ones(1), 2, {"out": [torch.ones(2)]}))))
    2
    """
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, dict):
        yield from tensors_in(tuple(tree.values()))


def map_tensors(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of ``tree`` with every tensor that :func:`named_tensors` would list changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        items = {key: map_tensors(item, change) for key, item in tree.items()}
        return items if type(tree) is dict else _rebuild(tree, items)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(item, change) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(item, change) for item in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = (f for f in dataclasses.fields(tree) if f.init)
        changes = {f.name: map_tensors(getattr(tree, f.name), change) for f in fields}
        return dataclasses.replace(tree, **changes)
    return tree


def _rebuild(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        return type(original)(**items)  # ModelOutput and other keyword-built mappings
    except TypeError:
        return type(original)(items)  # pyright: ignore[reportCallIssue]
