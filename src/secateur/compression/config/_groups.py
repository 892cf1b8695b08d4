"""``dependency_group_id="auto"``: groups of targets from the axes of the recorded model.

Two targets belong together where the positions of their blocks are the same dimension in the algebra of
:mod:`secateur.axes`: the summands of a residual connection, a depthwise convolution and what it reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from torch import nn

from ..._ir import PruningIR
from ...axes import STATE, Analysis, Concat, Dim, Leaf, Product
from ._resolved import AUTO, Resolved
from ._targets import Target, TargetKind, parameter_path

_Dims = dict[str, list[Dim]]


def find_groups(
    resolved: Resolved, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Resolved:
    """``resolved`` with every ``"auto"`` replaced by a group, or by None where a target has no partner."""
    if not resolved.automatic:
        return resolved
    analysis = PruningIR(model).create_snapshot(args=args, kwargs=kwargs).analysis
    resolve = analysis.algebra.resolve
    dims = {
        value.name: [resolve(dim) for dim in analysis.dims_of(value.id)]
        for value in analysis.graph.state(*STATE)
    }
    waiting = [target for target in resolved.targets if target.settings.dependency_group_id == AUTO]
    keys = [_key(target, dims) for target in waiting]
    count = Counter(key for key in keys if key)
    names: dict[Hashable, str] = {}
    new = {}
    for target, key in zip(waiting, keys, strict=True):
        if count[key] > 1:
            names.setdefault(key, f"auto: {target.path}")
        blocks = math.lcm(target.settings.internal_metric_block, _equal_parts(target, dims, analysis))
        settings = replace(target.settings, dependency_group_id=names.get(key), internal_metric_block=blocks)
        new[target.module, target.name] = replace(target, settings=settings)
    return resolved.replace_targets(new)


def _blocked(target: Target, dims: _Dims) -> list[Dim]:
    """The dimensions of the parameter in which its blocks have positions; for heads, what heads are of."""
    found = dims.get(parameter_path(target.module, target.name))
    if target.kind is not TargetKind.PARAMETER or found is None:
        return []
    blocked = [dim for dim, count in zip(found, target.counts(), strict=True) if count > 1]
    if target.settings.granularity.name == "heads":
        return [dim.factors[0] for dim in blocked if isinstance(dim, Product)]
    return blocked


def _key(target: Target, dims: _Dims) -> Hashable:
    """Equal for targets whose blocks have the same positions; empty where there are none."""
    return tuple(_identity(dim) for dim in _blocked(target, dims))


def _identity(dim: Dim) -> Hashable:
    if isinstance(dim, Leaf):
        return id(dim)
    parts = dim.factors if isinstance(dim, Product) else dim.parts
    return type(dim).__name__, *(_identity(part) for part in parts)


def _equal_parts(target: Target, dims: _Dims, analysis: Analysis) -> int:
    """In how many equal parts equally many positions have to go.

    The groups of a convolution that reads the channels are the outer factor of a product; halves that
    ``chunk`` makes are the parts of a balanced concatenation.
    """
    blocked = _blocked(target, dims)
    if len(blocked) != 1 or target.settings.granularity.name == "heads":
        return 1
    (dim,) = blocked
    if isinstance(dim, Product):
        return math.prod(factor.size for factor in dim.factors[:-1])
    if isinstance(dim, Concat) and len({part.size for part in dim.parts}) == 1:
        resolve = analysis.algebra.resolve
        parts = {_identity(part) for part in dim.parts}
        balances = [{_identity(resolve(part)) for part in some} for some, _ in analysis.algebra.balances]
        return len(dim.parts) if any(parts <= some for some in balances) else 1
    return 1
