"""Carry an optimizer over a cut: the same optimizer goes on with the small model's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import ASGD, LBFGS, Adadelta, Optimizer, RMSprop, Rprop

from ._errors import OptimizerError
from .report import PruneReport
from .surgery import Cut, ParameterMap, scale_parts, slice_tensor

DEGREES: dict[str, float] = {
    "momentum_buffer": -1,
    "exp_avg": -1,
    "exp_inf": -1,
    "grad_avg": -1,
    "exp_avg_sq": -2,
    "max_exp_avg_sq": -2,
    "square_avg": -2,
    "sum": -2,
    "row_var": -2,
    "col_var": -2,
    "variance": -2,
}
"""How state goes with its parameter's scale: by which power of ``c`` it has to be multiplied where
the parameter is now ``c`` times what it was. Gradients are a ``c``-th then, their squares a
``c**2``-th; what is not named here does not depend on it."""

SPECIAL_DEGREES: dict[type[Optimizer], dict[str, float]] = {
    RMSprop: {"momentum_buffer": 0},  # of normalised gradients
    Adadelta: {"acc_delta": 2},  # squares of steps of the parameter
    Rprop: {"prev": -1, "step_size": 1},
    ASGD: {"ax": 1},  # an average of the parameter itself
}


def carry_optimizer(optimizer: Optimizer, report: PruneReport) -> None:
    """Let an optimizer go on with the parameters of the small model, state and all.

    The optimizer itself is changed, so learning-rate schedulers and gradient scalers that hold it
    keep working. Its groups keep their order, options and frozen parameters. State of a parameter's
    shape (momentum, Adam's moments, ...) is sliced by the positions that were kept, and where the
    cut folded a factor into the parameter, moments follow it as gradients do; state with a single
    row or column for the others (Adafactor) is sliced likewise; counters stay. L-BFGS forgets its
    history: curvature of a function of other variables.

    After several prunings, call it once for each, in their order. Parameters that are not the
    model's (of a loss, or a second model) stay as they are.

    Args:
        optimizer: that trains the model which was pruned. Any of ``torch.optim``, and others whose
            state is of the shapes above.
        report: of the pruning: ``ir.prune(...).report``, or the second result of
            :func:`secateur.prune`.

    Raises:
        OptimizerError: if the optimizer holds none of the model's parameters, or state that has
            another shape than its parameter. The optimizer is as it was then.

    Example:
        >>> import torch, secateur
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> small, report = secateur.prune(model, (torch.ones(1, 4),), ratio=0.5)
        >>> secateur.carry_optimizer(optimizer, report)
        >>> weight = optimizer.param_groups[0]["params"][0]
        >>> weight is small[0].weight, optimizer.state[weight]["exp_avg"].shape
        (True, torch.Size([4, 4]))
    """
    cuts = report.parameter_map
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(parameter in cuts for parameter in held):
        raise OptimizerError(_not_ours(held, cuts))
    state = {} if isinstance(optimizer, LBFGS) else _new_state(optimizer, cuts)
    for group in optimizer.param_groups:
        group["params"][:] = [cuts[p].parameter if p in cuts else p for p in group["params"]]
    optimizer.state.clear()
    optimizer.state.update(state)
    if isinstance(optimizer, LBFGS):
        optimizer._params = optimizer.param_groups[0]["params"]
        optimizer._numel_cache = None


def _new_state(optimizer: Optimizer, cuts: ParameterMap) -> dict[torch.Tensor, Any]:
    degrees = dict(DEGREES)
    for kind, special in SPECIAL_DEGREES.items():
        if isinstance(optimizer, kind):
            degrees |= special
    state: dict[torch.Tensor, Any] = {}
    for parameter, entries in optimizer.state.items():
        cut = cuts.get(parameter)
        if cut is None:
            state[parameter] = entries
            continue
        carry = _carrier(parameter, cut, degrees, type(optimizer).__name__)
        state[cut.parameter] = {name: carry(name, value) for name, value in entries.items()}
    return state


def _carrier(
    parameter: torch.Tensor, cut: Cut, degrees: dict[str, float], optimizer: str
) -> Callable[[str, Any], Any]:
    """A function that carries one entry of a parameter's state."""

    def carry(name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.numel() == 1:
            return value  # a counter, or a setting
        fits = value.dim() == parameter.dim()
        own = [n == size for n, size in zip(value.shape, parameter.shape, strict=False)]
        if not fits or any(n != 1 and not is_own for n, is_own in zip(value.shape, own, strict=True)):
            raise OptimizerError(
                f"{optimizer} keeps {name!r} of shape {tuple(value.shape)} for a parameter of "
                f"shape {tuple(parameter.shape)}, and what these positions are is not known. Take "
                "that entry out of optimizer.state before, or start a new optimizer."
            )
        positions = [p if is_own else None for p, is_own in zip(cut.positions, own, strict=True)]
        new = slice_tensor(value, tuple(positions))
        scales = tuple(scale for scale in cut.scales if own[scale[0]])
        return scale_parts(new.clone(), scales, degrees.get(name, 0)) if scales else new

    return carry


def _not_ours(held: list[torch.Tensor], cuts: ParameterMap) -> str:
    if any(parameter is cut.parameter for parameter in held for cut in cuts.values()):
        return "the optimizer holds the small model's parameters already: it was carried over before"
    return (
        "the optimizer holds none of the parameters that the report is about. Carry it over after "
        "every pruning, in their order, each with the report of that pruning."
    )
