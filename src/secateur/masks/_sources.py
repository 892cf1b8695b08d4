"""Where masks come from: files, the hooks of ``torch.nn.utils.prune``, zeros in the weights."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from .._errors import MaskError
from ._targets import Masks, canonical_names, compact


def read_masks(path: str | Path, map_location: Any = None) -> dict[str, dict[str, Tensor | None]]:
    """The masks in a file: a ``torch.save`` of the dict, or safetensors with ``module.target`` keys.

    Nothing but tensors, containers and numbers is unpickled.

    Raises:
        MaskError: if there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MaskError(f"there is no mask file {str(path)!r}")
    if path.suffix == ".safetensors":
        return _from_safetensors(path, map_location)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign pickle: the error says all there is to say
            masks = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise MaskError(
            f"{str(path)!r} is no mask file ({type(error).__name__}). Expected torch.save of a dict "
            "{module: {target: tensor}}; other objects are not unpickled."
        ) from error
    if not isinstance(masks, dict) or not all(isinstance(v, dict) for v in masks.values()):
        raise MaskError(
            f"{str(path)!r} holds a {type(masks).__name__}, not a dict {{module: {{target: tensor}}}}"
        )
    return masks


def _from_safetensors(path: Path, map_location: Any) -> dict[str, dict[str, Tensor | None]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, (str, int, torch.device)) else "cpu"
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, ValueError) as error:
        raise MaskError(f"{str(path)!r} is no safetensors file ({error})") from error
    masks: dict[str, dict[str, Tensor | None]] = {}
    for key, mask in tensors.items():
        module, _, target = key.rpartition(".")
        masks.setdefault(module, {})[target] = mask
    return masks


def pruned_parameters(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """(path, module, name) of every parameter that ``torch.nn.utils.prune`` masks."""
    found = []
    for path, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                found.append((path, module, hook._tensor_name))
    return list(dict.fromkeys(found))


def prune_masks(model: nn.Module) -> dict[str, dict[str, Tensor | None]]:
    """The masks that ``torch.nn.utils.prune`` left on a model, as they are written there."""
    masks: dict[str, dict[str, Tensor | None]] = {}
    for path, module, name in pruned_parameters(model):
        masks.setdefault(path, {})[name] = module._buffers[f"{name}_mask"]
    return masks


def zero_masks(model: nn.Module) -> Masks:
    """Every parameter element that is exactly zero, taken for masked."""
    masks = Masks()
    names = canonical_names(model)
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise MaskError(f"{name} is on the meta device: it has no zeros to take for masks")
        keep = parameter.detach() != 0
        if not bool(keep.all()):
            masks.add(names[name], compact(keep).expand(keep.shape))
            module, _, target = name.rpartition(".")
            masks.targets.append((module, target, 1.0 - float(keep.double().mean())))
    return masks
