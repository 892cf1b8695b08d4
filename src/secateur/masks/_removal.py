"""Which labels can be removed: the largest set that is closed under what exits demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..axes import Leaf
from ._exits import Block, Exit, Terms, Why


@dataclass
class Removal:
    """Labels to remove, and for every other label what keeps it.

    Attributes:
        removed: for each axis that may be shortened, a boolean for each of its labels.
        kept_by: every demand, in the order that they were met.
    """

    removed: dict[Leaf, Tensor]
    kept_by: list[Block] = field(default_factory=list)
    # The lengths of ``kept_by`` at which an axis was last given labels back, and an exit last asked.
    _changed: dict[Leaf, int] = field(default_factory=dict, repr=False)
    _asked: dict[tuple[Exit, Terms], int] = field(default_factory=dict, repr=False)

    def keep(self, block: Block) -> bool:
        """Heed one demand; whether that changed anything."""
        vector = self.removed.get(block.axis)
        if vector is None or not bool((vector & block.labels).any()):
            return False
        news = vector & block.labels
        self.removed[block.axis] = vector & ~block.labels
        self.kept_by.append(Block(block.axis, news, block.why, block.node, block.text))
        self._changed[block.axis] = len(self.kept_by)
        return True

    def close(self, exits: Sequence[Exit], terms: Terms) -> None:
        """Give back labels until all exits agree."""
        backward = exits[::-1]  # so that most of it is done in one round
        while unheard := [exit_ for exit_ in backward if not self._has_heard(exit_, terms)]:
            for exit_ in unheard:
                self._asked[exit_, terms] = len(self.kept_by)
                for block in list(exit_.blocks(self.removed, terms)):
                    self.keep(block)

    def _has_heard(self, exit_: Exit, terms: Terms) -> bool:
        """Whether an exit would demand nothing new: what its demands rest on is as when it was asked."""
        asked = self._asked.get((exit_, terms))
        return asked is not None and all(self._changed.get(axis, 0) <= asked for axis in exit_.rests_on)

    def leave_one(self) -> bool:
        """Give back one label of every axis that would be empty; whether there was any."""
        changed = False
        for axis, vector in list(self.removed.items()):
            if axis.size and bool(vector.all()):
                first = torch.zeros(axis.size, dtype=torch.bool)
                first[0] = True
                changed |= self.keep(Block(axis, first, Why.LAST))
        return changed

    def settle(self, exits: Sequence[Exit], terms: Terms) -> None:
        """:meth:`close`, with no axis left empty."""
        self.close(exits, terms)
        while self.leave_one():
            self.close(exits, terms)

    @property
    def any(self) -> bool:
        """Whether anything is removed."""
        return any(bool(vector.any()) for vector in self.removed.values())

    def positions(self) -> dict[Leaf, set[int]]:
        """Removed labels as sets of positions, only axes that lose any."""
        return {
            axis: set(torch.nonzero(vector).flatten().tolist())
            for axis, vector in self.removed.items()
            if bool(vector.any())
        }


def start_removal(axes: Sequence[Leaf], exits: Sequence[Exit]) -> Removal:
    """All of ``axes`` is to be removed, but for labels that no mask has anything to do with.

    Those are the ones that could be removed without any mask, such as those of a layer that nothing reads.
    """
    idle = Removal({axis: torch.ones(axis.size, dtype=torch.bool) for axis in axes})
    idle.close(exits, Terms(exact=True, unmasked=True))
    removal = Removal({axis: torch.ones(axis.size, dtype=torch.bool) for axis in axes})
    for axis, labels in idle.removed.items():
        removal.keep(Block(axis, labels, Why.IDLE))
    return removal
