"""Which cuts the model's own code can follow, found by replay before any group is offered.

All groups are cut at once on ghosts. What the code writes into its calls and has to change is
bound to attributes; where nothing fits, the groups that are to blame are found one by one, and
pinned with the line of code as the reason. Nothing of the model is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from ..axes import Analysis, Dim, Group, Keep, Leaf, Rescale, Structure, kept_size
from ..capture import Detail, Node
from ._constants import Binding, Place, candidates, set_sizes
from ._copies import copy_with
from ._fold import Folder, packet
from ._layers import stale_sizes
from ._replay import Mismatch, Replay, Replayed, Scale

ROUNDS = 12


@dataclass
class Following:
    """How the code follows: bound attributes, and axes that it cannot follow, with the reason."""

    bindings: dict[Place, Binding] = field(default_factory=dict)
    blocked: list[tuple[Leaf, str]] = field(default_factory=list)


@dataclass
class Followed:
    """A model whose code is followed, with the inputs it was recorded at."""

    structure: Structure
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    detail: Detail

    def replay(self, keep: Keep, bindings: Iterable[Binding]) -> Replayed:
        """Run the code at the sizes of ``keep`` with ``bindings`` carried out."""
        analysis = self.structure.analysis
        replay = Replay(analysis, keep, self.detail)
        ids = {name: value.id for value in analysis.graph.values for name in value.names}
        model = copy_with(self.model, lambda source, name, tensor: replay.ghost(ids[name]))
        set_sizes(model, bindings, analysis.algebra, keep)
        for _, module, name, _, size in list(stale_sizes(model)):
            setattr(module, name, size)
        found = replay.run(model, self.args, self.kwargs)
        self._paths = {module: path for path, module in model.named_modules()}
        self._scale(found, keep)
        return found

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
                found.mismatches.remove(mismatch)
                found.scales.append(scale)

    def _scale_of(self, mismatch: Mismatch) -> Scale | None:
        kind, node = packet(mismatch.node), mismatch.node
        if mismatch.number is not None or kind not in (torch.ops.aten.mul, torch.ops.aten.div):
            return None
        if not mismatch.recorded or not mismatch.actual or len(node.inputs) != 1:
            return None
        fold = self.folder.fold(node.inputs[0], node)
        ratio = mismatch.recorded / mismatch.actual
        return None if fold is None else Scale(fold, ratio if kind is torch.ops.aten.mul else 1 / ratio)

    def places(self, mismatch: Mismatch) -> list[Place]:
        """Candidate places of a mismatch of the last replay."""
        return list(candidates(mismatch, self._paths))


def rescales(analysis: Analysis) -> Iterator[tuple[Node, Rescale]]:
    """Operators that scale an operand by a size that they measure themselves."""
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        for rescale in operator.rescales if operator else ():
            yield node, rescale


def unfoldable(analysis: Analysis) -> list[tuple[Dim, str]]:
    """Dimensions whose size scales a result, where no parameter can take in the difference."""
    folder = Folder(analysis)
    return [
        (rescale.dim, f"{node.op} scales by its size, and no parameter can make up for that")
        for node, rescale in rescales(analysis)
        if folder.fold(rescale.operand, node) is None
    ]


def halves(groups: Iterable[Group]) -> dict[Leaf, np.ndarray]:
    """Keep sets that take about half of every group."""
    return {group.axis: np.arange(max(1, group.size // 2)) for group in groups}


def follow(code: Followed) -> Following:
    """Find the bindings that let the code follow every group, and the groups that it cannot follow."""
    following = Following()
    groups = list(code.structure.groups)
    while groups:
        found = _bind(code, halves(groups), following)
        if found.clean:
            break
        blamed = _blame(code, groups, found, following)
        following.blocked += blamed
        gone = {axis for axis, _ in blamed}
        groups = [group for group in groups if group.axis not in gone]
    return following


def _bind(code: Followed, keep: Keep, following: Following) -> Replayed:
    """Bind attributes until the code follows ``keep``, or nothing more fits."""
    found = code.replay(keep, following.bindings.values())
    for _ in range(ROUNDS):
        if found.clean:
            return found
        better = _improve(code, keep, following, found)
        if better is None:
            return found
        found = better
    return found


def _improve(code: Followed, keep: Keep, following: Following, found: Replayed) -> Replayed | None:
    """The result of the first set of new bindings that leaves less to follow, None if there is none."""
    choices = _choices(code, following, found.mismatches)
    width = max((len(places) for places, _ in choices), default=0)
    for rank in range(width):
        # The same rank for all: layers of one class resolve alike, in one replay.
        trial = dict(following.bindings)
        for places, mismatch in choices:
            place = places[min(rank, len(places) - 1)]
            assert mismatch.number is not None
            trial[place] = Binding(place, mismatch.number.dim, abs(mismatch.recorded))
        result = code.replay(keep, trial.values())
        if _progress(result, found):
            following.bindings = trial
            return result
    return None


def _choices(
    code: Followed, following: Following, mismatches: Iterable[Mismatch]
) -> list[tuple[list[Place], Mismatch]]:
    choices = []
    for mismatch in mismatches:
        if mismatch.number is None:
            continue
        places = [place for place in code.places(mismatch) if place not in following.bindings]
        if places:
            choices.append((places, mismatch))
    return choices


def _progress(new: Replayed, old: Replayed) -> bool:
    if (new.error is None) != (old.error is None):
        return new.error is None
    if new.reached != old.reached:
        return new.reached > old.reached
    return len(new.mismatches) < len(old.mismatches)


def _blame(
    code: Followed, groups: list[Group], found: Replayed, following: Following
) -> list[tuple[Leaf, str]]:
    """The groups that cannot be followed, each found guilty by a replay of its own."""
    suspects = _suspects(code, groups, found)
    guilty: list[tuple[Leaf, str]] = []
    for wave in suspects:
        result = _bind(code, halves(wave), Following(dict(following.bindings)))
        if result.clean:
            continue
        for group in wave:
            alone = result if len(wave) == 1 else _bind(code, halves([group]), Following(dict(following.bindings)))
            if not alone.clean:
                guilty.append((group.axis, explain(alone)))
    if not guilty:  # each alone is followed, together they are not: the first wave has to stay
        guilty = [(group.axis, explain(found)) for group in suspects[0]]
    return guilty


def _suspects(code: Followed, groups: list[Group], found: Replayed) -> list[list[Group]]:
    """Groups that the differences may come from, in waves: one for each axis of each faulty call.

    Calls of the same line of code are alike, so the n-th suspects of all of them go together.
    """
    by_axis = {group.axis: group for group in groups}
    analysis = code.structure.analysis
    waves: dict[tuple[Any, int], dict[Leaf, Group]] = {}
    nodes = [m.node for m in found.mismatches]
    if found.error is not None:
        nodes += analysis.graph.nodes[max(0, found.reached - 3) : found.reached + 1]
    for node in nodes:
        dims: list[Dim] = [d for id_ in (*node.inputs, *node.outputs) for d in analysis.dims_of(id_)]
        axes = dict.fromkeys(axis for dim in dims for axis in analysis.algebra.leaves(dim) if axis in by_axis)
        key = (node.site.code, node.site.line) if node.site else node.index
        for rank, axis in enumerate(axes):
            waves.setdefault((key, rank), {})[axis] = by_axis[axis]
    return [list(wave.values()) for wave in waves.values()] or [[group] for group in groups]


def explain(found: Replayed) -> str:
    """What stands in the way, for a user."""
    if found.mismatches:
        return f"the model's code cannot follow: {found.mismatches[0]}"
    error = found.error
    return f"the model's code cannot follow: {type(error).__name__}: {error}"
