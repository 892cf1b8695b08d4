"""Relations: dimensions that the model's code takes to be equal in size.

Code that computes ``C // num_heads`` follows a cut of the width and of the heads' features only if
both lose alike. Such a relation is a balance between axes, found by trying: cut equally what has
the same size near the call that went wrong, and see whether it goes right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..axes import Analysis, Dim, Group, Leaf
from ..capture import Node
from ._code import Followed, Following, Shares, progress, trial_cut
from ._replay import Replayed


def relate(
    code: Followed, groups: list[Group], found: Replayed, following: Following, shares: Shares
) -> Replayed | None:
    """Find dimensions that the code takes to be equal: the replay that balancing them improves."""
    for dims in _equal_dims(code, groups, found):
        following.relations += dims
        keep = trial_cut(code, groups, following, shares)
        for bindings in (following.bindings, *following.neutral[:2]):
            result = code.replay(keep, bindings.values())
            if progress(result, found):
                following.bindings = bindings
                return result
        del following.relations[-len(dims) :]
    return None


def _equal_dims(code: Followed, groups: list[Group], found: Replayed) -> list[list[tuple[Dim, ...]]]:
    """Sets of dimensions of one size within a module that went wrong, by the line that did.

    Each candidate is a list with a set for every module that the same line went wrong in.
    """
    analysis = code.structure.analysis
    axes = {group.axis for group in groups}
    candidates: dict[Any, list[tuple[Dim, ...]]] = {}
    seen: set[str] = set()
    for mismatch in found.mismatches:
        node = mismatch.node
        if mismatch.number is None or node.module in seen:
            continue
        seen.add(node.module)
        wrong = set(analysis.algebra.leaves(mismatch.number.dim))
        # Submodules too: the width may come in through a layer, and be used in the forward around it.
        inside = f"{node.module}."
        nearby = (n for n in analysis.graph.nodes if f"{n.module}.".startswith(inside))
        for size, dims in _by_size(analysis, nearby).items():
            leaves = {axis for dim in dims for axis in analysis.algebra.leaves(dim)}
            if len(dims) > 1 and leaves & wrong and leaves & axes:
                line = (node.site.code, node.site.line) if node.site else node.module
                key = (line, size == mismatch.recorded, len(dims))
                candidates.setdefault(key, []).append(tuple(dims))
    return list(candidates.values())


def _by_size(analysis: Analysis, nodes: Iterable[Node]) -> dict[int, list[Dim]]:
    """Different dimensions of all tensors that ``nodes`` read and make, by size."""
    found: dict[int, dict[tuple[Leaf, ...], Dim]] = {}
    for id_ in dict.fromkeys(id_ for node in nodes for id_ in (*node.inputs, *node.outputs)):
        for dim in analysis.dims_of(id_):
            if dim.size > 1:
                found.setdefault(dim.size, {})[tuple(analysis.algebra.leaves(dim))] = dim
    return {size: list(dims.values()) for size, dims in found.items()}
