"""What is compared: a model's outputs, on the inputs of every snapshot and on random ones like them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import nn

from ._compare import draw_inputs, run


class Inputs(Protocol):
    """Something that holds a set of inputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Observer:
    """Runs models on the same draws of inputs and returns what is to be compared."""

    def __init__(self, snapshots: Sequence[Inputs], draws: int = 2) -> None:
        self._snapshots = snapshots
        self._draws = draws
        self.at = "the model's outputs"

    def run(self, model: nn.Module) -> list[Any]:
        """Outputs on every draw."""
        return [run(model, *inputs) for inputs in self._inputs()]

    def _inputs(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        for snapshot in self._snapshots:
            yield from draw_inputs(snapshot.args, snapshot.kwargs, self._draws)
