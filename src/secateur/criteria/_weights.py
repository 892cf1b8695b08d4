"""Scores from parameters alone: how large, how replaceable, how small what a label touches is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from .._errors import ScoreError
from ..axes import Group, Positions, Structure, labels_at
from ..capture import Source, owned_tensors
from ._gates import find_uses
from ._normalize import Normalize, Scores, normalize_scores
from ._norms import norm_weights

if TYPE_CHECKING:
    from .._ir import PruningIR

Measure: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From rows, one a label, of shape ``(labels, elements)``, to scores of shape ``(labels,)``."""


class Reduce(Enum):
    """How the scores that a label has in all parameters of its group become one."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    FIRST = "first"

    @classmethod
    def _missing_(cls, value: object) -> Reduce:
        raise ScoreError(f"reduce is one of {[r.value for r in cls]}, got {value!r}")


def label_rows(tensor: torch.Tensor, dim: int, labels: Positions, size: int) -> torch.Tensor:
    """What each label selects from a tensor, one row a label, in float32 at least.

    Args:
        tensor: a parameter.
        dim: the dimension that the labels are on.
        labels: for each position of that dimension its label, or -1.
        size: the number of labels; each has as many positions as any other.

    Returns:
        A tensor of shape ``(size, elements)``.

    >>> import numpy as np
    >>> label_rows(torch.arange(6.0).reshape(2, 3), 1, np.array([1, -1, 0]), 2)
    tensor([[2., 5.],
            [0., 3.]])
    """
    labels_of = torch.from_numpy(labels)
    inside = torch.nonzero(labels_of >= 0).flatten()
    order = inside[torch.argsort(labels_of[inside], stable=True)].to(tensor.device)
    moved = tensor.detach().movedim(dim, 0)
    return moved[order].reshape(size, -1).to(torch.promote_types(tensor.dtype, torch.float32))


# -- measures --------------------------------------------------------------------------------------


def l1_norm(rows: torch.Tensor) -> torch.Tensor:
    """Sum of absolute values. Source: Li et al., "Pruning filters for efficient ConvNets" (2017).

    >>> l1_norm(torch.tensor([[3.0, -4.0]]))
    tensor([7.])
    """
    return rows.abs().sum(1)


def l2_norm(rows: torch.Tensor) -> torch.Tensor:
    """Root of the sum of squares.

    >>> l2_norm(torch.tensor([[3.0, -4.0]]))
    tensor([5.])
    """
    return torch.linalg.vector_norm(rows, dim=1)


def lp_norm(p: float) -> Measure:
    """The measure that takes the norm of order ``p``, which may be infinite.

    >>> lp_norm(float("inf"))(torch.tensor([[3.0, -4.0]]))
    tensor([4.])
    """
    if not p > 0:
        raise ScoreError(f"the order of a norm is positive, got {p}")
    return lambda rows: torch.linalg.vector_norm(rows, ord=p, dim=1)


def geometric_median_distance(rows: torch.Tensor) -> torch.Tensor:
    """Sum of the distances to all other labels (FPGM): what is near the middle is replaceable.

    Source: He et al., "Filter pruning via geometric median" (CVPR 2019).

    >>> geometric_median_distance(torch.tensor([[0.0], [1.0], [5.0]]))
    tensor([6., 5., 9.])
    """
    return torch.cdist(rows, rows).sum(1)


def lamp(rows: torch.Tensor) -> torch.Tensor:
    """Squared norm over the sum of all squared norms that are not smaller (LAMP, by labels).

    The largest label of every parameter has 1, so none is emptied, and layers are comparable.
    Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning" (ICLR 2021).

    >>> lamp(torch.tensor([[1.0], [2.0], [2.0]]))
    tensor([0.1111, 0.5000, 1.0000])
    """
    squares = rows.square().sum(1)
    order = torch.argsort(squares, stable=True)
    remaining = squares[order].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares[order] / remaining.clamp_min(torch.finfo(squares.dtype).tiny)
    return scores


# -- groups ----------------------------------------------------------------------------------------


class Members(Enum):
    """Which parameters of a group count.

    - ``all``: everything that a label touches.
    - ``makers``: what makes a label's signal: rows of weights, biases, norms.
    - ``readers``: what reads it: input features and channels of the layers that follow.
    - ``norms``: weights of BatchNorm layers only (Liu et al., "Network slimming", ICCV 2017); a group
      without one gets no score, and selectors leave it alone.
    """

    ALL = "all"
    MAKERS = "makers"
    READERS = "readers"
    NORMS = "norms"

    @classmethod
    def _missing_(cls, value: object) -> Members:
        raise ScoreError(f"members is one of {[m.value for m in cls]}, got {value!r}")


def members_of(structure: Structure, members: Members) -> Iterator[tuple[Group, list[tuple[str, int]]]]:
    """For every group, the (parameter, dimension) pairs that count; groups without one are left out."""
    norms = norm_weights(structure)
    uses = find_uses(structure)
    for group in structure.groups:
        terms = (use.parameter for use in uses.get(group.axis, ()))
        read = {(term.parameter, term.dim) for term in terms if term is not None}
        chosen = {
            Members.ALL: lambda pair, read=read: True,
            Members.MAKERS: lambda pair, read=read: pair not in read,
            Members.READERS: lambda pair, read=read: pair in read,
            Members.NORMS: lambda pair, read=read: norms.get(pair[0]) == "batch",
        }[members]
        pairs = [pair for pair in group.parameters if chosen(pair)]
        if pairs:
            yield group, pairs


def weight_scores(
    structure: Structure,
    model: nn.Module,
    measure: Measure = l2_norm,
    *,
    reduce: Reduce | str = Reduce.SUM,
    members: Members | str = Members.ALL,
) -> Scores:
    """Scores of every group from its parameters.

    Args:
        structure: the analysed model.
        model: the model.
        measure: from the rows of one parameter to a score for each label.
        reduce: how scores in several parameters become one.
        members: which parameters count.

    Raises:
        ScoreError: if a parameter of a group holds NaN, or an option is unknown.
    """
    reduce, members = Reduce(reduce), Members(members)
    owned = {name: t for source, name, t in owned_tensors(model) if source is Source.PARAMETER}
    analysis = structure.analysis
    dims = {v.name: analysis.dims_of(v.id) for v in analysis.graph.state(Source.PARAMETER)}
    scores: Scores = {}
    for group, pairs in members_of(structure, members):
        if reduce is Reduce.FIRST:
            pairs = pairs[:1]
        found: list[torch.Tensor] = []
        for name, dim in pairs:
            labels = labels_at(dims[name][dim], group.axis)
            score = measure(label_rows(owned[name], dim, labels, group.size)).double().cpu()
            if torch.isnan(score).any():
                raise ScoreError(f"parameter {name!r} of group {group.name!r} holds NaN: it cannot be scored")
            found.append(score)
        scores[group.name] = _reduced(found, reduce)
    return scores


def _reduced(found: Iterable[torch.Tensor], reduce: Reduce) -> torch.Tensor:
    stacked = torch.stack([*found])
    if reduce is Reduce.MEAN:
        return stacked.mean(0)
    return stacked.amax(0) if reduce is Reduce.MAX else stacked.sum(0)


def random_scores(structure: Structure, seed: int = 0) -> Scores:
    """Scores drawn at random, the same for the same seed: what every criterion has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
        for group in structure.groups
    }


def score_weights(
    ir: PruningIR,
    snapshot_name: str = "main",
    *,
    measure: Measure = l2_norm,
    reduce: Reduce | str = Reduce.SUM,
    members: Members | str = Members.ALL,
    normalize: Normalize | str = Normalize.NONE,
) -> Scores:
    """Score a model by its parameters, and leave the scores in its snapshot for the selectors.

    Args:
        ir: the model, with a snapshot.
        snapshot_name: which snapshot.
        measure: :func:`l1_norm`, :func:`l2_norm`, ``lp_norm(p)``, :func:`geometric_median_distance`,
            :func:`lamp`, or a function of yours from rows ``(labels, elements)`` to scores.
        reduce: how a label's scores in several parameters become one.
        members: which parameters count; ``"norms"`` with :func:`l1_norm` is network slimming.
        normalize: how to make groups comparable.

    Raises:
        ScoreError: if a parameter holds NaN, or an option is unknown.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1))
        >>> _ = torch.nn.init.constant_(model[0].weight, 0.5)
        >>> ir = secateur.PruningIR(model)
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 2),))
        >>> secateur.criteria.score_weights(ir, measure=secateur.criteria.l1_norm, members="makers")["0"]
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    snapshot = ir.snapshot(snapshot_name)
    scores = weight_scores(snapshot.structure, ir.model, measure, reduce=reduce, members=members)
    way = Normalize(normalize)
    snapshot.scores = normalize_scores(
        scores, way, savings=snapshot.savings() if way is Normalize.MACS else None
    )
    return dict(snapshot.scores)
