"""Which cuts the model's own code can follow, found by replay before any group is offered.

All groups are cut at once on ghosts. What the code writes into its calls and has to change is
bound to attributes; dimensions that it takes to be equal are balanced; where nothing fits, the
groups that are to blame are found one by one, and pinned with the line of code as the reason.
Nothing of the model is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..axes import Dim, Group, Leaf
from ._code import Followed, Following, explain, trial_cut, progress
from ._constants import Binding, Place
from ._relations import relate
from ._replay import Mismatch, Replayed

ROUNDS = 12


def follow(code: Followed) -> Following:
    """Find how the code can follow a cut of every group, and the groups that it cannot follow.

    First all groups are halved, which finds most; then each loses another share, which finds sizes
    that the code takes to be equal and that were so by chance.
    """
    following = Following()
    groups = list(code.structure.groups)
    for uneven in (False, True):
        while groups:
            found = _bind(code, groups, following, uneven)
            if found.clean:
                break
            if relate(code, groups, found, following, uneven=uneven):
                continue
            blamed = _blame(code, groups, found, following, uneven)
            following.blocked += blamed
            gone = {axis for axis, _ in blamed}
            groups = [group for group in groups if group.axis not in gone]
    return following


def _bind(code: Followed, groups: Iterable[Group], following: Following, uneven: bool) -> Replayed:
    """Bind attributes until the code follows a cut of ``groups``, or nothing more fits."""
    keep = trial_cut(code, groups, following, uneven=uneven)
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
        shared: list[tuple[Dim, ...]] = []
        for places, mismatch in choices:
            place = places[min(rank, len(places) - 1)]
            assert mismatch.number is not None
            dim = code.structure.analysis.algebra.resolve(mismatch.number.dim)
            bound = trial.setdefault(place, Binding(place, dim, abs(mismatch.recorded)))
            if bound.dim is not dim:
                shared.append((bound.dim, dim))  # one number for two dimensions: they stay equal
        result = code.replay(keep, trial.values())
        if progress(result, found):
            following.bindings = trial
            following.relations += [pair for pair in dict.fromkeys(shared) if pair not in following.relations]
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


def _blame(
    code: Followed, groups: list[Group], found: Replayed, following: Following, uneven: bool
) -> list[tuple[Leaf, str]]:
    """The groups that cannot be followed, each found guilty by a replay of its own."""
    suspects = _suspects(code, groups, found)
    guilty: list[tuple[Leaf, str]] = []
    for wave in suspects:
        result = _alone(code, wave, following, uneven)
        if result.clean:
            continue
        for group in wave:
            alone = result if len(wave) == 1 else _alone(code, [group], following, uneven)
            if not alone.clean:
                guilty.append((group.axis, explain(alone)))
    if not guilty:  # each alone is followed, together they are not: the first wave has to stay
        guilty = [(group.axis, explain(found)) for group in suspects[0]]
    return guilty


def _alone(code: Followed, groups: list[Group], following: Following, uneven: bool) -> Replayed:
    trial = Following(dict(following.bindings), list(following.relations))
    return _bind(code, groups, trial, uneven)


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
