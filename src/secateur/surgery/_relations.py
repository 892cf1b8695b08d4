"""Relations: dimensions that the model's code takes to be equal in size.

Code that computes ``C // num_heads`` follows a cut of the width and of the heads' features only if
both lose alike. Such a relation is a balance between axes, found by trying: cut equally what has
the same size near the call that went wrong, and see whether it goes right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..axes import Analysis, Dim, Group, Keep, Leaf, kept_size
from ..capture import Node
from ._code import Followed, Following, Shares, progress, trial_cut
from ._replay import Replayed


def relate(
    code: Followed, groups: list[Group], found: Replayed, following: Following, shares: Shares
) -> Replayed | None:
    """Find dimensions that the code takes to be equal: the replay that balancing them improves."""
    before = trial_cut(code, groups, following, shares)
    for dims in _equal_dims(code, groups, found, before):
        following.relations += dims
        keep = trial_cut(code, groups, following, shares)
        for bindings in (following.bindings, *following.neutral[:2]):
            result = code.replay(keep, bindings.values())
            if progress(result, found):
                following.bindings = bindings
                return result
        del following.relations[-len(dims) :]
    return None


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
    for mismatch in found.mismatches:
        node, number = mismatch.node, mismatch.number
        if number is None or (node.module, number.position) in seen:
            continue
        seen.add((node.module, number.position))
        line = (node.site.code, node.site.line) if node.site else node.module
        wrong = analysis.algebra.resolve(number.dim)
        nearby = _by_size(analysis, _inside(analysis, node.module))
        for rank, other in enumerate(nearby.get(wrong.size, ())):
            if kept_size(other, keep) == abs(mismatch.actual) != kept_size(wrong, keep):
                candidates.setdefault((0, line, number.position, rank), []).append((wrong, other))
        leaves = set(analysis.algebra.leaves(wrong))
        for size, dims in nearby.items():
            touched = {axis for dim in dims for axis in analysis.algebra.leaves(dim)}
            if len(dims) > 1 and touched & leaves and touched & axes:
                key = (1, line, size == mismatch.recorded, len(dims))
                candidates.setdefault(key, []).append(tuple(dims))
    return [candidates[key] for key in sorted(candidates, key=lambda key: key[0])]


def _inside(analysis: Analysis, module: str) -> Iterator[Node]:
    """Calls in a module and in its submodules: a width may come in through a layer of it."""
    prefix = f"{module}."
    return (node for node in analysis.graph.nodes if not module or f"{node.module}.".startswith(prefix))


def _by_size(analysis: Analysis, nodes: Iterable[Node]) -> dict[int, list[Dim]]:
    """Different dimensions of all tensors that ``nodes`` read and make, by size."""
    found: dict[int, dict[tuple[Leaf, ...], Dim]] = {}
    for id_ in dict.fromkeys(id_ for node in nodes for id_ in (*node.inputs, *node.outputs)):
        for dim in analysis.dims_of(id_):
            if dim.size > 1:
                found.setdefault(dim.size, {})[tuple(analysis.algebra.leaves(dim))] = dim
    return {size: list(dims.values()) for size, dims in found.items()}
