"""Where the positions of a smaller tensor were before channels changed places and others were taken off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..axes import STATE, Analysis
from ..surgery import Plan
from ._align import Pair, moved_values, positions_of

Origins = dict[str, tuple[Tensor | None, ...]]
"""By parameter and buffer, for every dimension: see :class:`SpeedupReport`."""


def find_origins(plan: Plan, analysis: Analysis, orders: Sequence[tuple[Pair, Tensor]]) -> Origins:
    """The original positions of everything that a plan makes smaller or that ``orders`` reorder."""
    before: dict[str, list[Tensor | None]] = {}
    for value, position, pair, order in moved_values(analysis, orders, STATE):
        dims = analysis.dims_of(value.id)
        grouped = dims[position] is pair.inner  # a grouped weight: another order in the rows of every group
        index = order if grouped else positions_of(dims[position], pair, order)
        for name in value.names:
            places = before.setdefault(name, [None] * len(dims))
            known = places[position]
            places[position] = index if known is None else known.index_select(-1, index)
    found: Origins = {name: tuple(places) for name, places in before.items()}
    for change in plan.tensors:
        for name in change.names:
            places = before.get(name, [None] * len(change.positions))
            found[name] = tuple(_cut(*pair) for pair in zip(places, change.positions, strict=True))
    return found


def _cut(places: Tensor | None, positions: object) -> Tensor | None:
    if positions is None:
        return places
    kept = torch.as_tensor(positions)
    return kept if places is None else places.index_select(-1, kept)
