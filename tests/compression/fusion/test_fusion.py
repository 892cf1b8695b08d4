"""Fused compression: several compressors of one model, one training, one clock."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from compression.pruning.nets import SIDE, SimpleTorchModel
from secateur.compression import LightningEvaluator, TorchEvaluator
from secateur.compression.distillation import Adaptive1dLayerwiseDistiller, DynamicLayerwiseDistiller, mse
from secateur.compression.pruning import AGPPruner, L1NormPruner, SlimPruner, TaylorPruner
from secateur.compression.quantization import LsqQuantizer, QATQuantizer, Quantizer

CONVOLUTIONS = ["conv1", "conv2", "conv3"]
DISTILL = [{"op_names": [*CONVOLUTIONS, "fc1"], "lambda": 0.75}]
PRUNE = [{"op_names": CONVOLUTIONS, "sparse_ratio": 0.75, "dependency_group_id": "auto"}]


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(32, 1, SIDE, SIDE, generator=generator)
    return list(zip(x.split(8), (torch.arange(32) % 10).split(8), strict=True))


def step(batch: Any, model: nn.Module) -> Tensor:
    return F.nll_loss(model(batch[0]), batch[1])


def ask(batch: Any, teacher: nn.Module) -> Any:
    return teacher(batch[0])


def torch_evaluator(model: nn.Module, rate: float = 0.01) -> TorchEvaluator:
    def train(model: nn.Module, optimizer: Any, step: Any, scheduler: Any, steps: Any, epochs: Any) -> None:
        model.train()
        data = batches()
        for at in range(steps or 4):
            optimizer.zero_grad()
            step(data[at % len(data)], model).backward()
            optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    return TorchEvaluator(train, optimizer, step, dummy_input=batches()[0][0])


def student(kind: str) -> nn.Module:
    """The reference network; for Lightning as a module of its own kind."""
    torch.manual_seed(0)
    if kind == "torch":
        return SimpleTorchModel()
    lightning = pytest.importorskip("lightning.pytorch")

    class Student(lightning.LightningModule, SimpleTorchModel):
        def training_step(self, batch: Any, index: int) -> Tensor:
            return step(batch, self)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)

    return Student()


def evaluator_for(kind: str, model: nn.Module, folder: Any) -> TorchEvaluator | LightningEvaluator:
    if kind == "torch":
        return torch_evaluator(model)
    lightning = pytest.importorskip("lightning.pytorch")
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=str(folder),
    )  # fmt: skip
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 8)
    return LightningEvaluator(trainer, loader, dummy_input=images[:8])


def kept(mask: Tensor) -> float:
    return mask.flatten(1).amax(1).mean().item()


# -- how losses compose ----------------------------------------------------------------------------


def test_the_newest_loss_is_the_innermost() -> None:
    model, first, second = student("torch"), student("torch"), student("torch")
    with torch.no_grad():
        first.fc1.bias += 1.0
        second.fc1.bias += 3.0
    evaluator = torch_evaluator(model)
    old = DynamicLayerwiseDistiller(model, [{"op_names": ["fc1"]}], evaluator, first, ask, 0.5)
    new = DynamicLayerwiseDistiller.from_compressor(
        old,
        [{"op_names": ["fc1"], "lambda": 2}],
        teacher_model=second,
        teacher_predict=ask,
        origin_loss_lambda=0.25,
    )
    assert new.fused_compressors == [new, old]
    model.eval()
    batch = batches()[0]
    with evaluator.compressing(model, new.fused_compressors):
        loss = step(batch, model)
        total = evaluator.patched_loss(loss, batch)
    # The outputs of fc1 are 1 and 3 away from those of the teachers.
    inner = 0.25 * loss.item() + 2 * 3.0**2
    assert total.item() == pytest.approx(0.5 * inner + 1.0**2, rel=1e-5)


def test_an_older_distiller_scales_the_penalty_of_a_newer_pruner_and_not_the_other_way_round() -> None:
    penalties = []
    for order in ("distiller first", "pruner first"):
        model, teacher = student("torch"), student("torch")
        evaluator = torch_evaluator(model)
        config, slim = [{"op_names": ["fc1"]}], [{"op_names": ["fc1"], "sparse_ratio": 0.5}]
        if order == "distiller first":
            old = DynamicLayerwiseDistiller(model, config, evaluator, teacher, ask, 0.5)
            new: Any = SlimPruner.from_compressor(old, slim, training_steps=2)
        else:
            old = SlimPruner(model, slim, evaluator, training_steps=2)
            new = DynamicLayerwiseDistiller.from_compressor(
                old, config, teacher_model=teacher, teacher_predict=ask, origin_loss_lambda=0.5
            )
        with evaluator.compressing(model.eval(), new.fused_compressors):
            loss = step(batches()[0], model)
            penalties.append((evaluator.patched_loss(loss, batches()[0]) - 0.5 * loss).item())
    # 100 factors of one; student and teacher are the same, so nothing else is added.
    assert penalties == pytest.approx([0.5 * 100, 100], rel=1e-5)


# -- one run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["torch", pytest.param("lightning", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_distiller_then_taylor_then_agp_on_one_clock(kind: str, tmp_path: Any) -> None:
    model = student(kind)
    teacher = copy.deepcopy(model)
    evaluator = evaluator_for(kind, model, tmp_path)
    distiller = DynamicLayerwiseDistiller(model, DISTILL, evaluator, teacher, ask)
    taylor = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=4)
    pruner = AGPPruner(taylor, interval_steps=5, total_times=4)
    _, masks = pruner.compress(max_steps=24)
    assert [c.steps for c in pruner.fused_compressors] == [24, 24]
    assert [kept(masks[name]["weight"]) for name in CONVOLUTIONS] == [0.25] * 3
    pruner.unwrap_model()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    x = batches()[0][0]
    masked = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, targets in masks.items():
            for target, mask in targets.items():
                getattr(masked.get_submodule(name), target).mul_(mask)
    small = secateur.speedup(model.eval(), (x,), masks=masks, on_inexact="keep")
    assert model.conv1.out_channels == 4 and model.conv3.out_channels == 8, small
    assert torch.allclose(model(x), masked(x), atol=1e-5)


def test_a_pruner_then_a_distiller_sees_masked_outputs() -> None:
    model = student("torch")
    teacher = copy.deepcopy(model).eval()
    evaluator = torch_evaluator(model)
    pruner = L1NormPruner(model, PRUNE, evaluator)
    pruner.compress()
    distiller = DynamicLayerwiseDistiller.from_compressor(
        pruner, [{"op_names": ["conv3"]}], teacher_model=teacher, teacher_predict=ask
    )
    x = batches()[0][0]
    output = model.eval()(x)
    found = distiller.distances((x, None))
    with torch.no_grad():
        expected = mse(model.conv3(model.bn1(model.conv1(x))), teacher.conv3(teacher.bn1(teacher.conv1(x))))
    assert output.isfinite().all()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    masks = {name: targets["weight"].clone() for name, targets in pruner.get_masks().items()}
    distiller.compress(max_steps=6)
    assert [c.steps for c in distiller.fused_compressors] == [6, 6]
    assert all(torch.equal(mask, pruner.get_masks()[name]["weight"]) for name, mask in masks.items())


def test_a_projection_and_a_schedule_go_on_together_after_an_interruption() -> None:
    def chain(model: nn.Module, evaluator: TorchEvaluator) -> AGPPruner:
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU())
        config = [{"op_names": ["conv1"], "link": "0"}]
        distiller = Adaptive1dLayerwiseDistiller(model, config, evaluator, teacher, ask)
        taylor = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=2)
        return AGPPruner(taylor, interval_steps=4, total_times=2)

    whole = student("torch")
    chain(whole, torch_evaluator(whole)).compress(max_steps=8)

    parts = student("torch")
    evaluator = torch_evaluator(parts)
    first = chain(parts, evaluator)
    with evaluator.compressing(parts, first.fused_compressors):
        evaluator.train(max_steps=4)
        optimizer = copy.deepcopy(evaluator.optimizers()[0].state_dict())
    state = {"model": copy.deepcopy(parts.state_dict()), "pruner": copy.deepcopy(first.state_dict())}

    again = student("torch")
    other = torch_evaluator(again)
    second = chain(again, other)
    again.load_state_dict(state["model"])
    second.load_state_dict(state["pruner"])
    assert second.steps == 4
    with other.compressing(again, second.fused_compressors):
        other.optimizers()[0].load_state_dict(optimizer)
        other.train(max_steps=4)
    assert second.steps == 8
    for name, value in whole.named_parameters():
        assert torch.allclose(value, dict(again.named_parameters())[name], atol=1e-5), name


# -- quantised too ---------------------------------------------------------------------------------

INT8 = {"quant_dtype": "int8", "quant_scheme": "symmetric"}
QUANTISE = [
    {
        "op_names": CONVOLUTIONS,
        **INT8,
        "target_names": ["_input_", "weight", "_output_"],
        "target_settings": {"weight": {**INT8, "granularity": "out_channel"}},
        "fuse_names": [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")],
    },
    {"op_names": ["fc1", "fc2"], **INT8, "target_names": ["weight"], "granularity": "out_channel"},
]


def check_scales(quantizer: Quantizer, masks: Any) -> None:
    """Every target has finite scales, and what is masked is zero on the grid too."""
    config = quantizer.get_calibration_config()
    assert {name for name in config if "weight" in config[name]} == {*CONVOLUTIONS, "fc1", "fc2"}
    for targets in config.values():
        for entry in targets.values():
            assert entry["scale"].isfinite().all() and (entry["scale"] > 0).all()
    quantizer.bound_model.eval()
    for name in [*CONVOLUTIONS, "fc1"]:
        weight = quantizer.bound_model.get_submodule(name).weight
        if name in masks:
            assert (weight[masks[name]["weight"] == 0] == 0).all()
        steps = weight / config[name]["weight"]["scale"]
        assert torch.allclose(steps, steps.round(), atol=1e-3), name
        assert steps.abs().max() <= 127.001


@pytest.mark.parametrize(
    "kind", ["torch", pytest.param("lightning", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_distiller_then_taylor_then_lsq_with_fused_norms(kind: str, tmp_path: Any) -> None:
    model = student(kind)
    teacher = copy.deepcopy(model)
    evaluator = evaluator_for(kind, model, tmp_path)
    distiller = DynamicLayerwiseDistiller(model, DISTILL, evaluator, teacher, ask)
    pruner = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=10)
    quantizer = LsqQuantizer.from_compressor(pruner, QUANTISE)
    before = copy.deepcopy(quantizer.get_calibration_config())
    quantizer.compress(max_steps=100)
    assert [c.steps for c in quantizer.fused_compressors] == [100, 100, 100]
    masks = pruner.get_masks()
    assert [kept(masks[name]["weight"]) for name in CONVOLUTIONS] == [0.25] * 3
    check_scales(quantizer, masks)
    learned = quantizer.get_calibration_config()["fc1"]["weight"]["scale"]
    assert not torch.equal(learned, before["fc1"]["weight"]["scale"])  # the optimizer trained them
    check_small(quantizer)


@pytest.mark.parametrize(
    "kind", ["torch", pytest.param("lightning", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_distiller_then_taylor_then_agp_then_qat(kind: str, tmp_path: Any) -> None:
    model = student(kind)
    teacher = copy.deepcopy(model)
    evaluator = evaluator_for(kind, model, tmp_path)
    distiller = DynamicLayerwiseDistiller(model, DISTILL, evaluator, teacher, ask)
    taylor = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=4)
    pruner = AGPPruner(taylor, interval_steps=5, total_times=4)
    quantizer = QATQuantizer.from_compressor(pruner, QUANTISE, quant_start_step=10)
    quantizer.compress(max_steps=24)
    assert [c.steps for c in quantizer.fused_compressors] == [24, 24, 24]
    masks = pruner.get_masks()
    assert [kept(masks[name]["weight"]) for name in CONVOLUTIONS] == [0.25] * 3
    check_scales(quantizer, masks)
    check_small(quantizer)


def check_small(quantizer: Quantizer) -> None:
    """The small model is quantised as the masked one was, and computes the same."""
    x = batches()[0][0]
    model = quantizer.bound_model.eval()
    with torch.no_grad():
        simulated = model(x)
    small, _ = quantizer.speedup((x,), on_inexact="keep")
    assert small.bound_model.conv1.out_channels == 4 and small.bound_model.conv3.out_channels == 8
    assert small.get_calibration_config()["conv3"]["weight"]["scale"].numel() == 8
    with torch.no_grad():
        compact = small.bound_model.eval()(x)
    assert (compact.argmax(1) == simulated.argmax(1)).all()
    assert torch.allclose(compact, simulated, atol=0.02)


def test_a_training_too_short_for_a_fused_compressor_is_refused_before_it_begins() -> None:
    model = student("torch")
    evaluator = torch_evaluator(model)
    pruner = TaylorPruner(model, PRUNE, evaluator, training_steps=10)
    distiller = DynamicLayerwiseDistiller.from_compressor(
        pruner, DISTILL, teacher_model=student("torch"), teacher_predict=ask
    )
    with pytest.raises(
        secateur.CompressionError, match="max_steps=5 is over before TaylorFOWeightPruner is done"
    ):
        distiller.compress(max_steps=5)
    assert distiller.steps == 0
