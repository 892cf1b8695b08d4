"""Put the channels of each group into an order of their own, so that one place is the worst in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ._errors import VerificationError
from ._ir import PruningIR
from .axes import Analysis, Dim, interchangeable, labels_at, leaves_of
from .capture import Source, copy_with, like
from .speedups import Pair, reorder
from .surgery import Undo
from .verification import verify

Importance = Callable[[str, torch.Tensor], torch.Tensor]


def align_groups(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    importance: Importance | None = None,
) -> nn.Module:
    """A copy of ``model`` that computes the same, with the channels of every group in order of importance.

    A grouped convolution and a GroupNorm need as many channels in each group, and a label of the axis
    inside the groups is one channel of each: those at the same place. After this, the channels at the
    first place are the most important one of every group, those at the last place the least important,
    so labels that are removed take the worst channels of each group, wherever these stood. Which
    channels may change places is known from the axes; outputs are compared before anything is returned.

    Args:
        model: any ``nn.Module``. Align it before you make the optimizer, whose state is by position.
        args: positional inputs to run it on.
        kwargs: keyword inputs.
        importance: ``importance(name, parameter)``, a tensor of the parameter's shape with what each element
            counts; added up over all that a channel reaches. Default: the squares.

    Returns:
        The copy. Its layers, shapes and names are those of ``model``.

    Raises:
        VerificationError: if outputs are not the same. ``model`` itself is only read.

    Example:
        >>> import torch, secateur
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2))
        >>> image = torch.randn(1, 3, 8, 8)
        >>> aligned = secateur.align_groups(net, (image,))
        >>> norms = aligned[0].weight.detach().flatten(1).norm(dim=1) ** 2
        >>> norms += aligned[0].bias.detach() ** 2
        >>> norms += aligned[2].weight.detach().square().sum((2, 3)).unflatten(0, (2, 2)).sum(1).flatten()
        >>> groups = norms.unflatten(0, (2, 4))  # of 2 groups with 4 channels each
        >>> torch.equal(groups, groups.sort(dim=1, descending=True)[0])
        True
    """
    ir = PruningIR(model)
    ir.create_snapshot("main", args, kwargs)
    analysis = ir.snapshot().analysis
    free = interchangeable(analysis, (group.axis for group in ir.groups()))
    count = importance or _squares
    pairs = [Pair(outer, inner, joint=inner) for inner, outer in free.items()]
    orders = [(pair, _order(analysis, pair, dict(model.named_parameters()), count)) for pair in pairs]
    aligned = copy_with(model, lambda source, name, tensor: like(tensor.detach().clone(), tensor))
    reorder(aligned, analysis, orders, Undo(enabled=False))
    found = verify(model, aligned, args, kwargs)
    if not found.passed:
        raise VerificationError(
            f"with the channels of its groups in another order the model computes something else ({found}). "
            "It is left as it was. This is a defect of Secateur or of a custom rule: please report it."
        )
    return aligned


def _squares(name: str, parameter: torch.Tensor) -> torch.Tensor:
    return parameter.square()


def _order(
    analysis: Analysis, pair: Pair, parameters: dict[str, nn.Parameter], importance: Importance
) -> torch.Tensor:
    """(positions of the outer axis, positions of the inner one): the inner ones, the most important first."""
    total = torch.zeros(pair.outer.size * pair.inner.size, dtype=torch.float64)
    for value in analysis.graph.state(Source.PARAMETER):
        dims = analysis.dims_of(value.id)
        carrying = [position for position, dim in enumerate(dims) if pair.inner in leaves_of(dim)]
        if carrying:
            counts = importance(value.name, parameters[value.name].detach()).double().cpu()
            for position in carrying:
                _add(total, counts, dims, position, pair)
    return total.reshape(pair.outer.size, -1).argsort(dim=1, descending=True, stable=True)


def _add(total: torch.Tensor, counts: torch.Tensor, dims: list[Dim], position: int, pair: Pair) -> None:
    """Add what stands at each channel along one dimension of a parameter."""
    inner = torch.from_numpy(labels_at(dims[position], pair.inner))
    outer = torch.from_numpy(labels_at(dims[position], pair.outer))
    kept = [position]
    if dims[position] is pair.inner:  # the weight of a grouped layer: its rows say which group
        kept = [1 - position, position]
        outer = torch.from_numpy(labels_at(dims[1 - position], pair.outer))[:, None]
    rest = [place for place in range(len(dims)) if place not in kept]
    sums = counts.permute(*kept, *rest).flatten(len(kept)).sum(-1) if rest else counts.permute(*kept)
    channel = (outer * pair.inner.size + inner).where((outer >= 0) & (inner >= 0), -1)
    total.index_add_(0, channel[channel >= 0], sums[channel >= 0])
