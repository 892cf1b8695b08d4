"""Gates: where a label's signal is used, and which parameter elements tell its gradient.

Think of a factor, the *unit gate*, on every use of a label's signal: 1 gives the model as it is, 0
the model without the label. A label's signal is used where an operator sums over its axis: the
input features of a linear layer, the input channels of a convolution. Such an operator is linear in
the weights that meet the label, so the derivative of the loss with respect to the gate is

    dL/dgate = sum of w * dL/dw   over the weight elements that the label's position selects

summed over all layers that use the axis (every branch of a residual stream). No activation is
needed. Two exceptions:

- a weight that is read elsewhere too (a tied embedding): its gradient mixes both readers. Where the
  operator is the whole forward of a module, ``sum of x * dL/dx`` over that module's input is taken;
- a product of two activations (queries and keys of attention): there the gate sits on one of them,
  and is found in the rows and biases of the layers that make it, through operators that pass a
  factor on unchanged.

What fits none of these takes the nearest set of parameters, and is marked as not exact, with the
reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from ..axes import Leaf, Structure
from ..capture import Node, Source
from ._origins import Origins, packet

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class ParameterTerm:
    """``sum of w * dL/dw`` along one dimension of a parameter."""

    parameter: str
    dim: int

    def __str__(self) -> str:
        return f"{self.parameter}[{self.dim}]"


@dataclass(frozen=True, slots=True)
class InputTerm:
    """``sum of x * dL/dx`` along one dimension of the input of a module; ``dim`` counts from 0."""

    module: str
    dim: int
    value: int

    def __str__(self) -> str:
        return f"the input of {self.module}[{self.dim}]"


Term: TypeAlias = ParameterTerm | InputTerm


@dataclass(frozen=True, slots=True)
class Use:
    """An operator that sums over an axis: the activation that carries it, and the weight if there is one.

    ``activation`` and ``weight`` are (tensor id, dimension); ``parameter`` is the weight as a
    parameter of the model.
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
        exact: whether the sum is the derivative with respect to the unit gate.
        reason: why not.
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


def find_uses(structure: Structure) -> dict[Leaf, list[Use]]:
    """For the axis of every group: the operators that sum over it, in the order that they run."""
    analysis = structure.analysis
    origins = Origins(analysis)
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
    uses = find_uses(structure)
    origins = Origins(structure.analysis)
    gates: dict[str, Gate] = {}
    for group in structure.groups:
        draft = _at_uses(origins, uses.get(group.axis, []), group.axis)
        if not draft.terms:
            draft = _at_origins(origins, uses.get(group.axis, []), group.axis)
        if not draft.terms:
            terms: Iterable[Term] = (ParameterTerm(name, dim) for name, dim in group.parameters)
            draft = _Draft(dict.fromkeys(terms), {"no operator is known to use up its positions": None})
        gates[group.name] = Gate(tuple(draft.terms), "; ".join(draft.reasons))
    return gates


def _at_uses(origins: Origins, uses: list[Use], axis: Leaf) -> _Draft:
    """The gate at everything that reads the axis with a weight."""
    draft = _Draft()
    weighted = [use for use in uses if use.parameter is not None]
    read = {use.node.index for use in weighted}
    for use in weighted:
        assert use.parameter is not None
        others = [n for n in origins.readers(use.parameter.parameter, axis) if n.index not in read]
        term = origins.module_input(use.node, use.activation) if others else None
        if term is not None:
            draft.terms[InputTerm(*term)] = None
            continue
        draft.terms[use.parameter] = None
        for node in others:
            draft.reasons[f"{use.parameter.parameter} is read by {node} as well"] = None
    for use in uses:
        if use.parameter is None and weighted:
            draft.reasons[f"{use.node} reads it without a weight"] = None
    return draft


def _at_origins(origins: Origins, uses: list[Use], axis: Leaf) -> _Draft:
    """The gate on one of two activations that are multiplied, where their layers make it."""
    draft = _Draft()
    for use in uses:
        if use.activation is None:
            continue
        found = origins.makers(use.activation[0], axis)
        for name, dim in found.parameters:
            draft.terms[ParameterTerm(name, dim)] = None
        for node in found.opaque:
            draft.reasons[f"{node} does not pass a factor on unchanged"] = None
    return draft


def weights_of_norms(structure: Structure) -> Mapping[str, str]:
    """Names of the weights of norm layers, with the kind of the norm."""
    analysis = structure.analysis
    kinds = {aten.batch_norm: "batch", aten.layer_norm: "layer", aten.group_norm: "group"}
    kinds |= {aten.instance_norm: "instance", aten.rms_norm: "rms"}
    found: dict[str, str] = {}
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        weight = operator.arguments.get("weight") if operator else None
        if packet(node) in kinds and weight is not None:
            value = analysis.graph.values[weight.id]
            if value.source is Source.PARAMETER:
                found[value.name] = kinds[packet(node)]
    return found
