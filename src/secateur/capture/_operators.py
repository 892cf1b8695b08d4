"""What an operator's schema says of it, remembered: it is asked for at every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=4096)
def is_composite(func: Any) -> bool:
    """Whether an operator is defined by others, and can be recorded as them."""
    return func._can_decompose() and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )


@lru_cache(maxsize=4096)
def writes_operands(func: Any) -> bool:
    """Whether an operator changes one of its operands."""
    return func._schema.is_mutable


def written_arguments(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The operands that a call of ``op`` changes in place: tensors, or lists of them."""
    schema = getattr(op, "_schema", None)
    for position, argument in enumerate(() if schema is None else schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[position] if position < len(args) else kwargs.get(argument.name)


@lru_cache(maxsize=4096)
def may_alias(op: Any) -> bool:
    """Whether a result of ``op`` may share memory with its first operand."""
    schema = getattr(op, "_schema", None)
    return schema is None or is_composite(op) or any(r.alias_info is not None for r in schema.returns)


@lru_cache(maxsize=4096)
def gives_views(op: Any) -> bool:
    """Whether the results of ``op`` are declared to be views of its first operand."""
    schema = getattr(op, "_schema", None)
    aliases = [] if schema is None else [result.alias_info for result in schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


@lru_cache(maxsize=4096)
def is_inplace_view(op: Any) -> bool:
    """Whether ``op`` gives its first operand another shape, as ``transpose_`` does."""
    return torch.Tag.inplace_view in getattr(op, "tags", ())
