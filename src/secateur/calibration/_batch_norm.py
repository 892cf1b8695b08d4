"""Statistics of BatchNorm layers, estimated again after a cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._errors import ScoreError
from ..criteria import ToInputs, model_inputs


def recalibrate_batchnorm(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    batches: int | None = None,
    sample_to_model_inputs: ToInputs | None = None,
) -> int:
    """Estimate mean and variance of every BatchNorm layer anew, in place.

    The layers run with the statistics of the batch, everything else in eval mode, and the means over
    all batches become the running statistics. Weights and training flags stay as they are.

    Source: for pruned networks, Li et al., "EagleEye" (ECCV 2020).

    Args:
        model: the model.
        loader: samples, as for criteria: dicts are keyword arguments, tuples positional ones.
        batches: stop after so many.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.

    Returns:
        The number of layers.

    Raises:
        ScoreError: if the model has such layers and there is no batch.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
        >>> recalibrate_batchnorm(model, torch.randn(5, 32, 3))
        1
        >>> bool(model(torch.randn(1000, 3)).mean().abs() < 0.5)
        True
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    flags = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    count = 0
    to_inputs = sample_to_model_inputs or (lambda sample: model_inputs(model, sample))
    try:
        for module, _ in flags:
            module.training = False
        for layer in layers:
            layer.training, layer.momentum = True, None  # None: the plain mean over all batches
            layer.reset_running_stats()
        with torch.no_grad():
            for sample in loader:
                if batches is not None and count >= batches:
                    break
                args, kwargs = to_inputs(sample)
                model(*args, **kwargs)
                count += 1
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in flags:
            module.training = training
    if not count:
        raise ScoreError("BatchNorm cannot be recalibrated without a batch: the loader gave none")
    return len(layers)
