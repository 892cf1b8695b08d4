"""The model's code, ready to be replayed at any sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from ..axes import (
    Analysis,
    Concat,
    Dim,
    Group,
    Keep,
    Leaf,
    Number,
    Positions,
    Rescale,
    Structure,
    balanced_sizes,
    kept_size,
)
from ..capture import Detail, ModuleCall, ModuleStack, Node, copy_with, owned_tensors
from ._alike import AlikeCalls
from ._constants import Binding, Place, candidates
from ._fold import Folder, packet
from ._layers import layer_attribute
from ._nearby import Complaint
from ._put import Undo, put_ghost, put_numbers
from ._raised import got_further
from ._replay import Mismatch, Replay, Replayed, Scale
from ._shadow import Shadow


@dataclass
class Following:
    """How the code follows.

    Attributes:
        bindings: attributes that have to change with an axis.
        relations: dimensions that the code takes to be equal in size, such as the width of a
            tensor and heads times features, where it computes ``C // num_heads``.
        blocked: axes that it cannot follow, with the reason.
        neutral: bindings that were tried last and made nothing worse: with a relation they may fit.
    """

    bindings: dict[Place, Binding] = field(default_factory=dict)
    relations: list[tuple[Dim, ...]] = field(default_factory=list)
    blocked: list[tuple[Leaf, str]] = field(default_factory=list)
    neutral: list[dict[Place, Binding]] = field(default_factory=list)


@dataclass
class Followed:
    """A model whose code is followed, with the inputs it was recorded at.

    ``computes_factors`` tells that a replay met a factor that the code computes from a size;
    ``replays`` counts them, and ``tell`` is called with a line of text before each.
    """

    structure: Structure
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    detail: Detail
    computes_factors: bool = False
    replays: int = 0
    tell: Callable[[str], None] | None = None

    def replay(self, keep: Keep, bindings: Iterable[Binding]) -> Replayed:
        """Run the code at the sizes of ``keep`` with ``bindings`` carried out."""
        analysis = self.structure.analysis
        resolve = analysis.algebra.resolve
        self.replays += 1
        if self.tell is not None:
            self.tell(f"following the code of {type(self.model).__name__}, replay {self.replays}")
        replay = Replay(analysis, keep, self.detail)
        undo = Undo()
        self._shadow.resize(replay)
        try:
            sizes = {b.place: kept_size(resolve(b.dim), keep) for b in bindings}
            put_numbers(self._shadow.model, sizes, undo)
            self._shadow.fit_layers()
            found = replay.run(self._shadow.stack, self.args, self.kwargs)
        finally:
            undo.restore()
        self._scale(found, keep)
        return found

    def replay_other(self, model: nn.Module, keep: Keep) -> Replayed:
        """As :meth:`replay`, with the code of another model, whose tensors become ghosts for good.

        Its tensors have the names that those of this model have.
        """
        graph = self.structure.analysis.graph
        replay = Replay(self.structure.analysis, keep, self.detail)
        ids = {name: value.id for value in graph.values for name in value.names}
        for source, name, _ in list(owned_tensors(model)):
            put_ghost(model, source, name, replay.ghost(ids[name]))
        found = replay.run(ModuleStack(model), self.args, self.kwargs)
        self._scale(found, keep)
        return found

    @cached_property
    def _shadow(self) -> Shadow:
        """A copy of the model in which all tensors are ghosts."""
        analysis = self.structure.analysis
        if analysis.graph.shadow is not None:
            return Shadow(analysis.graph.shadow)
        ids = {name: value.id for value in analysis.graph.values for name in value.names}
        whole = Replay(analysis, {}, self.detail)
        return Shadow(copy_with(self.model, lambda source, name, tensor: whole.ghost(ids[name])))

    def assume(self, keep: Keep) -> Replayed:
        """What a replay would find if the code wrote no sizes: only what operators measure themselves."""
        found = Replayed()
        self._scale(found, keep)
        return found

    @cached_property
    def layer_bindings(self) -> dict[Place, Binding]:
        """The numbers that torch's own layers keep, such as the groups of a convolution."""
        return {b.place: b for b, _ in self._numbers() if b is not None}

    @property
    def depends_on_sizes(self) -> bool:
        """Whether a cut has to be replayed: the code writes sizes into its calls, or computes with them."""
        return self.writes_sizes or self.computes_factors

    @cached_property
    def writes_sizes(self) -> bool:
        """Whether a call was recorded with the size of an axis that may be cut, beside those of layers."""
        axes = {group.axis for group in self.structure.groups}
        leaves = self.structure.analysis.algebra.leaves
        return any(
            binding is None and not axes.isdisjoint(leaves(number.dim)) for binding, number in self._numbers()
        )

    def _numbers(self) -> Iterator[tuple[Binding | None, Number]]:
        """Every number that is a size, with the place in a torch layer that holds it."""
        analysis = self.structure.analysis
        kinds = analysis.graph.module_types
        for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
            for number in operator.numbers if operator and not isinstance(node.op, ModuleCall) else ():
                attribute = layer_attribute(kinds.get(node.module, object), number.argument)
                place = Place(node.module, (attribute,)) if attribute else None
                yield (Binding(place, number.dim, number.dim.size) if place else None), number

    @cached_property
    def folder(self) -> Folder:
        """Finds parameters that can take in a factor."""
        return Folder(self.structure.analysis)

    def _scale(self, found: Replayed, keep: Keep) -> None:
        """Factors that follow from sizes become scales of parameters, wherever these can take them."""
        analysis = self.structure.analysis
        for node, rescale in rescales(analysis):
            dim = analysis.algebra.resolve(rescale.dim)
            factor = (kept_size(dim, keep) / dim.size) ** -rescale.power
            fold = self.folder.fold(rescale.operand, node) if factor != 1 else None
            if fold is not None:
                found.scales.append(Scale(fold, factor))
        for mismatch in list(found.mismatches):
            scale = self._scale_of(mismatch)
            if scale is not None:
                self.computes_factors = True
                found.mismatches.remove(mismatch)
                found.scales.append(scale)

    def _scale_of(self, mismatch: Mismatch) -> Scale | None:
        kind, node = packet(mismatch.node), mismatch.node
        if mismatch.number is not None or kind not in (torch.ops.aten.mul, torch.ops.aten.div):
            return None
        if isinstance(mismatch.recorded, list):
            return None
        scaled = [id_ for id_ in node.inputs if id_ != mismatch.tensor]
        if not mismatch.recorded or not mismatch.actual or len(scaled) != 1 or scaled[0] != node.inputs[0]:
            return None
        fold = self.folder.fold(scaled[0], node)
        ratio = mismatch.recorded / mismatch.actual
        return None if fold is None else Scale(fold, ratio if kind is torch.ops.aten.mul else 1 / ratio)

    def foreseen(self, found: Replayed) -> list[Mismatch]:
        """The mismatches of a replay, and those that modules it did not come to will have alike."""
        later = () if found.error is None else self._alike.foreseen(found.mismatches, found.reached)
        return [*found.mismatches, *later]

    def balances(self, following: Following) -> list[list[Dim]]:
        """Dimensions that have to stay equal in size, by the rules and as far as the code is known."""
        resolve = self.structure.analysis.algebra.resolve
        relations = [[resolve(dim) for dim in dims] for dims in following.relations]
        return [*self.structure.balances(), *relations]

    def complaint(self, found: Replayed, axes: set[Leaf]) -> Complaint:
        """What a replay that ended before its time may have been about, if ``axes`` are cut."""
        return Complaint(self.structure.analysis, self._alike, found, axes)

    @cached_property
    def _alike(self) -> AlikeCalls:
        return AlikeCalls(self.structure.analysis, self._shadow.paths)

    def places(self, mismatch: Mismatch) -> list[tuple[Place, Dim]]:
        """Candidate places of a mismatch of the last replay, with what they would measure."""
        if mismatch.number is None or mismatch.number.offset:
            return []  # nobody keeps a size less one: the code computes it from the size
        analysis = self.structure.analysis
        dim = analysis.algebra.resolve(mismatch.number.dim)
        axes = set(analysis.algebra.leaves(dim))
        dims = (d for id_ in mismatch.node.inputs for d in analysis.dims_of(id_))
        around = [d for d in dims if axes < set(analysis.algebra.leaves(d))]
        wholes: list[Dim] = [d for d in around if isinstance(d, Concat)]
        # For code that computes num_heads // num_kv_heads, what the number is a factor beside.
        beside = dict.fromkeys(axis for d in around for axis in analysis.algebra.leaves(d))
        wholes += [axis for axis in beside if axis not in axes]
        return list(candidates(mismatch, dim, self._shadow.paths, wholes))


def rescales(analysis: Analysis) -> Iterator[tuple[Node, Rescale]]:
    """Operators that scale an operand by a size that they measure themselves."""
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        for rescale in operator.rescales if operator else ():
            yield node, rescale


def unfoldable(code: Followed) -> list[tuple[Dim, str]]:
    """Dimensions whose size scales a result, where no parameter can take in the difference."""
    return [
        (rescale.dim, f"{node.op} scales by its size, and no parameter can make up for that")
        for node, rescale in rescales(code.structure.analysis)
        if code.folder.fold(rescale.operand, node) is None
    ]


def trial_cut(
    code: Followed, groups: Iterable[Group], following: Following, sizes: Mapping[Leaf, int]
) -> dict[Leaf, Positions]:
    """Keep sets of ``groups`` at ``sizes``, as far as balances allow; what has no size there stays whole."""
    wanted = {group.axis: sizes.get(group.axis, group.size) for group in groups}
    wanted = {axis: size for axis, size in wanted.items() if size < axis.size}
    return balanced_cut(code, following, wanted)


def balanced_cut(code: Followed, following: Following, wanted: Mapping[Leaf, int]) -> dict[Leaf, Positions]:
    """Keep sets at the wanted sizes, or at the next larger ones that balance."""
    sizes = balanced_sizes(code.balances(following), wanted, code.structure.floors())
    return {axis: np.arange(size) for axis, size in sizes.items()}


def progress(new: Replayed, old: Replayed) -> bool:
    """Whether a replay left less to follow than another one, or got further before it ended."""
    if (new.error is None) != (old.error is None):
        return new.error is None
    if new.reached != old.reached:
        return new.reached > old.reached
    if len(new.mismatches) != len(old.mismatches):
        return len(new.mismatches) < len(old.mismatches)
    return got_further(new, old)


def explain(found: Replayed) -> str:
    """What stands in the way, for a user."""
    if found.mismatches:
        return f"the model's code cannot follow: {found.mismatches[0]}"
    error = found.error
    return f"the model's code cannot follow: {type(error).__name__}: {error}"
