"""The plan of a cut: what happens to every tensor and attribute, decided before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import nn

from .._errors import LabelError, nearest
from ..axes import (
    STATE,
    Dim,
    Group,
    Label,
    Leaf,
    Positions,
    Structure,
    balanced_sizes,
    kept,
    kept_size,
)
from ..capture import ModuleCall, Source
from ._constants import Binding, Place
from ._masking import rest, spared_axes
from ._replay import Scale


@dataclass(frozen=True)
class TensorChange:
    """A parameter, buffer or tensor attribute that gets smaller.

    ``positions`` has an entry for each dimension: the positions that stay, None for all of them.
    ``scales`` are factors for a part of the new tensor: (dimension, positions, factor). ``zeros`` are
    positions of the new tensor to set to zero, by dimension.
    """

    names: tuple[str, ...]
    source: Source
    before: tuple[int, ...]
    after: tuple[int, ...]
    positions: tuple[Positions | None, ...]
    scales: tuple[tuple[int, Positions, float], ...] = ()
    zeros: tuple[Positions | None, ...] = ()


@dataclass(frozen=True)
class AttributeChange:
    """A number in an attribute that the model's code reads, or in its config; None where none was set."""

    place: Place
    before: int | None
    after: int


@dataclass(frozen=True)
class Refit:
    """A module whose own code cannot follow, and that becomes an equivalent one that can."""

    module: str
    type: type
    numbers: dict[str, int]
    settings: Mapping[str, Any]


@dataclass(repr=False)
class Plan:
    """What a cut will do. Printing it gives a table.

    Attributes:
        keep: for every axis that is cut, the positions that stay.
        tensors: every tensor that changes, with its shapes before and after.
        attributes: every attribute that changes.
        zeroed: labels that were asked for and stay, as zeros, so that parts that the code wants
            equal in size stay equal.
    """

    keep: dict[Leaf, Positions]
    tensors: list[TensorChange] = field(default_factory=list)
    attributes: list[AttributeChange] = field(default_factory=list)
    refits: list[Refit] = field(default_factory=list)
    zeroed: list[Label] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        changes = f"{len(self.tensors)} tensors, {len(self.attributes)} attributes"
        return f"Plan({changes}, {sum(self.removed.values())} labels of {len(self.removed)} groups)"

    def __str__(self) -> str:
        table = Table("what", "before", "after")
        for change in self.tensors:
            table.add_row(", ".join(change.names), str(change.before), str(change.after))
        for change in self.attributes:
            table.add_row(str(change.place), str(change.before), str(change.after))
        for refit in self.refits:
            before = {name: refit.settings.get(name) for name in refit.numbers}
            table.add_row(f"{refit.module} ({refit.type.__name__})", str(before), str(refit.numbers))
        if self.zeroed:
            table.add_row("labels that stay as zeros", "", str(len(self.zeroed)))
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table)
        return capture.get()


def removed_positions(structure: Structure, labels: Iterable[Label]) -> dict[Leaf, set[int]]:
    """Positions to take off by axis.

    Raises:
        LabelError: for an unknown group, a position out of range, labels that were selected on
            another model, or all labels of a group.
    """
    groups = {group.name: group for group in structure.groups}
    removed: dict[Leaf, set[int]] = {}
    for label in labels:
        if not isinstance(label, Label):
            raise LabelError(f"expected a Label, got {label!r}. Labels come from ir.groups() or a selector.")
        if label.source and label.source != structure.key:
            raise LabelError(
                f"{label} was selected on another PruningIR (or on this model before it was pruned). "
                "Select labels again on the IR that you prune."
            )
        group = groups.get(label.group)
        if group is None:
            hint = nearest(label.group, groups) or ". ir.groups() lists all groups."
            raise LabelError(f"there is no group {label.group!r}{hint}")
        if not 0 <= label.index < group.size:
            raise LabelError(f"{label.group!r} has {group.size} labels; there is no label {label.index}")
        removed.setdefault(group.axis, set()).add(label.index)
    for group in structure.groups:
        if len(removed.get(group.axis, ())) >= group.size:
            raise LabelError(
                f"all {group.size} labels of group {group.name!r} were asked for, and a layer cannot be "
                "empty: leave at least one of them"
            )
    return removed


def keep_sets(
    structure: Structure, removed: Mapping[Leaf, set[int]]
) -> tuple[dict[Leaf, Positions], list[Label]]:
    """Keep sets that respect every balance, and the labels that stay (as zeros) for its sake."""
    stay = {axis: rest(axis, gone) for axis, gone in removed.items()}
    wanted = {axis: len(positions) for axis, positions in stay.items()}
    sizes = balanced_sizes(structure.balances(), wanted, structure.floors())
    names = {group.axis: group for group in structure.groups}
    zeroed: list[Label] = []
    for axis, size in sizes.items():
        if size > wanted.get(axis, size):
            back = sorted(removed[axis])[: size - wanted[axis]]
            stay[axis] = np.union1d(stay[axis], back)
            group = names[axis]
            zeroed += [Label(group.name, index, group.source) for index in back]
    return {axis: positions for axis, positions in stay.items() if len(positions) < axis.size}, zeroed


def build_plan(
    structure: Structure,
    keep: dict[Leaf, Positions],
    zeroed: Sequence[Label] = (),
    bindings: Iterable[Binding] = (),
    scales: Iterable[Scale] = (),
) -> Plan:
    """Decide what becomes of every tensor and attribute when only ``keep`` stays.

    ``zeroed`` labels stay as zeros; ``scales`` are factors that the rest has to take in.
    """
    plan = Plan(keep, zeroed=list(zeroed))
    factors: dict[str, list[tuple[int, Positions, float]]] = {}
    for scale in scales:
        for name, dim, rows in scale.fold.rows:
            factors.setdefault(name, []).append((dim, rows, scale.factor))
    analysis = structure.analysis
    still, spared = _keep_without(structure, zeroed), spared_axes(analysis)
    for value in analysis.graph.state(*STATE):
        dims = analysis.dims_of(value.id)
        positions = tuple(kept(dim, keep) for dim in dims)
        zeros: tuple[Positions | None, ...] = ()
        if still and value.source is Source.PARAMETER:
            live = {axis: stay for axis, stay in still.items() if axis not in spared[value.id]}
            zeros = tuple(map(_zeros, dims, positions, (kept(dim, live) for dim in dims)))
        scaled = tuple(
            (dim, _renumbered(rows, positions[dim]), factor)
            for dim, rows, factor in factors.get(value.name, ())
        )
        if scaled or any(p is not None for p in (*positions, *zeros)):
            after = shape_after(value.shape, positions)
            plan.tensors.append(
                TensorChange(value.names, value.source, value.shape, after, positions, scaled, zeros)
            )
    for binding in bindings:
        size = kept_size(analysis.algebra.resolve(binding.dim), keep)
        if size != binding.recorded:
            plan.attributes.append(AttributeChange(binding.place, binding.recorded, size))
    for refit in _refits(structure, plan):
        if issubclass(refit.type, nn.MultiheadAttention):
            plan.refits.append(refit)
        else:  # a module with a rule of the user's: its own code follows, by the numbers that the rule named
            plan.attributes += _numbers_of(refit)
    plan.removed = {g.name: g.size - len(keep[g.axis]) for g in structure.groups if g.axis in keep}
    return plan


def _keep_without(structure: Structure, labels: Iterable[Label]) -> dict[Leaf, Positions]:
    gone: dict[Leaf, list[int]] = {}
    for label in labels:
        gone.setdefault(structure.group(label.group).axis, []).append(label.index)
    return {axis: rest(axis, indices) for axis, indices in gone.items()}


def _renumbered(rows: Positions, stay: Positions | None) -> Positions:
    """Where ``rows`` are after only ``stay`` is left."""
    return rows if stay is None else np.flatnonzero(np.isin(stay, rows))


def _zeros(dim: Dim, stay: Positions | None, live: Positions | None) -> Positions | None:
    """Which of the positions that stay are not live, counted in the new tensor."""
    if live is None:
        return None
    return np.flatnonzero(~np.isin(np.arange(dim.size) if stay is None else stay, live))


def _refits(structure: Structure, plan: Plan) -> Iterator[Refit]:
    """Modules that were recorded whole and have lost a part of their parameters."""
    analysis = structure.analysis
    changed = {name for change in plan.tensors for name in change.names}
    seen: set[str] = set()
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        call = node.op
        if not isinstance(call, ModuleCall) or operator is None or call.path in seen:
            continue
        seen.add(call.path)
        if any(name.startswith(f"{call.path}." if call.path else "") for name in changed):
            resolve = analysis.algebra.resolve
            sizes = {n.argument: kept_size(resolve(n.dim), plan.keep) for n in operator.numbers}
            yield Refit(call.path, call.type, sizes, call.settings)


def _numbers_of(refit: Refit) -> Iterator[AttributeChange]:
    for name, size in refit.numbers.items():
        before = refit.settings.get(name)
        if isinstance(before, int) and before != size:
            yield AttributeChange(Place(refit.module, (name,)), before, size)


def shape_after(shape: Sequence[int], positions: Sequence[Any]) -> tuple[int, ...]:
    """Shape of a tensor after the positions that are not kept are gone."""
    return tuple(n if p is None else len(p) for n, p in zip(shape, positions, strict=True))


def groups_touched(structure: Structure, keep: Mapping[Leaf, Positions]) -> list[Group]:
    """Groups that a plan cuts."""
    return [group for group in structure.groups if group.axis in keep]
