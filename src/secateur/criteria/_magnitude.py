"""Group magnitude: how large everything is that a label touches."""

from __future__ import annotations

from functools import reduce
from operator import add

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
    with torch.no_grad():
        for value in analysis.graph.state(Source.PARAMETER):
            for position, dim in enumerate(analysis.dims_of(value.id)):
                if not sums.keys().isdisjoint(analysis.algebra.leaves(dim)):
                    add_by_label(dim, _energy(owned[value.name], value.name, position), sums)
    return {group.name: torch.from_numpy(np.sqrt(sums[group.axis])) for group in structure.groups}


def _energy(parameter: torch.Tensor, name: str, dim: int) -> np.ndarray:
    """Sum of squares at each position of one dimension."""
    if parameter.is_complex():
        parameter = parameter.abs()
    if parameter.dtype in (torch.float16, torch.bfloat16):
        parameter = parameter.float()
    if dim == 0 and parameter.dim() > 1:
        # Along rows a norm makes no tensor of squares.
        squares = torch.linalg.vector_norm(parameter.flatten(1), dim=1).double().square()
    else:
        # Sums over the dimensions before, in the order of memory; then over those behind.
        squares = _sum_of_squares(parameter.flatten(0, dim - 1)) if dim else parameter.double().square()
        squares = squares.flatten(1).sum(1) if squares.dim() > 1 else squares
    energy = squares.double().cpu().numpy()
    if np.isnan(energy).any():
        raise LabelError(f"parameter {name!r} holds NaN, so nothing can be said of what matters in it")
    return energy


def _sum_of_squares(rows: torch.Tensor) -> torch.Tensor:
    """Over the first dimension, in blocks whose squares stay in the cache of a core: twice as fast."""
    block = max(1, _BLOCK // max(1, rows.shape[1:].numel()))
    return reduce(add, (part.square().sum(0) for part in rows.split(block)))


_BLOCK = 2**17
