"""Folding itself: weights and biases take in the factors and shifts of the norms behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._errors import VerificationError
from ..axes import has_rule
from ..capture import Detail, copy_with, like, record, unwrap
from ..verification import verify
from ._plan import NormFold, plan_folds
from ._report import FoldReport


def fold_batch_norm(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    inplace: bool = False,
) -> tuple[nn.Module, FoldReport]:
    """Make every BatchNorm part of the convolution or linear layer that it alone reads.

    ``w' = w · γ / √(σ² + ε)`` and ``b' = (b − μ) · γ / √(σ² + ε) + β``, with the running statistics, computed
    in float64. Which layer a norm reads is seen in one recorded run, so names and the way the layer is called
    do not matter. The norm's module gives way to ``nn.Identity``, or to its children where it has some that
    work behind it (an activation). What the model computes in eval mode stays the same, to rounding; it can
    no longer be trained as before.

    Args:
        model: any ``nn.Module``.
        args: positional inputs to run it on.
        kwargs: keyword inputs.
        inplace: change ``model`` itself, whose parameters stay the same objects, instead of a copy.

    Returns:
        The model, and a :class:`FoldReport` with what was folded and what was not, and why.

    Raises:
        CaptureError: if the model does not run on the inputs.
        VerificationError: if the result computes something else; the model is as it was.

    Example:
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)
        ... )
        >>> folded, report = fold_batch_norm(net, (torch.randn(2, 3, 8, 8),))
        >>> print(folded)  # doctest: +ELLIPSIS
        Sequential(
          (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): ReLU()
          (3): BatchNorm2d(4, ...)
        )
        >>> [fold.norm for fold in report.folded], report.left[0].norm, report.verification.passed
        (['1'], '3', True)
    """
    original = unwrap(model)
    plan = plan_folds(original, record(original, args, kwargs, detail=Detail(has_rule)))
    folded = copy_with(original, lambda source, name, tensor: like(tensor.detach().clone(), tensor))
    _apply(folded, plan.folds)
    verification = verify(original, folded, args, kwargs)
    if not verification.passed:
        raise VerificationError(
            f"the model computes something else when BatchNorm is folded: {verification}. "
            "Does its code read a BatchNorm's parameters itself?"
        )
    if inplace:
        folded = original
        _apply(folded, plan.folds)
    return folded, FoldReport(tuple(plan.folds), tuple(plan.left), verification)


def _apply(model: nn.Module, folds: Sequence[NormFold]) -> None:
    with torch.no_grad():
        for fold in folds:
            norm = model.get_submodule(fold.norm)
            assert isinstance(norm, _BatchNorm)
            _fold(model, fold, *_factor_and_shift(norm))
            _replace(model, norm, _rest(norm, fold))


def _factor_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """γ / √(σ² + ε) and β − μ · γ / √(σ² + ε), shape (channels,), float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.double()


def _fold(model: nn.Module, fold: NormFold, factor: Tensor, shift: Tensor) -> None:
    weight = model.get_parameter(fold.weight)
    if fold.groups:  # (in, out / groups, *kernel): the inputs of a group make its outputs
        rows = factor.reshape(fold.groups, 1, -1).expand(-1, weight.shape[0] // fold.groups, -1)
        spread = rows.reshape(weight.shape[0], -1)
    else:
        spread = factor
    by_channel = spread.reshape(*spread.shape, *[1] * (weight.dim() - spread.dim()))
    weight.copy_(weight.double() * by_channel)
    if fold.creates_bias:
        owner = model.get_submodule(fold.bias.rpartition(".")[0])
        owner._parameters["bias"] = nn.Parameter(shift.to(weight), requires_grad=weight.requires_grad)
    else:
        bias = model.get_parameter(fold.bias)
        bias.copy_(bias.double() * factor + shift)


def _rest(norm: nn.Module, fold: NormFold) -> nn.Module:
    children = [norm.get_submodule(name) for name in fold.rest]
    if len(children) == 1:
        return children[0]
    rest = nn.Sequential(*children) if children else nn.Identity()
    return rest.train(norm.training)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put another module at every path of one."""
    for module in model.modules():
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
