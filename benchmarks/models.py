"""Third-party models with random weights, by name, as ``torchvision/resnet50`` or ``transformers/bert``.

Inputs are the smallest that a model's code accepts without another structure: a benchmark over
many models has to be affordable on two cores, and no group depends on the number of pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Loaded:
    """A model in eval mode with the inputs that it is called with."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def forward(self) -> Any:
        """One call of the model without gradients."""
        with torch.no_grad():
            return self.model(*self.args, **self.kwargs)


def load(name: str, seed: int = 0, side: int | None = None) -> Loaded:
    """Build a model, draw its inputs, and take everything special out of its initial values.

    Args:
        name: library and model.
        seed: of weights and inputs.
        side: height and width of an image, where the model takes any; default: small.

    Raises:
        ValueError: for a library that is not one of the three.
    """
    library, _, model = name.partition("/")
    loaders = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
    side = side or 128
    if library not in loaders:
        raise ValueError(f"{name!r} does not begin with one of {', '.join(loaders)}")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated constructors: other people's
        loaded = loaders[library](model, side)
    loaded.model.eval()
    randomise(loaded.model, seed)
    return loaded


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give normalisation statistics, affine parameters and constant parameters random values.

    A head, a layer scale or a bias that is initialised to zeros hides whatever comes before it, and
    ones and zeros in a norm hide what a cut does to it: comparisons would pass that should not.
    Weights that start as draws keep their values, scaled up where they start so small (0.02 at a width
    of 64, say) that what is behind them would hardly be seen in the outputs.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and _is_special(parameter):
                parameter.copy_(_affine(name, parameter, draw))
            elif parameter.is_floating_point():
                parameter.mul_(max(1.0, _usual(parameter) / float(parameter.std().clamp_min(1e-12))))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return model


def _is_special(parameter: torch.Tensor) -> bool:
    constant = parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
    return parameter.dim() <= 1 or constant


def _affine(name: str, parameter: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    if parameter.dim() >= 2:  # a weight that starts at zero: a draw of the usual size for its fan-in
        return torch.randn(parameter.shape, generator=draw) * _usual(parameter)
    if name.endswith("bias"):
        return torch.randn(parameter.shape, generator=draw) * 0.1
    return torch.rand(parameter.shape, generator=draw) * 0.5 + 0.5


def _usual(parameter: torch.Tensor) -> float:
    """Deviation of a weight that keeps a signal alive: one over the root of its fan-in."""
    return min(0.5, max(1, parameter[0].numel()) ** -0.5)


# -- torchvision -----------------------------------------------------------------------------------

_DETECTORS = ("rcnn", "fcos", "retinanet", "ssd")
_VIDEOS: Mapping[str, tuple[int, ...]] = {
    # One clip: channels, frames, height, width.
    "mvit_": (3, 16, 224, 224),
    "swin3d_": (3, 4, 64, 64),
    "s3d": (3, 16, 224, 224),
    "r3d_": (3, 8, 64, 64),
    "mc3_": (3, 8, 64, 64),
    "r2plus1d_": (3, 8, 64, 64),
}
_FIXED_224 = ("vit_", "maxvit_")


def _torchvision(name: str, side: int) -> Loaded:
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    if "deeplab" in name or "fcn_" in name or "lraspp" in name or any(d in name for d in _DETECTORS):
        options["weights_backbone"] = None
    if any(d in name for d in _DETECTORS):
        if "ssd" not in name:
            options |= {"min_size": 128, "max_size": 160}
        # Random scores are low; without a threshold there are boxes to compare.
        options["box_score_thresh" if "rcnn" in name else "score_thresh"] = 0.0
        side = 300 if name == "ssd300_vgg16" else 320 if "ssd" in name else side
        return Loaded(models.get_model(name, **options), ([torch.rand(3, side, side)],))
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": True, "aux_logits": True}
    model = models.get_model(name, **options)
    if name.startswith("raft"):
        frames = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)
        return Loaded(model, frames, {"num_flow_updates": 3})
    for family, clip in _VIDEOS.items():
        if name.startswith(family):
            return Loaded(model, (torch.randn(1, *clip),))
    side = 224 if name.startswith(_FIXED_224) else side
    return Loaded(model, (torch.randn(1, 3, side, side),))


# -- timm ------------------------------------------------------------------------------------------

_TIMM_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_vit_412m": {"depth": 2},
    "samvit_base_patch16": {"img_size": 224},
}
_TIMM_SIDES = {
    "deepseek_vit_412m": 112,
    "samvit_base_patch16": 224,
    "sam2_hiera_tiny": 224,
    "gemma4_vit_167m": 96,
    "naflexvit_base_patch16_siglip": 128,
}


def _timm(name: str, side: int) -> Loaded:
    import timm

    fixed = _TIMM_SIDES.get(name)
    model = timm.create_model(name, pretrained=False, **_TIMM_OPTIONS.get(name, {}))
    settings = timm.get_pretrained_cfg(name)
    channels, height, width = settings.input_size
    least = settings.min_input_size or (channels, side, side)
    if fixed is not None:
        height = width = fixed
    elif not settings.fixed_input_size:
        height, width = min(height, max(side, least[1])), min(width, max(side, least[2]))
    return Loaded(model, (torch.randn(1, channels, height, width),))


# -- transformers ----------------------------------------------------------------------------------


def _transformers(name: str, side: int) -> Loaded:
    import tiny_transformers

    return Loaded(*tiny_transformers.build(name))
