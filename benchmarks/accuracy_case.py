"""What a task of ``accuracy.py`` gives for one seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
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

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.higher else -1


Loss = Callable[[Any, Any], torch.Tensor]
"""From the model's output and a sample to the loss."""


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
        ignored: modules that we are to leave alone.
        drawn: makes a loss against classes that are drawn from the model's answers, always the same
            draws; for tasks without labels, where the gradient of ``loss`` is zero at the full model.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    samples: list[Any]
    loss: Loss
    evaluate: Callable[[nn.Module], tuple[float, ...]]
    tune: Callable[[nn.Module, float], None]
    settle: Callable[[nn.Module], Any]
    ignored: tuple[str, ...] = ()
    drawn: Callable[[], Loss] | None = None

    def macs(self, model: nn.Module) -> float:
        """Multiply-accumulates of one forward, by torch's own counter."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(*self.args, **self.kwargs)
        return counter.get_total_flops() / 2


Load = Callable[[], Case]
"""Gives the case of a seed; it is made when it is asked for first."""


class Task(ABC):
    """A model and its data, for several seeds.

    Attributes:
        key: how the command line names it.
        name: how tables name it.
        data: what the tables say of model, data and budget.
        shares: of the MACs that are to stay.
        screened: the shares at which every method of the peer is tried, on the first seed.
        latencies: shares of the latency at which selectors are compared.
        metrics: what is measured.
        rates: learning rates; each method gets the one that is best for it on the first seed.
        variants: settings of the peer's pruner for this model, to be tried with every importance.
        measured: whether our scores are scaled by what masked labels cost on the calibration data.
        draws: whether its cases have a loss with ``drawn`` classes: the peer tries its gradients too.
    """

    key: str
    name: str
    data: str
    shares: tuple[float, ...]
    screened: tuple[float, ...]
    latencies: tuple[float, ...]
    metrics: tuple[Metric, ...]
    rates: tuple[float, ...]
    variants: tuple[str, ...] = ("",)
    measured: bool = False
    draws: bool = False

    @abstractmethod
    def load(self, seed: int) -> Case:
        """The case of one seed."""

    @abstractmethod
    def peer_settings(self, model: nn.Module, variant: str, ratio: float) -> dict[str, Any]:
        """Settings of Torch-Pruning's pruner for this model, ``ignored_layers`` among them."""

    def peer_example(self, case: Case) -> Any:
        """What Torch-Pruning calls the model with."""
        return case.args[0]

    def peer_repair(self, model: nn.Module) -> None:  # noqa: B027 (most tasks need none)
        """What Torch-Pruning leaves to the user after a cut: attributes that its layers do not hold."""
