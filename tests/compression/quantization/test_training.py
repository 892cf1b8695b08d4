"""Quantisers in training, alone and with pruners and distillers: one run, one clock, kept state."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.pruning.nets import SIDE, SimpleTorchModel
from compression.quantization.nets import EVERYTHING, Residual, entry, evaluator_for, images, trained_like
from secateur._errors import QuantizationError
from secateur.compression import TorchEvaluator
from secateur.compression.distillation import DynamicLayerwiseDistiller
from secateur.compression.pruning import AGPPruner, L1NormPruner, SlimPruner, TaylorPruner
from secateur.compression.quantization import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqPlusQuantizer,
    LsqQuantizer,
    PtqQuantizer,
    QATQuantizer,
    Quantizer,
)

PRUNE = [{"op_names": ["c1", "c2"], "sparse_ratio": 0.5, "dependency_group_id": "auto"}]


def test_values_are_rounded_from_the_start_step_on() -> None:
    net = trained_like()
    quantizer = QATQuantizer(net, EVERYTHING, evaluator_for(net), quant_start_step=3)
    seen: list[bool] = []

    own = net._modules["c1"]
    assert own is not None
    handle = net.register_forward_hook(
        lambda *_: seen.append(own.weight.unique().numel() < own._parameters["weight"].unique().numel())
    )
    model, config = quantizer.compress(max_steps=5)
    handle.remove()
    assert seen == [False] * 3 + [True] * 2
    assert model is net and set(config) == {"c1", "c2", "fc"}
    assert set(config["c1"]) == {"_input_0", "weight", "_output_0"}


def test_the_weights_of_the_end_are_in_range() -> None:
    net = trained_like()
    quantizer = QATQuantizer(net, EVERYTHING, evaluator_for(net, torch.optim.SGD(net.parameters(), 1.0)))
    _, config = quantizer.compress(max_steps=2)
    least, most = config["fc"]["weight"]["tracked_min"], config["fc"]["weight"]["tracked_max"]
    weight = net.fc._parameters["weight"]
    assert torch.equal(least, weight.amin(1, keepdim=True)) and torch.equal(
        most, weight.amax(1, keepdim=True)
    )


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer])
def test_the_evaluator_trains_learned_scales_and_forgets_them(kind: Any) -> None:
    net = trained_like()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    quantizer = kind(net, EVERYTHING, evaluator_for(net, optimizer))
    before = len(optimizer.param_groups[0]["params"])
    start = quantizer.get_calibration_config()["fc"]["weight"]["scale"]
    quantizer.compress(max_steps=3)
    assert not torch.equal(quantizer.get_calibration_config()["fc"]["weight"]["scale"], start)
    assert len(optimizer.param_groups[0]["params"]) == before == len(optimizer.state)


def test_ptq_watches_the_evaluation_and_changes_no_weight() -> None:
    net = trained_like()
    before = copy.deepcopy(net.state_dict())
    quantizer = PtqQuantizer(net, EVERYTHING, evaluator_for(net))
    _, config = quantizer.compress()
    assert float(config["c1"]["_input_0"]["tracked_max"]) == float(images(32).max())
    quantizer.unwrap_model()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_ptq_after_a_training_watches_the_trained_model() -> None:
    net = trained_like()
    quantizer = PtqQuantizer(net, EVERYTHING, evaluator_for(net))
    _, config = quantizer.compress(max_steps=2)
    quantizer.unwrap_model()
    assert float(config["fc"]["_output_0"]["tracked_max"]) == pytest.approx(
        net.eval()(images(32)).max().item()
    )


# -- with others -----------------------------------------------------------------------------------

QUANTISERS: dict[str, Callable[..., Quantizer]] = {
    "qat": QATQuantizer.from_compressor,
    "ptq": PtqQuantizer.from_compressor,
    "lsq": LsqQuantizer.from_compressor,
    "lsq plus": LsqPlusQuantizer.from_compressor,
    "bnn": lambda other, config: BNNQuantizer.from_compressor(other, [entry(["c2"], "weight")]),
    "dorefa": lambda other, config: DoReFaQuantizer.from_compressor(
        other, [entry(["c2"], "_input_", "weight")]
    ),
}


@pytest.mark.parametrize("name", QUANTISERS)
def test_distiller_then_schedule_then_quantiser(name: str) -> None:  # [37]
    net = trained_like()
    teacher = copy.deepcopy(net)
    asked: list[int] = []

    def ask(batch: Any, model: nn.Module) -> Any:
        asked.append(1)
        return model(batch[0])

    distiller = DynamicLayerwiseDistiller(
        net, [{"op_names": ["c2"], "lambda": 0.5}], evaluator_for(net), teacher, ask
    )
    taylor = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=2)
    pruner = AGPPruner(taylor, interval_steps=3, total_times=2)
    quantizer = QUANTISERS[name](pruner, EVERYTHING)
    assert [type(c).__name__ for c in quantizer.fused_compressors] == [
        type(quantizer).__name__,
        "AGPPruner",
        "DynamicLayerwiseDistiller",
    ]
    quantizer.compress(max_steps=8)
    assert quantizer.steps == pruner.steps == distiller.steps == 8 and len(asked) == 8
    masks = pruner.get_masks()
    assert all(float((masks[layer]["weight"] == 0).float().mean()) == 0.5 for layer in ("c1", "c2"))
    gone = masks["c2"]["weight"] == 0
    assert (net.c2.weight[gone] == 0).all()
    assert all(
        torch.isfinite(e["scale"]).all()
        for t in quantizer.get_calibration_config().values()
        for e in t.values()
    )
    small, report = quantizer.speedup((images(2),), on_inexact="keep")
    assert net.c2.out_channels == 8 or net.c2.in_channels == 4 or report.stays
    assert torch.isfinite(net.eval()(images())).all() and small.bound_model is net


def test_a_pruner_and_a_distiller_made_from_a_quantiser() -> None:
    net = trained_like()
    quantizer = QATQuantizer(net, EVERYTHING, evaluator_for(net))
    pruner = L1NormPruner.from_compressor(quantizer, [{"op_names": ["c2"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress(max_steps=2)
    assert quantizer.steps == 2 and int(masks["c2"]["bias"].sum()) == 4
    assert (net.c2.weight[masks["c2"]["weight"] == 0] == 0).all()
    teacher = trained_like()
    distiller = DynamicLayerwiseDistiller.from_compressor(
        pruner, [{"op_names": ["fc"]}], teacher_model=teacher, teacher_predict=lambda b, m: m(b[0])
    )
    assert distiller.compress(max_steps=2) is net and quantizer.steps == 4


def test_masks_that_need_no_training_are_made_before_that_of_others() -> None:
    net = trained_like()
    pruner = L1NormPruner(net, PRUNE, evaluator_for(net))
    quantizer = QATQuantizer.from_compressor(pruner, EVERYTHING)
    quantizer.compress(max_steps=1)
    assert int(pruner.get_masks()["c1"]["weight"].flatten(1).any(1).sum()) == 4


def test_a_training_too_short_for_an_older_one_is_refused() -> None:
    net = trained_like()
    taylor = TaylorPruner(net, PRUNE, evaluator_for(net), training_steps=5)
    quantizer = QATQuantizer.from_compressor(taylor, EVERYTHING)
    with pytest.raises(
        ValueError, match=r"max_steps=4 is over before TaylorFOWeightPruner is done.*at least 5"
    ):
        quantizer.compress(max_steps=4)


def test_what_slimming_learned_is_in_the_weights_when_a_quantiser_unwraps() -> None:
    net = trained_like()
    slim = SlimPruner(net, [{"op_names": ["fc"], "sparse_ratio": 0.2}], evaluator_for(net), training_steps=4)
    quantizer = QATQuantizer.from_compressor(slim, [entry(["c1"], "weight")])
    quantizer.compress(max_steps=4)
    factor = next(iter(slim._added.values())).detach().clone()
    assert not torch.equal(factor, torch.ones_like(factor))
    weight = net.fc._parameters["weight"].detach().clone()
    quantizer.unwrap_model()
    assert torch.allclose(net.fc.weight, weight * factor[:, None])


# -- going on later --------------------------------------------------------------------------------


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, quantizer: Quantizer, numbers: range) -> None:
    x, labels = images(32), torch.arange(32) % 5
    net.train()
    for number in numbers:
        part = slice(number % 4 * 8, number % 4 * 8 + 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[part]), labels[part]).backward()
        optimizer.step()
        for compressor in quantizer.fused_compressors:
            compressor.step()


def fresh(kind: Any) -> tuple[Residual, Any, Quantizer]:
    net = trained_like()
    pruner = AGPPruner(L1NormPruner(net, PRUNE, dummy_input=images(2)), 2, 3)
    quantizer = kind.from_compressor(pruner, EVERYTHING)
    return net, torch.optim.Adam(net.parameters(), 1e-2), quantizer


@pytest.mark.parametrize("kind", [QATQuantizer, LsqQuantizer, LsqPlusQuantizer])
def test_an_interrupted_training_ends_the_same(kind: Any) -> None:
    net, optimizer, quantizer = fresh(kind)
    steps(net, optimizer, quantizer, range(8))
    first = fresh(kind)
    steps(*first, range(5))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    again = fresh(kind)
    for part, state in zip(again, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    steps(*again, range(5, 8))
    assert torch.equal(again[0].eval()(images()), net.eval()(images()))
    ours, theirs = quantizer.get_calibration_config(), again[2].get_calibration_config()
    assert all(torch.equal(ours[m][n]["scale"], theirs[m][n]["scale"]) for m in ours for n in ours[m])


def test_ranges_are_watched_from_a_step_on() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4))
    entry = {"op_types": ["Linear"], "target_names": ["_input_", "weight"], "quant_dtype": "int8"}
    quantizer = QATQuantizer(net, [entry], quant_start_step=3, watch_start_step=2)
    scales, rounded = [], []
    for size in (1.0, 2.0, 3.0, 4.0):
        net(torch.full((2, 4), size))
        known = quantizer.get_calibration_config()["0"].get("_input_0")
        scales.append(None if known is None else float(known["tracked_max"]))
        rounded.append(not torch.equal(net[0].weight, net[0]._parameters["weight"]))
        quantizer.step()
    assert scales[:2] == [None, None]
    assert scales[2:] == [3.0, pytest.approx(0.99 * 3 + 0.01 * 4)]
    assert rounded == [False, False, False, True]
    again = QATQuantizer(nn.Sequential(nn.Linear(4, 4)), [entry], quant_start_step=3, watch_start_step=2)
    again.load_state_dict(quantizer.state_dict())
    again.bound_model(torch.full((2, 4), 100.0))
    later = again.get_calibration_config()["0"]["_input_0"]["tracked_max"]
    assert float(later) > 3.5, "a quantiser that goes on goes on watching"
    with pytest.raises(QuantizationError, match="from 0 to quant_start_step=1"):
        QATQuantizer(net, [entry], quant_start_step=1, watch_start_step=2)


# -- the reference net of NNI ----------------------------------------------------------------------

S_CONFIG = [
    {
        "op_names": ["fc1", "fc2"],
        "target_names": ["weight"],
        "quant_dtype": "int8",
        "quant_scheme": "affine",
        "granularity": "in_channel",
    },
    {
        "op_names": ["conv1", "conv2", "conv3"],
        "target_names": ["_input_", "weight", "_output_"],
        "quant_dtype": "int8",
        "quant_scheme": "affine",
        "fuse_names": [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")],
    },
]


@pytest.mark.parametrize(
    "kind", [QATQuantizer, PtqQuantizer, LsqQuantizer, LsqPlusQuantizer, DoReFaQuantizer, BNNQuantizer]
)
@pytest.mark.filterwarnings("ignore:.*LsqQuantizer has no zero point")
def test_every_quantiser_on_net_s(kind: Any) -> None:  # [35]
    torch.manual_seed(0)
    net = SimpleTorchModel()
    x, labels = torch.randn(64, 1, SIDE, SIDE), torch.arange(64) % 10
    x = x + labels[:, None, None, None] / 4
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def train(model: nn.Module, optimizers: Any, step: Any, schedulers: Any, steps: Any, epochs: Any) -> None:
        model.train()
        for _ in range(steps if steps is not None else 10 * epochs):
            optimizer.zero_grad()
            step((x, labels), model).backward()
            optimizer.step()

    def loss(batch: Any, model: nn.Module) -> Tensor:
        return nn.functional.nll_loss(model(batch[0]), batch[1])

    evaluator = TorchEvaluator(
        train, optimizer, loss, dummy_input=x[:2], evaluating_func=lambda m: -float(m(x).var())
    )
    train(net, None, loss, None, 30, None)
    before = loss((x, labels), net).item()
    config = S_CONFIG
    if kind is DoReFaQuantizer:  # outputs of norms are none that it can cut to [0, 1]
        config = [S_CONFIG[0], {**S_CONFIG[1], "target_names": ["_input_", "weight"]}]
    _, found = kind(net, config, evaluator).compress(None, 2)
    assert set(found) == {"fc1", "fc2", "conv1", "conv2", "conv3"}
    assert kind is BNNQuantizer or found["fc1"]["weight"]["scale"].numel() in (1, 32 * (SIDE - 4) ** 2)
    after = loss((x, labels), net).item()
    if kind not in (BNNQuantizer, DoReFaQuantizer):
        assert after < max(before, 0.05) * 2, (before, after)
