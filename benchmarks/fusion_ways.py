"""The ways of ``fusion.py`` from a float model to a small quantised one, each with its training steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import torch
from fusion_cases import Case
from torch import Tensor, nn

from secateur.compression import TorchEvaluator
from secateur.compression.distillation import DynamicLayerwiseDistiller
from secateur.compression.quantization import PtqQuantizer, QATQuantizer
from secateur.criteria import model_inputs
from secateur.deploy import int8_config_list


def run(model: nn.Module, batch: Any) -> Any:
    """A model's output for a batch; labels are left out."""
    args, kwargs = model_inputs(model, batch)
    return model(*args, **kwargs)


def teach(batch: Any, teacher: nn.Module) -> Any:
    return run(teacher, batch)


def evaluator_of(case: Case, model: nn.Module, steps: int, rate: float) -> TorchEvaluator:
    """An ordinary training: AdamW, a cosine, the user's own loss."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def train(
        model: nn.Module, optimizer: Any, step: Any, schedule: Any, max_steps: int, max_epochs: Any
    ) -> None:
        model.train()
        for batch in islice(cycle(case.batches), max_steps):
            optimizer.zero_grad()
            step(batch, model).backward()
            optimizer.step()
            schedule.step()
        model.eval()

    def step(batch: Any, model: nn.Module) -> Tensor:
        return case.loss(run(model, batch), batch)

    return TorchEvaluator(train, optimizer, step, schedule, dummy_input=case.args or case.kwargs)


def trained(case: Case, model: nn.Module, steps: int) -> nn.Module:
    """With the user's own loss."""
    evaluator = evaluator_of(case, model, steps, case.rates[0])
    evaluator.bind_model(model)
    evaluator.train(max_steps=steps)
    evaluator.unbind_model()
    return model


def quantizer_of(case: Case, model: nn.Module, steps: int, rate: float, start: int = 0) -> QATQuantizer:
    """Ranges begin with those of calibration data."""
    config_list = int8_config_list(model, case.args, case.kwargs)
    evaluator = evaluator_of(case, model, steps, rate)
    quantizer = QATQuantizer(model, config_list, evaluator, start, watch_start_step=max(0, start - 5))
    for batch in case.calibration[:2]:
        args, kwargs = model_inputs(model, batch)
        quantizer.track_forward(*args, **kwargs)
    return quantizer


def taught(case: Case, model: nn.Module, steps: int, quantizer: QATQuantizer | None = None) -> nn.Module:
    """With the original as teacher beside the user's own loss; quantised too if a quantiser is given."""
    own, teacher = case.weights
    config_list = [{"op_names": [""], "apply_method": case.method, "lambda": teacher}]
    given: dict[str, Any] = {"teacher_model": case.model, "teacher_predict": teach}
    given |= {"remember_teacher": True, "origin_loss_lambda": own}
    if quantizer is None:
        evaluator = evaluator_of(case, model, steps, case.rates[0])
        distiller = DynamicLayerwiseDistiller(model, config_list, evaluator, **given)
    else:
        distiller = DynamicLayerwiseDistiller.from_compressor(quantizer, config_list, **given)
    distiller.compress(max_steps=steps)
    if quantizer is None:
        distiller.unwrap_model()
    return model


# -- the ways --------------------------------------------------------------------------------------


def floating(case: Case) -> nn.Module:
    return case.model


def pruned(case: Case) -> nn.Module:
    return trained(case, case.small(), case.steps)


def quantised(case: Case) -> nn.Module:
    model = copy.deepcopy(case.model)
    config_list = int8_config_list(model, case.args, case.kwargs)
    PtqQuantizer(model, config_list, is_bias_correction=True).calibrate(case.calibration)
    return model


def both(case: Case) -> nn.Module:
    model = case.small()
    quantizer_of(case, model, case.steps, case.rates[0]).compress(max_steps=case.steps)
    return model


def one_after_another(case: Case) -> nn.Module:
    """A third of the budget for each: to get over the cut, to learn from the original, to be quantised."""
    third = case.steps // 3
    model = taught(case, trained(case, case.small(), third), third)
    quantizer_of(case, model, third, case.rates[0]).compress(max_steps=third)
    return model


def fused(case: Case, share: float = 1.0) -> nn.Module:
    """Everything in one training, for a share of the budget; rounded in the last sixth of it."""
    model, steps = case.small(), int(case.steps * share)
    quantizer = quantizer_of(case, model, steps, case.rates[1], start=steps - steps // 6)
    return taught(case, model, steps, quantizer)


WAYS: dict[str, Callable[[Case], nn.Module]] = {
    "float": floating,
    "pruned": pruned,
    "quantised": quantised,
    "both": both,
    "both with distillation, one after another": one_after_another,
    "both with distillation, in one run": fused,
    "both with distillation, in one run of half the budget": lambda case: fused(case, 0.5),
}


def timed(way: Callable[[Case], nn.Module], case: Case) -> tuple[nn.Module, float]:
    """The model in eval mode, and the processor's seconds for it; the cut is not counted."""
    _ = case.cut
    torch.manual_seed(0)
    start = time.process_time()
    model = way(case)
    return model.eval(), time.process_time() - start
