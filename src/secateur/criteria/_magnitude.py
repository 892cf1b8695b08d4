"""Group magnitude: how large everything is that a label touches."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .._errors import LabelError
from ..axes import Structure, add_by_label
from ..capture import Source, owned_tensors
from ._normalize import Scores


def magnitude_scores(structure: Structure, model: nn.Module) -> Scores:
    """L2 norm over all parameter elements that each label touches, for every group.

    Source: the norm-based group importance of Fang et al., "DepGraph" (CVPR 2023), without its
    normalisation: ``sqrt(sum of w**2)`` over every weight, bias and affine parameter of the group.

    Returns:
        For every group name a float64 tensor of shape ``(size,)``.

    Raises:
        LabelError: if a parameter of a group holds NaN.
    """
    analysis = structure.analysis
    owned = {name: tensor for source, name, tensor in owned_tensors(model) if source is Source.PARAMETER}
    sums = {group.axis: np.zeros(group.size) for group in structure.groups}
    for value in analysis.graph.state(Source.PARAMETER):
        for position, dim in enumerate(analysis.dims_of(value.id)):
            if not sums.keys().isdisjoint(analysis.algebra.leaves(dim)):
                add_by_label(dim, _energy(owned[value.name], value.name, position), sums)
    return {group.name: torch.from_numpy(np.sqrt(sums[group.axis])) for group in structure.groups}


def _energy(parameter: torch.Tensor, name: str, dim: int) -> np.ndarray:
    """Sum of squares at each position of one dimension."""
    others = [d for d in range(parameter.dim()) if d != dim]
    squares = parameter.detach().float().square()
    energy = (squares.sum(others) if others else squares).double().cpu().numpy()
    if np.isnan(energy).any():
        raise LabelError(f"parameter {name!r} holds NaN, so nothing can be said of what matters in it")
    return energy
