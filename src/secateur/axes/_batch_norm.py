"""BatchNorm operators of an analysed graph, with the tensors that they use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..capture import Node, Value
from ._analysis import Analysis
from ._operator import Operand

_EPS = 7
"""Its place among the operator's arguments, behind training flag and momentum."""


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNorm that uses running statistics.

    Attributes:
        node: the operator.
        activation: id of what is normalised.
        mean: its running mean.
        variance: its running variance.
        weight: what the result is multiplied by; None if it is not.
        eps: what is added to the variance.
    """

    node: Node
    activation: int
    mean: Value
    variance: Value
    weight: Value | None
    eps: float


def batch_norm_of(analysis: Analysis, node: Node) -> BatchNorm | None:
    """The node as a BatchNorm; None if it is none, or uses the statistics of its batch."""
    operator = analysis.operators[node.index]
    if operator is None or getattr(node.op, "overloadpacket", None) is not torch.ops.aten.batch_norm:
        return None
    given, values = operator.arguments, analysis.graph.values
    activation, mean, variance = (given.get(name) for name in ("input", "running_mean", "running_var"))
    if not (isinstance(activation, Operand) and isinstance(mean, Operand) and isinstance(variance, Operand)):
        return None
    weight = given.get("weight")
    scale = values[weight.id] if isinstance(weight, Operand) else None
    eps = node.kwargs["eps"] if "eps" in node.kwargs else node.args[_EPS]
    return BatchNorm(node, activation.id, values[mean.id], values[variance.id], scale, float(eps))
