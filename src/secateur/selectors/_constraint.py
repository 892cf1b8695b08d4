"""Which widths a group may be given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil
from typing import TypeAlias

from .._errors import LabelError
from ..axes import Group


@dataclass(frozen=True, slots=True)
class ChannelsConstraint:
    """Widths that a group may have after a cut.

    Attributes:
        minimum: fewest labels that stay; below 1 (a float) a share of the group's labels.
        maximum: most labels that stay, likewise; None for no limit. A group above it has to be cut.
        step: widths are multiples of this number. A group whose own size is none may stay whole.

    Raises:
        LabelError: for a minimum above the maximum, a step below 1, or 1.5 labels.

    Example:
        >>> ChannelsConstraint(minimum=16, step=8).widths(36)
        [16, 24, 32, 36]
        >>> ChannelsConstraint(minimum=0.5).widths(4)
        [2, 3, 4]
    """

    minimum: float = 1
    maximum: float | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.step, int) or self.step < 1:
            raise LabelError(f"step is a positive number of labels, got {self.step!r}")
        if self.minimum < 0 or (self.maximum is not None and self.maximum <= 0):
            raise LabelError(f"minimum and maximum are numbers of labels or shares of them, got {self}")
        limits = [limit for limit in (self.minimum, self.maximum) if limit is not None]
        if any(limit >= 1 and limit != int(limit) for limit in limits):
            raise LabelError(f"from 1 on minimum and maximum are whole numbers of labels, got {self}")
        shares = [limit < 1 for limit in limits]
        if len(set(shares)) == 1 and limits != sorted(limits):
            raise LabelError(f"the minimum is above the maximum: {self}")

    def widths(self, size: int) -> list[int]:
        """The widths that a group of ``size`` labels may have, in ascending order; never none.

        Raises:
            LabelError: if there is none, since the minimum is above the maximum.
        """
        low = max(1, _count(self.minimum, size, up=True))
        high = size if self.maximum is None else _count(self.maximum, size, up=False)
        if low > high and low <= size:
            raise LabelError(f"{self} leaves no width for a group of {size} labels")
        allowed = [width for width in range(low, min(high, size) + 1) if width % self.step == 0]
        if not allowed or (high >= size and allowed[-1] != size):
            allowed.append(size)
        return allowed


def _count(value: float, size: int, *, up: bool) -> int:
    if value >= 1:
        return int(value)
    return ceil(value * size - 1e-9) if up else int(value * size + 1e-9)


Constraints: TypeAlias = ChannelsConstraint | Mapping[str, ChannelsConstraint] | None
"""One constraint for all groups, or patterns of group names (as in ``layer1.*``) with their own."""


def matching(patterns: Iterable[str], groups: Iterable[Group], what: str) -> dict[str, str]:
    """For each group that some pattern matches: the first that does.

    A pattern is a name, a prefix that ends at a dot, or has wildcards (``*``, ``?``).

    Raises:
        LabelError: for a pattern that matches no group: a typing mistake would select nothing.
    """
    names = [group.name for group in groups]
    found: dict[str, str] = {}
    for pattern in patterns:
        hit = [n for n in names if n == pattern or n.startswith(f"{pattern}.") or fnmatchcase(n, pattern)]
        if not hit:
            raise LabelError(f"{what}: no group matches {pattern!r}; ir.groups() lists all groups")
        for name in hit:
            found.setdefault(name, pattern)
    return found


def staircase(groups: Iterable[Group], step: int) -> dict[str, list[int]]:
    """Widths that are multiples of ``step``, for each group of at least two steps; any for the others.

    Small groups, such as the heads of attention, are no channels that a vector unit would like in
    eights.
    """
    return {
        group.name: ChannelsConstraint(step=step if group.size >= 2 * step else 1).widths(group.size)
        for group in groups
    }


def allowed_widths(groups: Iterable[Group], constraints: Constraints) -> dict[str, list[int]]:
    """The widths that each group may have, ascending, by name."""
    groups = list(groups)
    if constraints is None or isinstance(constraints, ChannelsConstraint):
        one = constraints or ChannelsConstraint()
        return {group.name: one.widths(group.size) for group in groups}
    matched = matching(constraints, groups, "channels_constraint")
    default = ChannelsConstraint()
    own = {name: constraints[pattern] for name, pattern in matched.items()}
    return {group.name: own.get(group.name, default).widths(group.size) for group in groups}
