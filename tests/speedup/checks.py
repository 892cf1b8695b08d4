"""What the tests of speed-ups share: networks with nothing special in them, and the comparison."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import secateur

Masks = Mapping[str, Mapping[str, Tensor]]


def randomise(model: nn.Module) -> nn.Module:
    """Draw everything that starts as a constant: zeros and ones hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1:
                parameter.uniform_(0.3, 1.0).mul_(torch.randint(0, 2, parameter.shape) * 2 - 1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.5)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def rows(module: Any, gone: list[int], *, bias: bool = False) -> dict[str, Tensor]:
    """Masks that hide output channels of a layer."""
    mask = torch.ones_like(module.weight)
    mask[gone] = 0
    masks = {"weight": mask}
    if bias:
        masks["bias"] = torch.ones_like(module.bias)
        masks["bias"][gone] = 0
    return masks


def columns(module: Any, gone: list[int]) -> dict[str, Tensor]:
    """Masks that hide input channels of a layer."""
    mask = torch.ones_like(module.weight)
    mask[:, gone] = 0
    return {"weight": mask}


def masked_copy(model: nn.Module, masks: Masks) -> nn.Module:
    """What a user means by the masked model: masks multiplied into a copy's parameters."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for path, targets in masks.items():
            for target, mask in targets.items():
                getattr(model.get_submodule(path), target).mul_(mask)
    return model


def error(reference: nn.Module, small: nn.Module, *args: Any, **kwargs: Any) -> float:
    """Largest relative error over the given inputs and three random draws."""
    return secateur.verify(reference, small, args, kwargs, draws=4, seed=7).error


def speed_up(model: nn.Module, masks: Masks, *args: Any, **options: Any) -> secateur.SpeedupReport:
    """Speed up in place, and compare with the masked model without asking the library."""
    reference = masked_copy(model, masks)
    report = secateur.speedup(model, args, masks=masks, **options)
    found = error(reference, model, *args)
    if report.exact:
        assert found < 1e-5, (found, str(report))
    else:
        assert 0.5 * report.error < found < 2 * report.error, (found, report.error)
    return report
