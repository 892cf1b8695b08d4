"""What stands behind a weighted sum: a BatchNorm that can take an intercept, a stream that it adds to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..axes import Analysis, BatchNorm, batch_norm_of
from ..capture import Node, Source
from ._sums import Sum

_aten = torch.ops.aten
_ADDS = {_aten.add, _aten.add_}
_PASSED = {_aten.dropout, _aten.dropout_, _aten.feature_dropout, _aten.clone, _aten.contiguous}


@dataclass(frozen=True)
class Stream:
    """What a result is added to, and a node that reads it before the result is made."""

    value: int
    seen: int


@dataclass(frozen=True)
class Surroundings:
    """What becomes of the result of a weighted sum: a BatchNorm that alone reads it, a stream."""

    norm: BatchNorm | None = None
    stream: Stream | None = None

    def takes_intercept_of(self, own: Sum) -> str | None:
        """The running mean that takes the intercept of a layer without a bias."""
        return self.norm.mean.name if self.norm is not None and own.bias is None else None


class Readers:
    """Which nodes of a graph read each tensor."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._nodes = analysis.graph.readers()

    def behind(self, node: Node) -> Surroundings:
        """Follow the result of ``node`` as long as one operator alone reads it."""
        norm: BatchNorm | None = None
        (id_,) = node.outputs[:1]
        while len(readers := [n for n in self._nodes[id_] if n.index > node.index]) == 1:
            (reader,) = readers
            packet = getattr(reader.op, "overloadpacket", None)
            if packet is _aten.batch_norm and norm is None:
                norm = batch_norm_of(self._analysis, reader)
                if norm is None:
                    return Surroundings()
            elif packet in _ADDS:
                return Surroundings(norm, self._stream(reader, id_, node))
            elif packet not in _PASSED:
                break
            if id_ == reader.outputs[0]:  # changed in place: who reads it next is not told apart
                break
            id_ = reader.outputs[0]
        return Surroundings(norm)

    def _stream(self, add: Node, id_: int, node: Node) -> Stream | None:
        """The other operand of a sum, if it is there before ``node`` runs."""
        values = self._analysis.graph.values
        others = [other for other in dict.fromkeys(add.inputs) if other != id_]
        operator = self._analysis.operators[add.index]
        if len(others) != 1 or (operator and operator.arguments.get("alpha", 1) != 1):
            return None
        (other,) = others
        same = values[other].shape == values[id_].shape and values[other].source is Source.OPERATOR
        before = [reader.index for reader in self._nodes[other] if reader.index <= node.index]
        return Stream(other, before[-1]) if same and before else None
