"""What a cut for integers is to save: time of ONNX Runtime's integer kernels, estimated from widths.

The terms and their nanoseconds were fitted, all of them at least zero, to ONNX Runtime's profile of
EfficientNet-Lite0 on one picture of 128 x 128: the whole network and a cut one, in turn, on one thread of a
processor with integer dot products (AVX-512 VNNI). Per operator they are off by 7 % in the mean. Where it
costs something that a cut can save:

- a pointwise convolution, by its multiply-accumulates, the numbers that it puts out, and the weights;
- a depthwise one mostly by its positions: twice the channels cost little more;
- the first convolution by its positions alone, but for what it puts out;
- the classifier by its weights, which are read once.

A quarter of the time is in the number of operators and positions; no choice of channels saves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from secateur.axes import Analysis, Dim, Structure
from secateur.cost import CostPolynomial, parameter_cost, settled_widths

if TYPE_CHECKING:
    from secateur._snapshot import Snapshot

OPERATOR, REST = 2_500.0, 85_000.0
"""Nanoseconds of any convolution or linear layer, and of everything else together."""

POINTWISE = {"macs": 0.0026, "outputs": 0.10, "weights": 0.028}
DEPTHWISE = {"places": 0.78, "macs": 0.0247, "outputs": 0.086}
OTHER = {"places": 0.68, "outputs": 0.50}
LINEAR = {"weights": 0.045}
"""Nanoseconds per multiply-accumulate, number that is put out, weight, and place: a position of the output
times what a kernel reads of one channel there (depthwise) or of all (other convolutions)."""


@dataclass(frozen=True)
class IntegerTime:
    """The share of time that is left, less a credit for the share of parameters; a cost for selectors.

    Deep layers save time for little score: what a few photographs show of their features can be made of a few
    of them, what others would show cannot. The credit keeps some of them; a tenth kept most agreement, at
    about the same time, on the development pictures.

    Attributes:
        credit: for all parameters, in shares of the whole time.
    """

    credit: float = 0.0

    def bind(self, snapshot: Snapshot) -> _Bound:
        """The cost as a function of widths."""
        return _Bound(snapshot.structure, self.credit)


class _Bound:
    def __init__(self, structure: Structure, credit: float) -> None:
        self.structure, self.credit = structure, credit
        self.parameters = parameter_cost(structure)
        terms = [*_terms(structure.analysis)]
        self.fixed = REST + sum(nanoseconds for nanoseconds, dims in terms if not dims)
        prices = {nanoseconds for nanoseconds, dims in terms if dims}
        self.work = [
            (price, CostPolynomial(structure, (dims for other, dims in terms if dims and other == price)))
            for price in prices
        ]
        self.full = self.fixed + sum(price * work.full for price, work in self.work)

    def __call__(self, widths: Mapping[str, int]) -> float:
        widths = settled_widths(self.structure, widths)
        time = self.fixed + sum(price * work(widths) for price, work in self.work)
        return time / self.full - self.credit * self.parameters(widths) / self.parameters.full

    def curve(self, widths: Mapping[str, int], alternatives: Sequence[Mapping[str, int]]) -> list[float]:
        return [self({**widths, **alternative}) for alternative in alternatives]


def _terms(analysis: Analysis) -> Iterator[tuple[float, Sequence[Dim]]]:
    """Nanoseconds and what they are multiplied by; nothing where no width matters."""
    for node in analysis.graph.nodes:
        operator, name = analysis.operators[node.index], str(node.op)
        if operator is None or not ("conv" in name or "linear" in name):
            continue
        outputs, weight = analysis.dims_of(node.outputs[0]), operator.arguments["weight"]
        yield OPERATOR, ()
        kinds = {"outputs": outputs, "macs": [*outputs, *weight[1:]], "weights": weight}
        for kind, price in _prices(weight).items():
            if kind == "places":
                yield price * prod(dim.size for dim in [*outputs[2:], *weight[1:]]), ()
            else:
                yield price, kinds[kind]


def _prices(weight: Sequence[Dim]) -> Mapping[str, float]:
    """What counts for a layer with this weight."""
    if len(weight) == 2:
        return LINEAR
    if prod(dim.size for dim in weight[2:]) == 1:
        return POINTWISE
    return DEPTHWISE if weight[1].size == 1 else OTHER
