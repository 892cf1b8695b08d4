"""Weights and masks in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def save_model(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Zero what is masked in the weights of a model, and write its state dict."""
    with torch.no_grad():
        for module, targets in masks.items():
            parameters = model.get_submodule(module)._parameters
            for name, mask in targets.items():
                parameter = parameters.get(name)
                if parameter is not None:
                    parameter.masked_fill_(mask == 0, 0)
    _save(model.state_dict(), path)


def save_masks(masks: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Write masks, as :func:`secateur.speedup` reads them."""
    if path.suffix == ".safetensors":
        _save({f"{module}.{name}": mask for module, t in masks.items() for name, mask in t.items()}, path)
    else:
        torch.save(masks, path)


def _save(tensors: dict[str, Any], path: Path) -> None:
    if path.suffix != ".safetensors":
        torch.save(tensors, path)
        return
    from safetensors.torch import save_file

    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
