"""What a task of ``accuracy.py`` gives for one seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Metric:
    """Something that is measured of a model, and which way is better."""

    name: str
    higher: bool = True
    digits: int = 2

    def best(self, values: Iterable[float]) -> float:
        """The best of several values."""
        return max(values) if self.higher else min(values)


@dataclass
class Case:
    """A trained model with its data.

    Attributes:
        model: the model as it is.
        args: positional inputs of one forward, at which MACs are counted.
        kwargs: keyword inputs.
        samples: calibration data, as a data loader gives it.
        loss: from the model's output and a sample to the loss that is differentiated.
        evaluate: values of the metrics, in their order.
        tune: fine-tune in place, at a learning rate.
        settle: what both sides do right after a cut (statistics of BatchNorm).
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    samples: list[Any]
    loss: Callable[[Any, Any], torch.Tensor]
    evaluate: Callable[[nn.Module], tuple[float, ...]]
    tune: Callable[[nn.Module, float], None]
    settle: Callable[[nn.Module], Any]

    def macs(self, model: nn.Module) -> float:
        """Multiply-accumulates of one forward, by torch's own counter."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(*self.args, **self.kwargs)
        return counter.get_total_flops() / 2


class Task(ABC):
    """A model and its data, for several seeds."""

    name: str
    shares: tuple[float, ...]
    metrics: tuple[Metric, ...]
    rates: tuple[float, ...]

    @abstractmethod
    def load(self, seed: int) -> Case:
        """The case of one seed."""

    @abstractmethod
    def peer_settings(self, model: nn.Module) -> dict[str, Any]:
        """Settings of Torch-Pruning's pruner for this model, ``ignored_layers`` among them."""

    def peer_example(self, case: Case) -> Any:
        """What Torch-Pruning calls the model with."""
        return case.args[0]
