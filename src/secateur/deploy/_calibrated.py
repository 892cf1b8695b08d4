"""The easy way: calibrate a float model on batches, for the kernels that a runtime has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..capture import copy_with, like, unwrap
from ..compression.quantization import PtqQuantizer
from ._config_list import int8_config_list

Calibration = Iterable[Any]
"""Batches, as for criteria."""


def calibrated(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batches: Calibration
) -> nn.Module:
    """A copy of the model that simulates 8 bits at the ranges seen in ``batches``, with biases corrected.

    Raises:
        QuantizationError: if there is no batch.
    """
    copied = copy_with(unwrap(model), lambda source, name, tensor: like(tensor.detach().clone(), tensor))
    quantizer = PtqQuantizer(copied, int8_config_list(copied, args, kwargs), is_bias_correction=True)
    with torch.no_grad():
        quantizer.calibrate(batches)
    return quantizer.bound_model
