"""How much is left after each step."""

from __future__ import annotations

from enum import Enum

from .._errors import LabelError


class Schedule(Enum):
    """How fast the cost comes down.

    - ``linear``: by the same amount in each step.
    - ``cubic``: fast at first, while there is much to spare, and slower towards the end: of what is to
      go, ``(1 - t/n)**3`` is still there after ``t`` of ``n`` steps. Source: Zhu and Gupta, "To prune, or
      not to prune" (2017).
    """

    LINEAR = "linear"
    CUBIC = "cubic"

    @classmethod
    def _missing_(cls, value: object) -> Schedule:
        raise LabelError(f"schedule is one of {[s.value for s in cls]}, got {value!r}")


def shares_left(target: float, steps: int, schedule: Schedule | str = Schedule.CUBIC) -> list[float]:
    """The share of the cost that is to be left after each step; the last one is ``target``.

    Args:
        target: share that is to be left in the end, above 0 and at most 1.
        steps: number of steps, at least 1.
        schedule: see :class:`Schedule`.

    Raises:
        LabelError: for values out of these ranges.

    Example:
        >>> shares_left(0.25, 3, "linear")
        [0.75, 0.5, 0.25]
        >>> [round(share, 3) for share in shares_left(0.2, 4, "cubic")]
        [0.538, 0.3, 0.213, 0.2]
    """
    if not 0 < target <= 1:
        raise LabelError(f"target is the share of the cost to be left, above 0 and at most 1, got {target!r}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise LabelError(f"steps is a whole number from 1 on, got {steps!r}")
    power = 3 if Schedule(schedule) is Schedule.CUBIC else 1
    return [target + (1 - target) * (1 - step / steps) ** power for step in range(1, steps)] + [target]
