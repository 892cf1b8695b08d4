"""Models that nobody here wrote, and masks that nobody designed: rows, columns, elements, whole groups."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from named_models import from_timm, from_torchvision, from_transformers
from oracle import randomise
from secateur.axes import labels_at
from secateur.capture import map_tensors
from speedup.checks import error, masked_copy

TINY = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 128}  # fmt: skip

MODELS: dict[str, Any] = {
    "mobilenet_v3_small": lambda: from_torchvision("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": lambda: from_torchvision("shufflenet_v2_x0_5"),
    "ghostnet_050": lambda: from_timm("ghostnet_050"),
    "convnext_atto": lambda: from_timm("convnext_atto"),
    "bert": lambda: from_transformers("BertModel", "BertConfig", **TINY),
    "llama": lambda: from_transformers("LlamaModel", "LlamaConfig", num_key_value_heads=2, **TINY),
    "squeezebert": lambda: from_transformers(
        "SqueezeBertModel", "SqueezeBertConfig", **TINY, embedding_size=32
    ),
    "resnet50": lambda: from_torchvision("resnet50"),
    "regnet_y_400mf": lambda: from_torchvision("regnet_y_400mf"),
    "swin_t": lambda: from_torchvision("swin_t"),
    "resnest14d": lambda: from_timm("resnest14d"),
    "xcit_nano_12_p8_224": lambda: from_timm("xcit_nano_12_p8_224", 224),
}
QUICK = ["shufflenet_v2_x0_5", "bert", "squeezebert"]


def masks_by_parameter(model: nn.Module, kind: str, seed: int) -> dict[str, dict[str, Tensor]]:
    """Masks of most parameters, each drawn on its own."""
    rng, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    masks: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        if rng.random() < 0.3 or not parameter.dim():
            continue
        keep = torch.rand(parameter.shape, generator=draw) > 0.9
        if kind == "slices":  # rows or columns, of any share
            dim = rng.randrange(parameter.dim())
            keep = torch.rand(parameter.shape[dim], generator=draw) > rng.random()
            keep = keep.reshape([-1 if d == dim else 1 for d in range(parameter.dim())])
        path, _, target = name.rpartition(".")
        masks.setdefault(path, {})[target] = keep
    return masks


def masks_by_group(model: nn.Module, args: Any, kwargs: Any, seed: int) -> dict[str, dict[str, Tensor]]:
    """A part of the labels of every group, in the rows of all parameters that have them."""
    snapshot = secateur.PruningIR(model).create_snapshot("main", args, kwargs)
    draw = torch.Generator().manual_seed(seed)
    gone = {group.axis: torch.rand(group.size, generator=draw) < 0.4 for group in snapshot.structure.groups}
    masks: dict[str, dict[str, Tensor]] = {}
    for value in snapshot.graph.values:
        if value.source.name != "PARAMETER" or not value.shape:
            continue
        dim = snapshot.analysis.dims_of(value.id)[0]
        keep = torch.ones(value.shape[0], dtype=torch.bool)
        for axis in gone.keys() & set(snapshot.analysis.algebra.leaves(dim)):
            labels = torch.from_numpy(labels_at(dim, axis))
            keep &= (labels < 0) | ~gone[axis][labels.clamp(min=0)]
        path, _, target = value.name.rpartition(".")
        masks.setdefault(path, {})[target] = keep.reshape(-1, *[1] * (len(value.shape) - 1))
    return masks


@pytest.mark.parametrize("kind", ["slices", "elements", "groups"])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_random_masks(name: str, kind: str) -> None:
    torch.manual_seed(0)
    named = MODELS[name]()
    model = randomise(named.model, 0).eval().double()
    args, kwargs = map_tensors(
        (named.args, named.kwargs), lambda t: t.double() if t.is_floating_point() else t
    )
    masks = masks_by_group(model, args, kwargs, 0) if kind == "groups" else masks_by_parameter(model, kind, 0)
    reference = masked_copy(model, masks)
    for on_inexact in ("keep", "fold"):
        small = copy.deepcopy(model)
        report = secateur.speedup(small, args, kwargs, masks, on_inexact=on_inexact)
        found = error(reference, small, *args, **kwargs)
        assert report.exact or on_inexact == "fold"
        if report.exact:
            assert found < 1e-9
        else:
            assert found == pytest.approx(report.error, rel=0.1)
        assert report.realised > 0.05 or report.stays
