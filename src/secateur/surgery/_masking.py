"""The masked model: the original architecture with everything that a label touches set to zero."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from ..axes import Analysis, Leaf, Positions, Structure, kept
from ..capture import Source, copy_with, like


def zero_positions(
    structure: Structure, removed: Mapping[Leaf, set[int]]
) -> dict[str, list[torch.Tensor | None]]:
    """For every parameter that is touched: the positions to zero in each dimension, by first name."""
    keep = {axis: rest(axis, gone) for axis, gone in removed.items()}
    spared = spared_axes(structure.analysis)
    touched: dict[str, list[torch.Tensor | None]] = {}
    for value in structure.analysis.graph.state(Source.PARAMETER):
        rows: list[torch.Tensor | None] = []
        masked = {axis: stay for axis, stay in keep.items() if axis not in spared[value.id]}
        for dim in structure.analysis.dims_of(value.id):
            stay = kept(dim, masked)
            gone = None if stay is None else np.setdiff1d(np.arange(dim.size), stay)
            rows.append(None if gone is None or not len(gone) else torch.from_numpy(gone))
        if any(row is not None for row in rows):
            touched[value.name] = rows
    return touched


def rest(axis: Leaf, gone: Iterable[int]) -> Positions:
    """The positions of an axis that are left when some are gone, ascending."""
    left = np.ones(axis.size, bool)
    left[list(gone)] = False
    return np.flatnonzero(left)


def spared_axes(analysis: Analysis) -> Mapping[int, set[Leaf]]:
    """For every tensor, the axes along which it is not to be zeroed: an operator divides by it.

    Weight normalisation divides by the norm of a row; its gain is zero there, which is enough.
    """
    spared: dict[int, set[Leaf]] = defaultdict(set)
    for operator in analysis.operators:
        for id_, dim in operator.spared if operator else ():
            spared[id_].update(analysis.algebra.leaves(dim))
    return spared


def zero_out(tensor: torch.Tensor, rows: list[torch.Tensor | None]) -> None:
    """Set the given positions of each dimension to zero, in place."""
    with torch.no_grad():
        for dim, positions in enumerate(rows):
            if positions is not None:
                tensor.index_fill_(dim, positions.to(tensor.device), 0)


def masked_model(model: nn.Module, structure: Structure, removed: Mapping[Leaf, set[int]]) -> nn.Module:
    """A copy of ``model`` with every parameter position that is to be removed set to zero."""
    touched = zero_positions(structure, removed)

    def masked(source: Source, name: str, tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.detach().clone()
        if name in touched:
            zero_out(copy, touched[name])
        return like(copy, tensor)

    return copy_with(model, masked)
