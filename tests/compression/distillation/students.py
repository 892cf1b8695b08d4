"""What the tests of distillers share: students, a way to train them, a teacher's predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.compression import TorchEvaluator


def predict(batch: Any, teacher: nn.Module) -> Any:
    return teacher(batch)


class Two(nn.Module):
    """Two layers of widths of one's choice."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, hidden), nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).relu())


class Sayer(nn.Module):
    """Gives its input in a form of one's choice."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor, *, scale: Tensor | None = None) -> Any:
        return self.form(x if scale is None else x * scale)


class Around(nn.Module):
    """A layer whose output is read in any form."""

    def __init__(self, form: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.fc, self.say, self.read = nn.Linear(4, 3), Sayer(form), read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.say(self.fc(x), scale=torch.tensor(2.0)))


def evaluator_for(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, nn.Module], Any],
    batches: list[Tensor],
    *,
    dummy_input: Any = None,
    accumulate: int = 1,
) -> TorchEvaluator:
    """An ordinary loop over some batches, again and again."""

    def train(
        model: nn.Module, optimizer: Any, step: Any, scheduler: Any, steps: int | None, epochs: int | None
    ) -> None:
        for at in range(steps or 1):
            optimizer.zero_grad()
            for part in range(accumulate):
                (step(batches[(at * accumulate + part) % len(batches)], model) / accumulate).backward()
            optimizer.step()

    return TorchEvaluator(train, optimizer, loss, dummy_input=dummy_input)
