"""The teacher while it is asked: in eval mode, without gradients, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def asked(teacher: nn.Module) -> Generator[None]:
    """Run the body with a model in eval mode and without gradients; its training flags come back."""
    flags = [(module, module.training) for module in teacher.modules()]
    try:
        for module, _ in flags:
            module.training = False  # train(False) may be overridden by the user
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training
