"""What a cut for integers is to save: time of integer kernels.

A multiply-accumulate of a long product (a pointwise convolution) is cheap in integers. In products of fewer
than 64 terms (depthwise convolutions, the first layer) and in a matrix times one vector it took ONNX Runtime
about six times as long, on the profile of EfficientNet-Lite0 at one picture of 128 x 128.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Protocol

from secateur.axes import Analysis, Dim, Structure
from secateur.cost import CostPolynomial, settled_widths

LONG, SLOWER = 64, 6


class Analysed(Protocol):
    """A snapshot, as far as it counts here."""

    structure: Structure


class IntegerWork:
    """The share of time that is left, estimated; a cost for selectors."""

    def bind(self, snapshot: Analysed) -> _Bound:
        """The share as a function of widths."""
        return _Bound(snapshot.structure)


class _Bound:
    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.work = CostPolynomial(structure, integer_terms(structure.analysis))

    def __call__(self, widths: Mapping[str, int]) -> float:
        return self.work(settled_widths(self.structure, widths)) / self.work.full

    def curve(self, widths: Mapping[str, int], alternatives: Sequence[Mapping[str, int]]) -> list[float]:
        return [self({**widths, **alternative}) for alternative in alternatives]


def integer_terms(analysis: Analysis) -> Iterator[Sequence[Dim]]:
    """Multiply-accumulates of convolutions and linear layers, those of slow kernels several times."""
    for node in analysis.graph.nodes:
        operator, name = analysis.operators[node.index], str(node.op)
        if operator is None or not ("conv" in name or "linear" in name):
            continue
        outputs, products = analysis.dims_of(node.outputs[0]), operator.arguments["weight"][1:]
        one_vector = "linear" in name and outputs[0].size == 1
        slow = one_vector or prod(dim.size for dim in products) < LONG
        yield from [[*outputs, *products]] * (SLOWER if slow else 1)
