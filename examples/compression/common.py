"""What the examples share: real digits, an ordinary training loop, the way from masks to a smaller model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.compression import TorchEvaluator
from secateur.compression.pruning import Pruner
from secateur.compression.speedup import ModelSpeedup

sys.path.append(str(Path(__file__).parents[1]))  # examples/digits.py
from digits import Digits

View = Callable[[Tensor], Tensor]
"""How a model wants to see images of shape ``(batch, 1, 8, 8)``."""


def as_they_are(images: Tensor) -> Tensor:
    return images


def start() -> Digits:
    """The data, with the same numbers in every run."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return Digits()


def training_step(batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(
    digits: Digits,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Any = training_step,
    view: View = as_they_are,
    *,
    steps: int | None = None,
    epochs: int | None = None,
) -> None:
    """An ordinary loop, which knows nothing of pruning; over epochs the learning rate falls to nothing."""
    model.train()
    done = 0
    for epoch in range(epochs or 1000):
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * (1 - epoch / (epochs or 1000))
        for images, labels in digits.batches():
            if steps is not None and done == steps:
                return
            optimizer.zero_grad()
            step((view(images), labels), model).backward()
            optimizer.step()
            done += 1


def evaluator_for(
    digits: Digits, model: nn.Module, optimizer: torch.optim.Optimizer, view: View = as_they_are
) -> TorchEvaluator:
    """Loop and accuracy as a pruner wants them; accuracy on training images, the others stay unseen."""

    def training(
        model: nn.Module, optimizer: Any, step: Any, scheduler: Any, steps: int | None, epochs: int | None
    ) -> None:
        train(digits, model, optimizer, step, view, steps=steps, epochs=epochs)

    def evaluation(model: nn.Module) -> float:
        images, labels = digits.train
        return accuracy(model, view(images[:300]), labels[:300])

    return TorchEvaluator(training, optimizer, training_step, None, view(digits.test[0][:8]), evaluation)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


def shrink(pruner: Pruner, digits: Digits, view: View = as_they_are) -> nn.Module:
    """From the masked model to the smaller one: the same predictions in less time."""
    images, labels = view(digits.test[0]), digits.test[1]
    model, masks = pruner.bound_model.eval(), pruner.get_masks()
    with torch.no_grad():
        masked = model(images).argmax(1)
    print(described("masked ", model, images, labels))
    pruner.unwrap_model()
    whole = copy.deepcopy(model)
    small = ModelSpeedup(model, images[:8], masks, on_inexact="keep").speedup_model()
    with torch.no_grad():
        equal = bool((small(images).argmax(1) == masked).all())
    print(described("compact", small, images, labels), "every prediction as before" if equal else "")
    seconds = secateur.measure_latency({"whole": whole, "small": small}, (images[:64],), runs=30, threads=1)
    before, after = seconds["whole"].median * 1e3, seconds["small"].median * 1e3
    print(f"latency of 64 images: {before:.1f} ms, now {after:.1f} ms ({before / after:.2f} times as fast)")
    if not equal:
        raise SystemExit("the compact model predicts something else than the masked one")
    return small


def described(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{name}: accuracy {accuracy(model, images, labels):.1%}, {count / 1e3:.0f} k parameters"
