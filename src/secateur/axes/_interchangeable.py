"""Axes whose positions can change places within each position of another axis.

The channels of a grouped convolution are ``(groups, channels of a group)``, and a label of the inner axis
is one channel of every group: those at the same place. Which place a channel has within its group is
arbitrary. As long as every tensor that carries the inner axis carries the groups as well, and no operator
does more with them than add up or treat each position alike, each group's channels can be put into
an order of their own without changing what the model computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch

from ..capture import ModuleCall, Node, Value
from ._algebra import UNIT, Concat, Dim, Leaf, Product, leaves_of
from ._analysis import STATE, Analysis

aten = torch.ops.aten


def _packets(*names: str) -> set[object]:
    found = {getattr(aten, name) for name in names}
    return found | {getattr(aten, f"{name}_") for name in names if hasattr(aten, f"{name}_")}


ALIKE = _packets(
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
    "batch_norm", "group_norm", "instance_norm", "prelu",
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hardswish", "hardtanh", "tanh",
    "sigmoid", "hardsigmoid", "softplus", "clamp", "clamp_min", "abs", "sqrt", "pow", "exp", "dropout",
    "add", "sub", "mul", "div", "maximum", "minimum", "mean", "sum", "amax",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d",
    "upsample_nearest2d", "upsample_bilinear2d", "constant_pad_nd", "pad", "reflection_pad2d",
    "replication_pad2d",
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "unsqueeze", "squeeze", "contiguous",
    "clone", "detach", "to", "alias", "expand",
)  # fmt: skip
"""Operators that do the same with every position of an axis, or add up over it."""


def interchangeable(analysis: Analysis, axes: Iterable[Leaf]) -> dict[Leaf, Leaf]:
    """For each of ``axes`` with positions to interchange: the axis within whose positions they may be.

    >>> import secateur
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 3, groups=4), nn.Flatten())
    >>> ir = secateur.PruningIR(net)
    >>> analysis = ir.create_snapshot("main", (torch.ones(1, 3, 3, 3),)).analysis
    >>> interchangeable(analysis, [group.axis for group in ir.groups()])
    {3: 4}
    """
    carriers: dict[Leaf, list[Value]] = defaultdict(list)
    for value in analysis.graph.values:
        for axis in dict.fromkeys(a for dim in analysis.dims_of(value.id) for a in leaves_of(dim)):
            carriers[axis].append(value)
    handled: dict[int, list[Node]] = defaultdict(list)
    for node in analysis.graph.nodes:
        for id_ in dict.fromkeys((*node.inputs, *node.outputs)):
            handled[id_].append(node)
    found = {}
    for axis in dict.fromkeys(axes):
        nodes = (node for value in carriers[axis] for node in handled[value.id])
        if not all(map(_alike, nodes)):
            continue
        dims = [analysis.dims_of(value.id) for value in carriers[axis]]
        outer, *more = {before for row in dims for dim in row for before in _before(axis, dim)} or (None,)
        if outer is None or more:
            continue
        rows = zip(dims, carriers[axis], strict=True)
        if all(_in_place(row, axis, outer, value.source in STATE) for row, value in rows):
            found[axis] = outer
    return found


def _alike(node: Node) -> bool:
    return not isinstance(node.op, ModuleCall) and getattr(node.op, "overloadpacket", None) in ALIKE


def _before(axis: Leaf, dim: Dim) -> Iterator[Leaf]:
    """The axes that stand right before ``axis`` in the products that a dimension is made of."""
    if isinstance(dim, Concat):
        for part in dim.parts:
            yield from _before(axis, part)
    elif isinstance(dim, Product):
        pairs = zip(dim.factors, dim.factors[1:], strict=False)
        yield from (first for first, second in pairs if second is axis and isinstance(first, Leaf))


def _in_place(dims: Sequence[Dim], axis: Leaf, outer: Leaf, is_state: bool) -> bool:
    """Whether a tensor tells the positions of ``axis`` apart by those of ``outer``, and only once."""
    alone = [position for position, dim in enumerate(dims) if dim is axis]
    if not alone:
        return all(side_by_side(dim, outer, axis) for dim in dims)
    others = [dim for dim in dims if dim is not axis]
    if len(alone) > 1 or any(axis in leaves_of(dim) for dim in others):
        return False
    if is_state:  # the weight of a grouped layer, whose rows are those of one group after the other
        rows = dims[1 - alone[0]] if alone[0] < 2 <= len(dims) else UNIT
        first = rows.factors[0] if isinstance(rows, Product) and rows.factors else rows
        others = [dim for dim in others if dim is not rows]
        return first is outer and not any(outer in leaves_of(dim) for dim in others)
    return [a for dim in others for a in leaves_of(dim)].count(outer) == 1


def side_by_side(dim: Dim, outer: Leaf, inner: Leaf) -> bool:
    """Whether every ``inner`` in a dimension comes right after ``outer``."""
    if isinstance(dim, Leaf):
        return dim is not inner
    if isinstance(dim, Concat):
        return all(side_by_side(part, outer, inner) for part in dim.parts)
    before = (None, *dim.factors)[:-1]
    return all(
        first is outer if factor is inner else side_by_side(factor, outer, inner)
        for first, factor in zip(before, dim.factors, strict=True)
    )
