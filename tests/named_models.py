"""Models that nobody here wrote: those named under the figures of the project's first issues.

Random weights from small configurations or from the libraries' own, never a download. Inputs are as
small as each model takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Named:
    """A model and the inputs to run it on."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def from_torchvision(name: str, size: int = 64, **settings: Any) -> Named:
    """A classifier at ``size`` x ``size``."""
    import torchvision

    model = torchvision.models.get_model(name, weights=None, **settings)
    return Named(model, (torch.randn(1, 3, size, size),))


def detector(name: str, size: int = 320) -> Named:
    """A detector, which takes a list of images."""
    import torchvision

    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return Named(model, ([torch.rand(3, size, size)],))


def from_timm(name: str, size: int = 64, **settings: Any) -> Named:
    """A classifier at ``size`` x ``size``."""
    import timm

    return Named(timm.create_model(name, **settings), (torch.randn(1, 3, size, size),))


def from_transformers(model: str, config: str, **settings: Any) -> Named:
    """A language model: 2 layers, hidden 64, 4 heads, feed-forward 128, vocabulary 128."""
    import transformers

    made = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return Named(made, (), {"input_ids": torch.randint(0, 128, (2, 12))})


_COMMON = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 128,
}

NAMED: dict[str, Callable[[], Named]] = {
    **{
        name: partial(from_torchvision, name)
        for name in (
            "resnet18", "resnet50", "vgg16_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
            "shufflenet_v2_x1_0", "regnet_y_800mf", "efficientnet_v2_s", "squeezenet1_1", "swin_t",
        )
    },
    "googlenet": partial(from_torchvision, "googlenet", init_weights=False, aux_logits=False),
    "vit_b_16": partial(from_torchvision, "vit_b_16", image_size=64),
    "ssdlite320_mobilenet_v3_large": partial(detector, "ssdlite320_mobilenet_v3_large"),
    "convnext_atto": partial(from_timm, "convnext_atto"),
    "ghostnet_050": partial(from_timm, "ghostnet_050"),
    "vit_xsmall_patch16_clip_224": partial(from_timm, "vit_xsmall_patch16_clip_224", img_size=64),
    "bert": partial(
        from_transformers, "BertForSequenceClassification", "BertConfig", **_COMMON,
    ),
    "gpt2": partial(
        from_transformers, "GPT2LMHeadModel", "GPT2Config",
        n_layer=2, n_embd=64, n_head=4, n_inner=128, vocab_size=128,
    ),
    "llama": partial(
        from_transformers, "LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, **_COMMON,
    ),
}  # fmt: skip

SLOW = ("resnet50", "vgg16_bn", "efficientnet_v2_s", "vit_b_16")
"""Too big for the tests that run on every change; the others represent them there."""
