"""Sample calls for every built-in rule: ordinary code, one file a family of rules.

Each public function of these modules is run under a recorder; every operator that it leads to is
one call to judge a rule on. In-place variants are made from their functional siblings.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from inspect import getmembers, isfunction
from typing import Any

import torch

from ...axes import has_rule
from .._calls import Call, calls_of, copied
from . import (
    attention,
    convolution,
    creation,
    elementwise,
    indexing,
    joining,
    linear,
    matrices,
    normalization,
    pooling,
    recurrent,
    reduction,
    shape,
)

FAMILIES = (
    attention, convolution, creation, elementwise, indexing, joining, linear, matrices, normalization,
    pooling, recurrent, reduction, shape,
)  # fmt: skip


def sample_calls() -> dict[Any, list[Call]]:
    """Calls of every operator that the samples reach, those that differ in a shape or argument."""
    calls: dict[Any, list[Call]] = defaultdict(list)
    seen: set[str] = set()
    for family in FAMILIES:
        for name, code in getmembers(family, isfunction):
            if code.__module__ != family.__name__ or name.startswith("_"):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of beta and deprecated operators
                found = calls_of(code)
                found += [variant for call in found for variant in _in_place(call)]
            for call in found:
                key = f"{call.op} {_summary((call.args, call.kwargs))}"
                if key not in seen:
                    seen.add(key)
                    calls[call.op].append(call)
    return dict(calls)


def _in_place(call: Call) -> Iterator[Call]:
    """The same call of the variant that writes into its first operand, if it can be made."""
    packet = getattr(torch.ops.aten, f"{call.op.overloadpacket.__name__}_", None)
    overload = getattr(packet, call.op._overloadname, None)
    if overload is None or not has_rule(overload):
        return
    args, kwargs = copied(call.args, call.kwargs)
    try:
        overload(*args, **kwargs)
    except RuntimeError:  # the result has another shape or type than the operand
        return
    yield Call(overload, call.args, call.kwargs)


def _summary(tree: Any) -> str:
    if isinstance(tree, torch.Tensor):
        return f"{tuple(tree.shape)} {tree.dtype}"
    if isinstance(tree, (list, tuple)):
        return f"[{', '.join(map(_summary, tree))}]"
    if isinstance(tree, dict):
        return ", ".join(f"{key}={_summary(item)}" for key, item in tree.items())
    return repr(tree)
