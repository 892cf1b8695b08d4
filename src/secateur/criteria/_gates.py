"""Gates: where a label's signal is used, and which parameter elements tell its gradient.

Think of a factor, the *unit gate*, on every use of a label's signal: 1 gives the model as it is, 0
the model without the label. A label's signal is used where an operator sums over its axis: the
input features of a linear layer, the input channels of a convolution. Such an operator is linear in
the weights that meet the label, so the derivative of the loss with respect to the gate is

    dL/dgate = sum of w * dL/dw   over the weight elements that the label's position selects

summed over all layers that use the axis (every branch of a residual stream). No activation is
needed. Two exceptions:

- a weight that is read elsewhere too (a tied embedding): its gradient mixes both readers. Where the
  operator is the whole forward of a layer, ``sum of x * dL/dx`` over that layer's input is taken;
- a product of two activations (queries and keys of attention): there the gate sits on one of them,
  and is found in the rows and biases of the layers that make it, through operators that pass a
  factor on unchanged.

What fits none of these takes the nearest set of parameters, and is marked as not exact, with the
reason. Statistics that norm layers take over the axis are held fast: their groups are inexact anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..axes import Leaf, Structure
from ..capture import Node
from ._origins import Maker, Origins


@dataclass(frozen=True, slots=True)
class ParameterTerm:
    """``sum of w * dL/dw`` along one dimension of a parameter, at some of its positions or all."""

    parameter: str
    dim: int
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        part = "" if self.rows is None else f", {len(self.rows)} positions"
        return f"{self.parameter}[{self.dim}]{part}"


@dataclass(frozen=True, slots=True)
class InputTerm:
    """``sum of x * dL/dx`` along one dimension of the input of a layer.

    ``dim`` counts from the end; ``value`` is the input's tensor in the recorded graph.
    """

    module: str
    dim: int
    value: int

    def __str__(self) -> str:
        return f"the input of {self.module}[{self.dim}]"


Term: TypeAlias = ParameterTerm | InputTerm


@dataclass(frozen=True, slots=True)
class Use:
    """An operator that sums over an axis: (tensor, dimension) of the activation and of the weight there.

    ``parameter`` is the weight as a parameter of the model.
    """

    node: Node
    activation: tuple[int, int] | None
    weight: tuple[int, int] | None
    parameter: ParameterTerm | None


@dataclass
class Gate:
    """How the gate gradient of one group is found.

    Attributes:
        terms: what to add up.
        reason: why the sum is not exactly the derivative with respect to the unit gate, else empty.
    """

    terms: tuple[Term, ...]
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether the terms add up to the derivative with respect to the unit gate."""
        return not self.reason


@dataclass
class _Draft:
    terms: dict[Term, None] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)

    def take(self, makers: Iterable[Maker]) -> None:
        for maker in makers:
            self.terms[ParameterTerm(maker.parameter, maker.dim, maker.rows)] = None


def find_uses(structure: Structure, origins: Origins | None = None) -> dict[Leaf, list[Use]]:
    """For the axis of every group: the operators that sum over it, in the order that they run."""
    analysis = structure.analysis
    origins = origins or Origins(analysis)
    axes = {group.axis for group in structure.groups}
    uses: dict[Leaf, list[Use]] = defaultdict(list)
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        for total in operator.sums if operator else ():
            for axis in axes.intersection(analysis.algebra.leaves(total.dim)):
                uses[axis].append(_use(origins, node, total.operands, axis))
    return uses


def _use(origins: Origins, node: Node, operands: Iterable[int], axis: Leaf) -> Use:
    weight: tuple[int, int] | None = None
    activation: tuple[int, int] | None = None
    parameter: ParameterTerm | None = None
    for id_ in operands:
        dim = origins.dim_of(id_, axis)
        if dim is None:
            continue
        name = origins.parameter(id_)
        if name is None or parameter is not None:
            activation = activation or (id_, dim)
            continue
        own = origins.dim_of(origins.root(id_), axis)
        weight, parameter = (id_, dim), ParameterTerm(name, dim if own is None else own)
    return Use(node, activation, weight, parameter)


def find_gates(structure: Structure) -> dict[str, Gate]:
    """The gate of every group, by its name.

    >>> import torch, secateur
    >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)))
    >>> structure = ir.create_snapshot("main", args=(torch.ones(1, 2),)).structure
    >>> [str(term) for term in find_gates(structure)["0"].terms]
    ['1.weight[1]']
    """
    origins = Origins(structure.analysis)
    uses = find_uses(structure, origins)
    gates: dict[str, Gate] = {}
    for group in structure.groups:
        draft = _Draft()
        _at_weights(origins, uses.get(group.axis, ()), group.axis, draft)
        _at_products(origins, uses.get(group.axis, ()), group.axis, draft)
        draft.take(origins.module_queries(group.axis))
        if not draft.terms:
            draft.take(Maker(name, dim) for name, dim in group.parameters)
            draft.reasons["no operator is known to use up its positions"] = None
        gates[group.name] = Gate(tuple(draft.terms), "; ".join(draft.reasons))
    return gates


def _at_weights(origins: Origins, uses: Iterable[Use], axis: Leaf, draft: _Draft) -> None:
    """Gates at everything that reads the axis with a weight."""
    weighted = [use for use in uses if use.parameter is not None]
    read = {use.node.index for use in weighted}
    for use in weighted:
        term = use.parameter
        assert term is not None
        others = [n for n in origins.readers(term.parameter, axis) if n.index not in read]
        if others and use.activation is not None and origins.is_layer_input(use.node):
            value, dim = use.activation
            draft.terms[InputTerm(use.node.module, dim - origins.rank(value), value)] = None
            continue
        draft.terms[term] = None
        for node in others:
            draft.reasons[f"{term.parameter} is read by {node} as well"] = None


def _at_products(origins: Origins, uses: Iterable[Use], axis: Leaf, draft: _Draft) -> None:
    """Gates on one of two activations that are multiplied, where the layers that make it are."""
    weighted = bool(draft.terms)
    for use in uses:
        if use.parameter is not None or use.activation is None:
            continue
        found = origins.makers(use.activation[0], axis)
        if weighted and any(maker.rows is None for maker in found.parameters):
            draft.reasons[f"{use.node} reads what other layers read too"] = None
            continue
        draft.take(found.parameters)
        for node in found.opaque:
            draft.reasons[f"{node} does not pass a factor on unchanged"] = None
