"""Relations: dimensions that the model's code takes to be equal in size.

Code that computes ``C // num_heads`` follows a cut of the width and of the heads' features only if
both lose alike. Such a relation is a balance between axes, found by trying: cut equally what has
the same size near the call that went wrong, and see whether it goes right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from ..axes import Dim, Group, Keep, Leaf, kept_size
from ._code import Followed, Following, progress, trial_cut
from ._nearby import dims_inside
from ._replay import Mismatch, Replayed


def relate(
    code: Followed, groups: list[Group], found: Replayed, following: Following, sizes: Mapping[Leaf, int]
) -> Replayed | None:
    """Find dimensions that the code takes to be equal: the replay that balancing them improves."""
    before = trial_cut(code, groups, following, sizes)
    trials = _cuts(code, groups, following, sizes, _equal_dims(code, groups, found, before))
    # What goes right since an axis is whole again says little about sizes: that comes last.
    trials.sort(key=lambda trial: len(_cut(before) - _cut(trial[1])))
    for dims, keep in chain(trials, _guesses(code, groups, found, following, sizes, before)):
        for bindings in (following.bindings, *following.neutral[:2]):
            result = code.replay(keep, bindings.values())
            if progress(result, found):
                following.bindings = bindings
                following.relations += dims
                return result
    return None


def _guesses(
    code: Followed,
    groups: list[Group],
    found: Replayed,
    following: Following,
    sizes: Mapping[Leaf, int],
    before: Keep,
) -> Iterator[tuple[list[tuple[Dim, ...]], Keep]]:
    """Relations that code which ended the run may have been about, each with a cut as large as before."""
    if found.error is not None:
        dims = code.complaint(found, set(before)).equal_dims()
        for trial in _cuts(code, groups, following, sizes, dims):
            if _cut(before) <= _cut(trial[1]):
                yield trial


def _cuts(
    code: Followed,
    groups: list[Group],
    following: Following,
    sizes: Mapping[Leaf, int],
    candidates: Iterable[list[tuple[Dim, ...]]],
) -> list[tuple[list[tuple[Dim, ...]], Keep]]:
    """Each candidate with the cut that it makes of the trial."""
    cuts = []
    for dims in filter(None, candidates):
        related = Following(relations=[*following.relations, *dims])
        cuts.append((dims, trial_cut(code, groups, related, sizes)))
    return cuts


def _cut(keep: Keep) -> set[Leaf]:
    return {axis for axis, positions in keep.items() if len(positions) < axis.size}


def _equal_dims(
    code: Followed, groups: list[Group], found: Replayed, keep: Keep
) -> list[list[tuple[Dim, ...]]]:
    """Sets of dimensions of one size within a module that went wrong, by the line that did.

    First pairs: what a number should have been, and a dimension that has the size which it was.
    Then all dimensions of a size together. Each candidate is a list with a set for every module
    that the same line went wrong in.
    """
    analysis = code.structure.analysis
    axes = {group.axis for group in groups}
    candidates: dict[Any, list[tuple[Dim, ...]]] = {}
    seen: set[tuple[str, Any]] = set()
    for mismatch in code.foreseen(found):
        node, number = mismatch.node, mismatch.number
        if number is None or (node.module, number.position) in seen:
            continue
        seen.add((node.module, number.position))
        line = (node.site.code, node.site.line) if node.site else node.module
        wrong = analysis.algebra.resolve(number.dim)
        nearby = dims_inside(analysis, node.module)
        for rank, other in enumerate(nearby.get(wrong.size, ())):
            key = (0, line, number.position, rank)
            # What another module ran into is held against sizes; here the same is taken to hold.
            if key in candidates if mismatch.actual is None else _explains(other, wrong, mismatch, keep):
                candidates.setdefault(key, []).append((wrong, other))
        leaves = analysis.algebra.leaves
        for size, dims in nearby.items():
            # To be as wide as something that cannot be cut is no relation.
            dims = [dim for dim in dims if not axes.isdisjoint(leaves(dim))]
            touched = {axis for dim in dims for axis in leaves(dim)}
            if len(dims) > 1 and not touched.isdisjoint(leaves(wrong)):
                key = (1, line, size == mismatch.recorded, len(dims))
                candidates.setdefault(key, []).append(tuple(dims))
    return [candidates[key] for key in sorted(candidates, key=lambda key: key[0])]


def _explains(other: Dim, wrong: Dim, mismatch: Mismatch, keep: Keep) -> bool:
    """Whether the code took the size of ``other``, which is cut, where that of ``wrong`` is needed."""
    size = kept_size(other, keep)
    return size == abs(mismatch.actual) != kept_size(wrong, keep) and size != other.size
