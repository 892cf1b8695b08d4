"""Finding the argument at which something measured meets a target, by steps between known sides."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Bracket:
    """Arguments that were too low and too high, for positive arguments of something that rises.

    What is measured varies, so a side can turn out wrong: then the other one is given up.

    Example:
        >>> bracket = Bracket()
        >>> bracket.add(4.0, too_high=True)
        >>> bracket.inside(5.0)  # 4 was too high already
        3.8
        >>> bracket.add(1.0, too_high=False)
        >>> bracket.inside(2.0), round(bracket.inside(5.0), 2)
        (2.0, 2.83)
    """

    low: float = 0.0
    high: float = math.inf

    def add(self, at: float, *, too_high: bool) -> None:
        """Note that an argument was too high, or too low."""
        if too_high:
            self.high = at
            self.low = self.low if self.low < at else 0.0
        else:
            self.low = at
            self.high = self.high if at < self.high else math.inf

    def inside(self, proposed: float) -> float:
        """What was proposed, moved to between the sides; with both known, into the middle half."""
        if self.low == 0.0:
            return min(proposed, 0.95 * self.high)
        if math.isinf(self.high):
            return max(proposed, 1.05 * self.low)
        quarter = (self.high / self.low) ** 0.25
        return min(max(proposed, self.low * quarter), self.high / quarter)

    def nearer_than(self, ratio: float) -> bool:
        """Whether both sides are known and no further apart than this ratio."""
        return self.low > 0 and self.high <= self.low * ratio
