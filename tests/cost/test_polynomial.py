"""Computed cost against what is counted on models that were really cut."""

import random
import time
import timeit

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur import GlobalScoreLabelSelector, LabelError, PruningIR
from secateur.cost import (
    Macs,
    count_macs,
    count_parameters,
    mac_cost,
    mac_savings,
    parameter_cost,
    settled_widths,
)
from secateur.cost._settle import Settling

MODELS = {
    "resnet18": lambda: torchvision.models.resnet18(weights=None),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(weights=None),
    "densenet121": lambda: torchvision.models.densenet121(weights=None),
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(weights=None),
    "regnet_y_400mf": lambda: torchvision.models.regnet_y_400mf(weights=None),
}


def cut_at_random(ir: PruningIR, seed: int) -> tuple[dict[str, int], nn.Module]:
    draw = random.Random(seed)
    labels = [label for g in ir.groups() for label in draw.sample(g.labels, draw.randrange(g.size // 2 + 1))]
    small = ir.prune(labels=labels, verify=False)
    removed = small.report.plan.removed
    return {g.name: g.size - removed.get(g.name, 0) for g in ir.groups()}, small.model


def counted_macs(model: nn.Module, *args: torch.Tensor) -> float:
    """By torch's own counter, which counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*args)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", MODELS)
def test_images(name):
    x = torch.randn(1, 3, 64, 64)
    ir = PruningIR(MODELS[name]())
    structure = ir.create_snapshot("main", args=(x,)).structure
    macs, parameters = mac_cost(structure), parameter_cost(structure)
    assert macs.full == count_macs(structure.analysis) == counted_macs(ir.model, x)
    for seed in range(2):
        widths, model = cut_at_random(ir, seed)
        assert macs(widths) == counted_macs(model, x)
        assert parameters(widths) == sum(p.numel() for p in model.parameters())


def test_attention_products_are_included():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=24, num_attention_heads=4, intermediate_size=40, vocab_size=30
    )
    config._attn_implementation = "eager"  # torch's counter does not know fused attention on a CPU
    tokens = torch.randint(0, 30, (2, 7))
    ir = PruningIR(transformers.BertModel(config))
    structure = ir.create_snapshot("main", kwargs={"input_ids": tokens}).structure
    macs = mac_cost(structure)
    assert macs.full == counted_macs(ir.model, tokens)
    for seed in range(3):
        widths, model = cut_at_random(ir, seed)
        assert macs(widths) == counted_macs(model, tokens)
        assert parameter_cost(structure)(widths) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_vision_transformers(library):
    args = (torch.randn(1, 3, 32, 32),)
    ir = PruningIR(vision_transformer(library))
    structure = ir.create_snapshot("main", args=args).structure
    macs, bound = mac_cost(structure), Macs().bind(ir.snapshot())
    assert any(group.role == "heads" for group in ir.groups())
    with sdpa_kernel(SDPBackend.MATH):  # in products, which torch's counter knows
        assert macs.full == counted_macs(ir.model, *args)
        for seed in range(2):
            widths, model = cut_at_random(ir, seed)
            assert macs(widths) == bound(widths) == counted_macs(model, *args)
            assert parameter_cost(structure)(widths) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_modules_in_either_order(batch_first):
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=batch_first)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.attention(x, y, y, need_weights=False)[0]

    x, y = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    if not batch_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    structure = PruningIR(Attending()).create_snapshot("main", args=(x, y)).structure
    projections = 2 * (5 + 7 + 7 + 5) * 12 * 12
    assert mac_cost(structure).full == projections + 2 * 2 * 5 * 7 * 12


def vision_transformer(library: str) -> nn.Module:
    if library == "timm":
        timm = pytest.importorskip("timm")
        shape = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
        return timm.models.vision_transformer.VisionTransformer(32, 8, **shape)
    if library == "torchvision":
        return torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 40, num_classes=5)
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=32,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


def test_a_cost_is_looked_up_in_microseconds():
    ir = PruningIR(torchvision.models.resnet50(weights=None))
    cost = Macs().bind(ir.create_snapshot("main", args=(torch.zeros(1, 3, 64, 64),)))
    widths = {group.name: group.size // 2 for group in ir.groups()}
    seconds = min(timeit.repeat(lambda: cost(widths), number=20, repeat=10, timer=time.process_time)) / 20
    assert seconds < 1e-4  # about ten microseconds


def test_a_width_that_would_be_squeezed_away_is_not_offered():
    class Squeezing(nn.Module):
        """Drops all dimensions of size 1: a single channel would be dropped with them."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.squeeze(self.body(x).mean((2, 3), keepdim=True)))

    ir = PruningIR(Squeezing())
    structure = ir.create_snapshot("main", args=(torch.randn(2, 3, 6, 6),)).structure
    assert settled_widths(structure, {"body": 1}) == Settling(structure)({"body": 1}) == {"body": 2}
    labels = GlobalScoreLabelSelector(7).select(ir)
    assert len(labels) == 6
    assert not ir.prune(labels=labels).report.zeroed


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(6, 10, 2, bidirectional=True),
        nn.Sequential(nn.Conv1d(6, 10, 3), nn.ReLU(), nn.ConvTranspose1d(10, 4, 3)),
        nn.Sequential(nn.Conv1d(6, 12, 3, groups=3), nn.GroupNorm(4, 12), nn.Conv1d(12, 2, 1)),
    ],
    ids=["lstm", "transposed", "groups"],
)
def test_polynomials_agree_with_keep_sets(model):
    x = torch.randn(5, 6, 6) if not isinstance(model, nn.LSTM) else torch.randn(5, 2, 6)
    ir = PruningIR(model)
    structure = ir.create_snapshot("main", args=(x,)).structure
    for seed in range(3):
        draw = random.Random(seed)
        labels = [x for g in ir.groups() for x in draw.sample(g.labels, draw.randrange(g.size))]
        report = ir.prune(labels=labels, verify=False).report
        widths = {g.name: g.size - report.plan.removed.get(g.name, 0) for g in ir.groups()}
        assert mac_cost(structure)(widths) == count_macs(structure.analysis, report.plan.keep)
        assert parameter_cost(structure)(widths) == count_parameters(structure.analysis, report.plan.keep)


def test_savings_are_what_one_label_takes_off():
    ir = PruningIR(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)))
    structure = ir.create_snapshot("main", args=(torch.ones(7, 3),)).structure
    assert mac_savings(structure) == {"0": 7 * (3 + 4), "1": 7 * (5 + 2)}


def test_unknown_groups_are_refused():
    ir = PruningIR(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)))
    structure = ir.create_snapshot("main", args=(torch.ones(7, 3),)).structure
    with pytest.raises(LabelError, match="there is no group 'x'"):
        mac_cost(structure)({"x": 1})
    with pytest.raises(LabelError, match="there is no group 'x'"):
        settled_widths(structure, {"x": 1})


def test_a_tied_parameter_counts_once():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    model[1].weight = model[0].weight
    structure = PruningIR(model).create_snapshot("main", args=(torch.zeros(2, dtype=torch.long),)).structure
    assert parameter_cost(structure).full == 36
