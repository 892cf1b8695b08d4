"""The binary search: lowest scores first, until the cost is as near to the target as it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from ..cost import CostFunction
from ._constraint import Constraints
from ._ranking import removal_order
from ._target import Infeasible, LatencyLabelSelector, LevelCost

SelectorCallback = Callable[[float, float], bool]


class BinarySearchLatencyLabelSelector(LatencyLabelSelector):
    """Removes the lowest-scored labels of the whole model, as many as bring the cost near the target.

    The number of labels is found by bisection. The cost may end on either side of the target.

    Args:
        target_latency: the cost to aim at, in the units of the function.
        latency_calculation_function: from a model to its cost; or :class:`secateur.cost.Macs`,
            :class:`secateur.cost.Parameters`, :class:`secateur.cost.LatencyTable`.
        selector_cb: called with (current, target) after each measurement; True ends the search there.
        channels_constraint: widths that groups may have.
        ignore: groups to leave alone.
        on_infeasible: ``"raise"`` a :class:`secateur.TargetError`, or ``"warn"`` and take the smallest.
        verbose: print each measurement.

    Example:
        >>> import torch, secateur
        >>> ir = secateur.PruningIR(torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Linear(64, 1)))
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 2),))
        >>> selector = BinarySearchLatencyLabelSelector(96, secateur.cost.Macs(), verbose=False)
        >>> ir.prune(labels=selector.select(ir)).report.macs
        (192, 96)
    """

    def __init__(
        self,
        target_latency: float,
        latency_calculation_function: CostFunction,
        selector_cb: SelectorCallback | None = None,
        *,
        channels_constraint: Constraints = None,
        ignore: Iterable[str | nn.Module] = (),
        on_infeasible: Infeasible | str = Infeasible.RAISE,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            target_latency,
            latency_calculation_function,
            channels_constraint=channels_constraint,
            ignore=ignore,
            on_infeasible=on_infeasible,
            verbose=verbose,
        )
        self.selector_cb = selector_cb

    def _search(self, cost: LevelCost) -> list[int]:
        order = list(removal_order(cost.bundles))
        low, high = 0, len(order)  # too dear at low steps, cheap enough at high
        best: tuple[float, list[int]] | None = None
        while high - low > 1 or best is None:
            middle = (low + high) // 2
            levels = cost.top
            for index, level, _ in order[:middle]:
                levels[index] = level
            now = cost.measure(levels)
            self._note(self.target_latency, cost.predict(levels), now, cost.share(levels))
            distance = abs(now - self.target_latency)
            if best is None or distance < best[0]:
                best = (distance, levels)
            if self.selector_cb is not None and self.selector_cb(now, self.target_latency):
                return levels
            if high - low <= 1:
                break
            low, high = (middle, high) if now > self.target_latency else (low, middle)
        return best[1]
