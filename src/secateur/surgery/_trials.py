"""Sizes at which the model's code is tried: no two groups that are equal in size keep as many positions.

Code that takes one size for another can do so only where both are equal, and it is found out as soon as
they no longer are. Small groups have few sizes to be cut to, so that some meet again in one trial; those
differ in a later one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cache

from ..axes import Group, Leaf

LEAST, MOST = 0.3, 0.7
GOLDEN = 0.618034
MOST_TRIALS = 4
NEIGHBOURS = 4

Sizes = dict[Leaf, int]
"""How many positions stay of each axis."""


def trials(groups: Sequence[Group]) -> list[Sizes]:
    """The sizes of every group, trial by trial.

    All groups are cut in the first trial, which finds most. In the second, where attention has groups, they
    alone are cut: heads times features is often the width by chance. Others follow as long as there are
    neighbours of one size that kept as many positions in every trial before.
    """
    digits = list(_digits(groups))
    made = [{group.axis: sizes[0] for group, sizes in digits}]
    if any(group.role for group in groups):
        made.append({group.axis: sizes[0] if group.role else group.size for group, sizes in digits})
    turn = 1
    while len(made) < MOST_TRIALS and _meet(groups, made):
        made.append({group.axis: sizes[turn] for group, sizes in digits})
        turn += 1
    return made


def _meet(groups: Sequence[Group], made: Sequence[Sizes]) -> bool:
    """Whether two neighbours among the groups of one size kept as many positions in every trial."""
    before: dict[int, deque[tuple[int, ...]]] = defaultdict(lambda: deque(maxlen=NEIGHBOURS))
    for group in groups:
        kept, others = tuple(sizes[group.axis] for sizes in made), before[group.size]
        if group.size > 1 and kept in others:
            return True
        others.append(kept)
    return False


def _digits(groups: Sequence[Group]) -> Iterator[tuple[Group, list[int]]]:
    """Each group with a size for each trial: the digits of its rank among the groups of its size."""
    ranks = Counter[int]()
    for group in groups:
        rank, sizes = ranks[group.size], []
        for turn in range(MOST_TRIALS):
            options = _options(group.size, whole=turn > 0)
            sizes.append(options[rank % len(options)])
            rank //= len(options)
        ranks[group.size] += 1
        yield group, sizes


@cache
def _options(size: int, whole: bool) -> list[int]:
    """Sizes that a group may be cut to, neighbours far apart: neighbouring groups are often one module's.

    What has been cut once may also stay ``whole``: nothing else sets two groups of two apart.
    """
    least = max(1, round(size * LEAST))
    sizes = list(range(least, max(least, round(size * MOST)) + 1)) + [size] * (whole and size > 1)
    return [sizes[i] for i in sorted(range(len(sizes)), key=lambda i: i * GOLDEN % 1)]
