"""What digits.yaml names: the network of examples/digits.py, its data, and how it is judged."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


@cache
def _example() -> ModuleType:
    """The script ``examples/digits.py``, as a module."""
    path = Path(__file__).parent.parent / "digits.py"
    spec = importlib.util.spec_from_file_location("digits_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _digits() -> object:
    return _example().Digits()


def network(width: int = 64) -> nn.Module:
    """The network, not trained."""
    return _example().DigitNet(width)


def training_batches(size: int = 64) -> Iterator[Batch]:
    """One epoch of images (batch, 1, 8, 8) and labels (batch,)."""
    return _digits().batches(size)


def calibration_batches(count: int = 8) -> Iterator[Batch]:
    """The first training images, as they are."""
    images, labels = _digits().train
    return iter([*zip(images.split(64), labels.split(64), strict=True)][:count])


def example() -> Tensor:
    """64 test images."""
    return _digits().test[0][:64]


def cross_entropy(output: Tensor, batch: Batch) -> Tensor:
    """The loss against the labels."""
    return F.cross_entropy(output, batch[1])


def accuracy(model: nn.Module) -> dict[str, float]:
    """Share of the test images whose digit is recognised."""
    images, labels = _digits().test
    with torch.no_grad():
        return {"accuracy": (model(images).argmax(1) == labels).float().mean().item()}
