"""Groups: the axes that may be shortened, with all they reach; and why the rest may not."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from ..capture import Node, Source
from ._algebra import Dim, Leaf, Product
from ._analysis import STATE, Analysis
from ._flow import NONE, ZERO, Axes, Flow, Signal, loses, multiply
from ._keep import kept_size
from ._operator import Operator, Sum
from ._table import Rule


@dataclass(frozen=True, slots=True)
class Label:
    """One position of a group: the unit that is scored, selected and removed."""

    group: str
    index: int
    source: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A dimension of a parameter (or buffer) that a group reaches."""

    parameter: str
    dim: int
    is_parameter: bool = True


@dataclass(eq=False)
class Group:
    """An axis that may be shortened.

    Attributes:
        name: path of the module whose output it is, or ``parameter[dim]`` (with the number of the
            factor, as in ``blocks.0.attn.qkv.weight[0][1]``) where that would be ambiguous.
        size: how many positions, which is how many labels.
        members: the parameter and buffer dimensions that it is a part of.
        exact: whether removing masked labels leaves the outputs equal.
        reasons: why not, where ``exact`` is False.
        role: ``heads`` or ``features`` for axes of attention, ``experts`` for what a router chooses among,
            else empty.
        axis: the axis of the algebra.
    """

    name: str
    size: int
    members: list[Member]
    axis: Leaf
    reasons: list[str] = field(default_factory=list)
    role: str = ""
    source: str = ""

    @property
    def exact(self) -> bool:
        """Whether removing masked labels leaves the model's outputs equal."""
        return not self.reasons

    @property
    def labels(self) -> list[Label]:
        """All labels of the group, in order."""
        return [Label(self.name, index, self.source) for index in range(self.size)]

    @property
    def parameters(self) -> list[tuple[str, int]]:
        """(name, dim) of every parameter dimension that the group reaches."""
        return [(m.parameter, m.dim) for m in self.members if m.is_parameter]

    def __repr__(self) -> str:
        exact = "exact" if self.exact else "inexact"
        return f"Group({self.name!r}, size={self.size}, {len(self.members)} members, {exact})"


@dataclass(frozen=True, slots=True)
class Pin:
    """Why one axis may not be shortened."""

    name: str
    size: int
    reason: str
    operator: str
    module: str
    site: str


@dataclass
class Structure:
    """The analysed model: groups, pins, and what links them.

    ``relations`` are balances that the model's code asks for, as against those of the rules.
    """

    analysis: Analysis
    groups: list[Group]
    pins: list[Pin]
    pinned: dict[Leaf, list[tuple[str, Node | None]]]
    key: str
    relations: tuple[tuple[Dim, ...], ...] = ()

    def balances(self) -> list[list[Dim]]:
        """Dimensions that have to stay equal in size: for rules, and for the model's code."""
        algebra = self.analysis.algebra
        stated = (*(dims for dims, _ in algebra.balances), *self.relations)
        return [[algebra.resolve(dim) for dim in dims] for dims in stated]

    def floors(self) -> list[tuple[Dim, int]]:
        """Dimensions that have to keep at least so many positions."""
        algebra = self.analysis.algebra
        return [(algebra.resolve(dim), least) for dim, least in algebra.floors]

    def group(self, name: str) -> Group:
        """The group of that name; KeyError if there is none."""
        return next(group for group in self.groups if group.name == name)


def build_structure(
    analysis: Analysis,
    more_pins: Sequence[tuple[Dim, str, Any]] = (),
    relations: Sequence[tuple[Dim, ...]] = (),
) -> Structure:
    """Find the groups of an analysed graph.

    ``more_pins`` are pins that the rules do not know of: what the user asked to leave alone, what
    the model's code cannot follow. ``relations`` are balances that the code asks for. Whether the
    groups are exact is another question: :func:`state_exactness`.
    """
    algebra = analysis.algebra
    pinned: dict[Leaf, list[tuple[str, Node | None]]] = defaultdict(list)
    for dim, reason, node in [*algebra.pins, *more_pins]:
        for axis in algebra.leaves(dim):
            pinned[axis].append((reason, node))
    members = _members(analysis)
    axes = [
        axis
        for axis, reached in members.items()
        if axis not in pinned and any(m.is_parameter for m in reached)
    ]
    names = _names(analysis, members, axes)
    operators = [op for op in analysis.operators if op]
    roles = {axis: role for op in operators for dim, role in op.roles for axis in algebra.leaves(dim)}
    roles |= {axis: "experts" for op in operators for dim in op.routes for axis in algebra.leaves(dim)}
    groups = [Group(names[axis], axis.size, members[axis], axis, [], roles.get(axis, "")) for axis in axes]
    key = hashlib.sha256(repr([(g.name, g.size) for g in groups]).encode()).hexdigest()[:16]
    for group in groups:
        group.source = key
    pins = _pins(analysis, members, pinned)
    return Structure(analysis, groups, pins, dict(pinned), key, tuple(relations))


def state_exactness(
    structure: Structure, more: Sequence[tuple[Dim, str]] = (), made_up: Set[tuple[int, int]] = frozenset()
) -> None:
    """Find the reasons why groups are not exact. ``more`` are reasons that the rules do not know of.

    ``made_up`` are averages that parameters can make up for: (index of the node, number there).
    """
    groups = {group.axis: group for group in structure.groups}
    analysis = structure.analysis
    for axis, reasons in find_inexact(analysis, frozenset(groups), made_up).items():
        groups[axis].reasons += reasons
    for dim, reason in more:
        for axis in analysis.algebra.leaves(dim):
            if axis in groups:
                groups[axis].reasons.append(reason)


def _members(analysis: Analysis) -> dict[Leaf, list[Member]]:
    members: dict[Leaf, list[Member]] = defaultdict(list)
    for value in analysis.graph.state(*STATE):
        for position, dim in enumerate(analysis.dims_of(value.id)):
            for axis in dict.fromkeys(analysis.algebra.leaves(dim)):
                members[axis].append(Member(value.name, position, value.source is Source.PARAMETER))
    return members


def _names(analysis: Analysis, members: dict[Leaf, list[Member]], axes: list[Leaf]) -> dict[Leaf, str]:
    """The owner of the first member that is an output dimension, where that says it uniquely."""
    dims = {value.name: analysis.dims_of(value.id) for value in analysis.graph.state(*STATE)}
    names: dict[Leaf, str] = {}
    taken: set[str] = set()
    for axis in axes:
        reached = [m for m in members[axis] if m.is_parameter]
        first = min(reached, key=lambda m: m.dim)  # dimension 0 first, in the order of the model
        dim = dims[first.parameter][first.dim]
        owner = first.parameter.rpartition(".")[0]
        name = owner if dim is axis and first.dim == 0 and owner else ""
        if not name or name in taken:
            parts = (
                dim.factors if isinstance(dim, Product) else list(dict.fromkeys(analysis.algebra.leaves(dim)))
            )
            inside = f"[{parts.index(axis)}]" if dim is not axis and axis in parts else ""
            name = f"{first.parameter}[{first.dim}]{inside}"
        while name in taken:
            name += "'"
        taken.add(name)
        names[axis] = name
    return names


def _pins(
    analysis: Analysis, members: dict[Leaf, list[Member]], pinned: dict[Leaf, list[tuple[str, Node | None]]]
) -> list[Pin]:
    pins = []
    for axis, reached in members.items():
        parameters = [m for m in reached if m.is_parameter]
        if axis not in pinned or not parameters:
            continue
        reason, node = pinned[axis][0]
        first = min(parameters, key=lambda m: m.dim)
        pins.append(
            Pin(
                f"{first.parameter}[{first.dim}]",
                axis.size,
                reason,
                str(node.op) if node else "",
                node.module if node else "",
                str(node.site) if node and node.site else "",
            )
        )
    return pins


def find_inexact(
    analysis: Analysis, axes: Axes, made_up: Set[tuple[int, int]] = frozenset()
) -> dict[Leaf, list[str]]:
    """For every axis whose removal changes outputs: why."""
    signals = _Signals(analysis, axes)
    graph = analysis.graph
    read = {*graph.outputs.values(), *(id_ for node in graph.nodes for id_ in node.inputs)}
    reasons: dict[Leaf, dict[str, None]] = defaultdict(dict)
    for node, op in zip(analysis.graph.nodes, analysis.operators, strict=True):
        if op is None:
            signals.forget(node)
            continue
        where = f"in {node.module}" if node.module else "in the model's forward"
        averages = [average for n, average in enumerate(op.averages) if (node.index, n) not in made_up]
        averaged = [(average.dim, average.reason) for average in averages]
        for dim, reason in [*op.inexact_dims, *averaged, *_used(op, node, read)]:
            for axis in analysis.algebra.leaves(dim):
                reasons[axis][f"{reason} ({where})"] = None
        for total in (*op.sums, *(Sum(average.dim, (average.operand,)) for average in op.averages)):
            if not axes.isdisjoint(analysis.algebra.leaves(total.dim)):
                dirty = multiply(*(signals[id_] for id_ in total.operands)).dirty
                for axis in dirty.intersection(analysis.algebra.leaves(total.dim)):
                    text = f"{node.op} sums over it where masked positions are not zero ({where})"
                    reasons[axis][text] = None
        signals.advance(node, op.arguments, analysis.rule_of(node))
    return {axis: list(texts) for axis, texts in reasons.items() if axis in axes}


def _used(op: Operator, node: Node, read: set[int]) -> Iterator[tuple[Dim, str]]:
    outputs = node.outputs
    for result, dim, reason in op.inexact_if:
        if result < len(outputs) and outputs[result] in read:
            yield dim, reason


class _Signals:
    """The signals of all tensors at one moment of the run."""

    def __init__(self, analysis: Analysis, axes: Axes) -> None:
        self._analysis = analysis
        self._axes = axes
        self._signals: dict[int, Signal] = {}
        self._shared: dict[int, list[int]] = defaultdict(list)
        for value in analysis.graph.values:
            self._shared[value.base].append(value.id)
            if value.source is Source.PARAMETER:
                self._signals[value.id] = Signal(self._carried(value.id))

    def _carried(self, id_: int) -> Axes:
        leaves = self._analysis.algebra.leaves
        return self._axes.intersection([axis for dim in self._analysis.dims[id_] for axis in leaves(dim)])

    def __getitem__(self, id_: int) -> Signal:
        signal = self._signals.get(id_)
        if signal is None:  # nothing was said of it: not zero anywhere
            carried = self._carried(id_)
            signal = self._signals[id_] = Signal(carried, carried)
        return signal

    def forget(self, node: Node) -> None:
        for id_ in node.outputs:
            self._signals.pop(id_, None)

    def advance(self, node: Node, arguments: dict[str, Any], rule: Rule | None) -> None:
        flow = rule.flow if rule else loses
        result = flow(Flow(arguments, self.__getitem__))
        for id_ in node.outputs:
            carried = self._carried(id_)
            made = NONE if result is ZERO else carried - result.carried
            signal = Signal(carried, (result.dirty & carried) | made)
            if id_ in node.inputs:  # written in place: other views of the memory see it
                for view in self._shared[self._analysis.graph.values[id_].base]:
                    if view != id_:
                        old = self[view]
                        self._signals[view] = Signal(old.carried, old.dirty | (signal.dirty & old.carried))
            self._signals[id_] = signal


def reach(structure: Structure) -> float:
    """Share of the parameter elements in use that at least one group can take off.

    Parameters that the recorded run does not read (a head for training only) are not counted.
    """
    read = {id_ for node in structure.analysis.graph.nodes for id_ in node.inputs}
    keep = {group.axis: _NOTHING for group in structure.groups}
    total = reached = 0.0
    for value in structure.analysis.graph.state(Source.PARAMETER):
        if value.id not in read:
            continue
        size = untouched = 1.0
        for dim in structure.analysis.dims_of(value.id):
            size *= dim.size
            untouched *= kept_size(dim, keep)
        total += size
        reached += size - untouched
    return reached / total if total else 0.0


_NOTHING: Any = ()
