"""Which cuts the model's own code can follow, found by replay before any group is offered.

All groups are cut at once on ghosts. What the code writes into its calls and has to change is
bound to attributes; dimensions that it takes to be equal are balanced; where nothing fits, the
groups that are to blame are found one by one, and pinned with the line of code as the reason.
Nothing of the model is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from ..axes import Dim, Group, Keep, Leaf, balanced_sizes
from ..capture import Node
from ._code import (
    Followed,
    Following,
    balanced_cut,
    explain,
    progress,
    trial_cut,
)
from ._constants import Binding, Place
from ._relations import relate
from ._replay import Mismatch, Replayed
from ._trials import Sizes, trials

ROUNDS = 12
MOST_GUESSES = 8


def follow(code: Followed) -> Following:
    """Find how the code can follow a cut of every group, and the groups that it cannot follow."""
    groups, blocked = list(code.structure.groups), list[tuple[Leaf, str]]()
    made = trials(groups)
    made = made if code.writes_sizes else made[:1]
    while True:
        following = Following(dict(code.layer_bindings))
        left = _follow_trials(code, groups, following, made)
        failed = _untried(code, left, following, made)
        if not failed:
            break
        # Relations in which these groups grew back say nothing without them: begin anew.
        blocked += failed
        gone = {axis for axis, _ in failed}
        groups = [group for group in groups if group.axis not in gone]
    following.blocked += blocked
    following.blocked += _fixed_by_relations(code, left, following)
    return following


def _follow_trials(
    code: Followed, groups: list[Group], following: Following, made: list[Sizes]
) -> list[Group]:
    """Make the code follow every trial; returns the groups that it can follow.

    The first finds most; the others find sizes that the code takes to be equal, and that were so by chance.
    """
    for sizes in made:
        groups = _follow_trial(code, groups, following, sizes)
    return groups


def _untried(
    code: Followed, groups: list[Group], following: Following, made: list[Sizes]
) -> list[tuple[Leaf, str]]:
    """Groups that grew back in every trial, for the sake of a relation, and that the code cannot follow."""
    cuts = [trial_cut(code, groups, following, sizes) for sizes in made]
    tried = {axis for keep in cuts for axis, positions in keep.items() if len(positions) < axis.size}
    untried = [group for group in groups if group.size > 1 and group.axis not in tried]
    if not untried:
        return []
    keep = balanced_cut(code, following, {group.axis: 1 for group in groups})
    found = code.replay(keep, following.bindings.values())
    cut = [group for group in untried if len(keep[group.axis]) < group.size]
    return [] if found.clean else [(group.axis, explain(found)) for group in _involved(code, cut, found)]


def _fixed_by_relations(code: Followed, groups: list[Group], following: Following) -> list[tuple[Leaf, str]]:
    """Groups that can lose nothing, since the code wants them as wide as something that is pinned."""
    least = balanced_sizes(code.balances(following), {group.axis: 1 for group in groups})
    whole = [group for group in groups if least[group.axis] == group.size > 1]
    # What grew back there for another's sake may still be cut alone.
    alone = {g.axis: balanced_sizes(code.balances(following), {g.axis: g.size - 1}) for g in whole}
    reason = "the model's code wants it as wide as something that may not be shortened"
    return [(g.axis, reason) for g in whole if alone[g.axis][g.axis] == g.size]


def follow_sizes(code: Followed, following: Following, sizes: Mapping[Leaf, int]) -> Replayed:
    """Make the code follow one very cut, as far as bindings and relations can; nothing is pinned."""

    groups = list(code.structure.groups)
    # What the trials bound may have fitted by chance, with small sizes: then begin anew.
    anew = Following(dict(code.layer_bindings), list(following.relations))
    found = Replayed()
    for attempt in (following, anew):
        found = _follow_very(code, groups, attempt, sizes)
        if found.clean:
            following.bindings, following.relations = attempt.bindings, attempt.relations
            break
    return found


def _follow_very(
    code: Followed, groups: list[Group], following: Following, sizes: Mapping[Leaf, int]
) -> Replayed:
    found = _bind(code, groups, following, sizes)
    for _ in range(ROUNDS):
        related = None if found.clean else relate(code, groups, found, following, sizes)
        if related is None:
            break
        found = related if related.clean else _bind(code, groups, following, sizes)
    return found


def _follow_trial(
    code: Followed, groups: list[Group], following: Following, sizes: Mapping[Leaf, int]
) -> list[Group]:
    """Make the code follow one cut; returns the groups that it can follow."""
    while groups:
        found = _bind(code, groups, following, sizes)
        if found.clean:
            break
        related = relate(code, groups, found, following, sizes)
        if related is not None and related.clean:
            break
        if related is None:
            blamed = _blame(code, groups, found, following, sizes)
            following.blocked += blamed
            gone = {axis for axis, _ in blamed}
            groups = [group for group in groups if group.axis not in gone]
    return groups


def _bind(code: Followed, groups: list[Group], following: Following, sizes: Mapping[Leaf, int]) -> Replayed:
    """Bind attributes until the code follows a cut of ``groups``, or nothing more fits."""
    keep = trial_cut(code, groups, following, sizes)
    found = code.replay(keep, following.bindings.values())
    for _ in range(ROUNDS):
        if found.clean:
            return found
        relations = len(following.relations)
        better = _improve(code, keep, following, found)
        if better is None:
            return found
        found = better
        if len(following.relations) > relations and not found.clean:
            # Two dimensions share a number now: the same cut, with both alike.
            keep = trial_cut(code, groups, following, sizes)
            found = code.replay(keep, following.bindings.values())
    return found


def _improve(code: Followed, keep: Keep, following: Following, found: Replayed) -> Replayed | None:
    """The result of new bindings that leave less to follow, None if there are none.

    Calls of one line are alike, so all of them take their n-th candidate together. First every
    line takes its nearest; if that is not all, line by line.
    """
    lines = _choices(code, following, code.foreseen(found))
    following.neutral = []
    trials = [[choice[0] for line in lines for choice in line]] if len(lines) > 1 else []
    if found.error is not None and not lines:
        for meant in islice(code.complaint(found, set(keep)).numbers(), MOST_GUESSES):
            lines += _choices(code, following, meant)
    together = len(trials)
    for line in lines:
        for rank in range(max(map(len, line))):
            trials.append([choice[min(rank, len(choice) - 1)] for choice in line])
    for index, trial in enumerate(trials):
        bindings, shared = _bound(following, trial)
        result = code.replay(keep, bindings.values())
        if not progress(found, result) and shared == []:
            following.neutral.append(bindings)
        if result.clean or (index >= together and progress(result, found)):
            following.bindings = bindings
            following.relations += shared
            return result
    return None


Choice = list[Binding]


def _choices(code: Followed, following: Following, mismatches: Iterable[Mismatch]) -> list[list[Choice]]:
    """For every line of code that went wrong: the candidates of each of its calls."""
    lines: dict[Any, list[Choice]] = {}
    for mismatch in mismatches:
        choice = [
            Binding(place, dim, dim.size)
            for place, dim in code.places(mismatch)
            if place not in following.bindings
        ]
        if choice:
            site, number = mismatch.site, mismatch.number
            assert number is not None
            where = (site.code, site.line) if site else mismatch.node.module
            lines.setdefault((where, number.argument, number.position), []).append(choice)
    return list(lines.values())


def _bound(
    following: Following, chosen: Iterable[Binding]
) -> tuple[dict[Place, Binding], list[tuple[Dim, ...]]]:
    """The bindings with new ones, and pairs of dimensions that have to share one number."""
    bindings, shared = dict(following.bindings), {}
    for binding in chosen:
        bound = bindings.setdefault(binding.place, binding)
        if bound.dim is not binding.dim and (bound.dim, binding.dim) not in following.relations:
            shared[bound.dim, binding.dim] = None
    return bindings, list(shared)


def _blame(
    code: Followed, groups: list[Group], found: Replayed, following: Following, sizes: Mapping[Leaf, int]
) -> list[tuple[Leaf, str]]:
    """The groups that cannot be followed, found guilty by a replay of their own."""
    suspects = _suspects(code, groups, found)
    guilty: list[tuple[Leaf, str]] = []
    results = [(wave, _alone(code, wave, following, sizes)) for wave in suspects]
    if any(result.error is not None for _, result in results):
        # These ended the run. Of the others a relation may be found once it gets as far.
        results = [(wave, result) for wave, result in results if result.error is not None]
    elif found.error is not None and len(culprits := _ending(code, groups, following, sizes)) == 1:
        return [(culprits[0].axis, explain(Replayed(error=found.error)))]
    for wave, result in results:
        if not result.clean:
            involved = _involved(code, wave, result)
            guilty += [(group.axis, explain(result)) for group in involved or wave]
    return guilty or _least_to_leave(code, groups, found, following, sizes, suspects)


def _ending(
    code: Followed, groups: list[Group], following: Following, sizes: Mapping[Leaf, int]
) -> list[Group]:
    """The fewest of ``groups`` found by halving whose cut alone still ends the run."""
    while len(groups) > 1:
        for part in (groups[: len(groups) // 2], groups[len(groups) // 2 :]):
            keep = trial_cut(code, part, following, sizes)
            if code.replay(keep, following.bindings.values()).error is not None:
                groups = part
                break
        else:
            break
    return groups


def _least_to_leave(
    code: Followed,
    groups: list[Group],
    found: Replayed,
    following: Following,
    sizes: Mapping[Leaf, int],
    suspects: list[list[Group]],
) -> list[tuple[Leaf, str]]:
    """Where each group alone is followed, and together they are not: the wave without which they are."""
    for wave in suspects:
        rest = [group for group in groups if group not in wave]
        result = _alone(code, rest, following, sizes)
        if result.clean or progress(result, found):
            return [(group.axis, explain(found)) for group in wave]
    return [(group.axis, explain(found)) for group in suspects[0]]


def _alone(code: Followed, groups: list[Group], following: Following, sizes: Mapping[Leaf, int]) -> Replayed:
    trial = Following(dict(following.bindings), list(following.relations))
    return _bind(code, groups, trial, sizes)


def _suspects(code: Followed, groups: list[Group], found: Replayed) -> list[list[Group]]:
    """Groups that the differences may come from, in waves: one for each axis of each faulty call.

    Calls of the same line of code are alike, so the n-th suspects of all of them go together.
    """
    waves: dict[tuple[Any, int], dict[Leaf, Group]] = {}
    for node in _faulty(code, found):
        key = (node.site.code, node.site.line) if node.site else node.index
        for rank, group in enumerate(_groups_of(code, groups, node)):
            waves.setdefault((key, rank), {})[group.axis] = group
    return [list(wave.values()) for wave in waves.values()] or [[group] for group in groups]


def _involved(code: Followed, groups: list[Group], found: Replayed) -> list[Group]:
    """Those of ``groups`` that the faulty calls have to do with."""
    hit = {group.axis for node in _faulty(code, found) for group in _groups_of(code, groups, node)}
    return [group for group in groups if group.axis in hit]


def _faulty(code: Followed, found: Replayed) -> list[Node]:
    nodes = [mismatch.node for mismatch in found.mismatches]
    if found.error is not None:
        nodes += code.structure.analysis.graph.nodes[max(0, found.reached - 3) : found.reached + 1]
    return nodes


def _groups_of(code: Followed, groups: list[Group], node: Node) -> list[Group]:
    """Groups whose axes are in the operands and results of a call, in their order there."""
    analysis = code.structure.analysis
    by_axis = {group.axis: group for group in groups}
    dims: list[Dim] = [d for id_ in (*node.inputs, *node.outputs) for d in analysis.dims_of(id_)]
    axes = dict.fromkeys(axis for dim in dims for axis in analysis.algebra.leaves(dim))
    return [by_axis[axis] for axis in axes if axis in by_axis]
