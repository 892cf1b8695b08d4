"""Compensation put into a model for the time of a cut, and taken back if it fails."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..axes import Label
from ..capture import owned_tensors
from ..surgery import Plan, removed_positions
from ._compensate import Compensate, Compensated, compensations
from ._moments import collect_moments

if TYPE_CHECKING:
    from .._snapshot import Snapshot


def compensation_for(
    snapshot: Snapshot,
    labels: Sequence[Label],
    how: Compensate | str,
    calibration: Iterable[Any] | None = None,
) -> Compensated:
    """The new weights and biases for a cut of these labels.

    Args:
        snapshot: the model.
        labels: what will be removed.
        how: see :class:`Compensate`.
        calibration: samples, as for criteria; None for the snapshot's own inputs.

    Raises:
        LabelError: for labels that do not fit the model, or an unknown way.
        ScoreError: if the calibration data is empty.
    """
    how = Compensate(how)
    removed = removed_positions(snapshot.structure, labels)
    if not removed:
        return Compensated()
    # A label that stays as zeros, for a balance's sake, gives nothing either.
    keep = {axis: np.setdiff1d(np.arange(axis.size), [*gone]) for axis, gone in removed.items()}
    own = calibration is None
    moments = collect_moments(
        snapshot,
        [(snapshot.args, snapshot.kwargs)] if calibration is None else calibration,
        products=how is Compensate.LEAST_SQUARES,
        sample_to_model_inputs=(lambda inputs: inputs) if own else None,
    )
    return compensations(snapshot, keep, moments, how)


@contextmanager
def compensated(model: nn.Module, change: Compensated, *, inplace: bool) -> Generator[None]:
    """The model with its new values while the body runs; kept only if it is cut in place and succeeds."""
    owned = {name: tensor for _, name, tensor in owned_tensors(model)} if change.values else {}
    before = {name: owned[name].detach().clone() for name in change.values if name in owned}
    keep = False
    try:
        for name in before:
            _write(owned[name], change.values[name])
        yield
        keep = inplace
    finally:
        if not keep:
            for name, value in before.items():
                _write(owned[name], value)


def _write(tensor: torch.Tensor, value: torch.Tensor) -> None:
    tensor.detach().copy_(value)  # rounds to the tensor's own type


def create_biases(model: nn.Module, change: Compensated, plan: Plan) -> None:
    """Give the layers of a model that has been cut the biases that they lacked, at their size now."""
    if not change.values:
        return
    owned = {name for _, name, _ in owned_tensors(model)}
    positions = {name: tensor.positions for tensor in plan.tensors for name in tensor.names}
    for name, value in change.values.items():
        if name in owned:
            continue
        path = name.rpartition(".")[0]
        module = model.get_submodule(path)
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        rows = positions.get(f"{path}.weight".lstrip("."), (None,))[0]
        stay = value if rows is None else value[torch.from_numpy(rows)]
        module._parameters["bias"] = nn.Parameter(stay.to(weight), requires_grad=weight.requires_grad)
