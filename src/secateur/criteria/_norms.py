"""Which parameters are the weights of norm layers."""

from __future__ import annotations

import torch

from ..axes import Structure
from ..capture import Source
from ._origins import packet

aten = torch.ops.aten

KINDS = {
    aten.batch_norm: "batch",
    aten.layer_norm: "layer",
    aten.group_norm: "group",
    aten.instance_norm: "instance",
    aten.rms_norm: "rms",
}


def norm_weights(structure: Structure) -> dict[str, str]:
    """The kind of norm that each parameter scales, for parameters that do."""
    analysis = structure.analysis
    found: dict[str, str] = {}
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        kind = KINDS.get(packet(node))
        weight = operator.arguments.get("weight") if operator and kind else None
        if kind and weight is not None:
            value = analysis.graph.values[weight.id]
            if value.source is Source.PARAMETER:
                found[value.name] = kind
    return found
