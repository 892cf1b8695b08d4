"""Torch-Pruning 1.6.1, with every importance it has, brought to a wanted number of MACs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from accuracy_case import Case, Load, Task
from torch import nn
from torch_pruning.pruner.importance import ActivationImportance, OBDCImportance

from secateur.criteria import model_inputs

MOST_CUTS = 9
GRADIENTS = ("batches", "samples", "fisher")  # what importances need that look at the loss
NEAR = 0.002  # a cut that is below the target by no more than this share of the full model will do
FAILURES = (
    RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError,
    AssertionError,
)  # fmt: skip


@dataclass(frozen=True)
class PeerMethod:
    """An importance with its settings, how labels compete, and a variant of the task's settings.

    ``needs`` is what has to be gathered before: nothing, gradients of all ``"batches"`` added up,
    of ``"samples"`` one after the other (``HessianImportance``), the ``"fisher"`` information of layers
    (``OBDCImportance``) or ``"activations"``. ``drawn``: gradients are those of the loss with drawn classes.
    """

    name: str
    importance: Callable[[], Any]
    scope: str
    variant: str = ""
    needs: str = ""
    drawn: bool = False

    def __str__(self) -> str:
        loss = "drawn classes" if self.drawn else ""
        return ", ".join(part for part in (self.name, self.scope, self.variant, loss) if part)


def peer_methods(variants: Iterable[str] = ("",), *, draws: bool = False) -> list[PeerMethod]:
    """Every importance of the package, with the settings that its documentation names.

    With ``draws``, those that need gradients are there with both losses.
    """
    imp = tp.importance
    makers: list[tuple[str, Callable[[], Any], str]] = [
        ("random", imp.RandomImportance, ""),
        ("L1 first", lambda: imp.MagnitudeImportance(1, group_reduction="first", normalizer=None), ""),
        ("L1", lambda: imp.MagnitudeImportance(p=1), ""),
        ("L2", lambda: imp.MagnitudeImportance(p=2), ""),
        ("L2 sum", lambda: imp.MagnitudeImportance(p=2, group_reduction="sum", normalizer=None), ""),
        ("BatchNorm scale", imp.BNScaleImportance, ""),
        ("LAMP", imp.LAMPImportance, ""),
        ("FPGM", imp.FPGMImportance, ""),
        ("activation", ActivationImportance, "activations"),
        ("Taylor", imp.TaylorImportance, "batches"),
        ("Taylor multivariable", lambda: imp.TaylorImportance(multivariable=True), "batches"),
        ("Taylor unnormalised", lambda: imp.TaylorImportance(normalizer=None), "batches"),
        ("Hessian", imp.HessianImportance, "samples"),
        ("Hessian unnormalised", lambda: imp.HessianImportance(normalizer=None), "samples"),
        ("OBD-C", OBDCImportance, "fisher"),
    ]
    return [
        PeerMethod(name, make, scope, variant, needs, drawn)
        for name, make, needs in makers
        for drawn in ((False, True) if draws and needs in GRADIENTS else (False,))
        for variant in variants
        for scope in ("local", "global", "isomorphic")
        # Within one layer a normalised score has the order of the score itself.
        if not (scope == "local" and "unnormalised" in name)
    ]


Gathered = dict[tuple[str, bool], tuple[nn.Module, Any]]
"""By an importance's name and loss: the model with gradients, and the importance with what it gathered."""


class Peer:
    """One method on one case; what an importance has to gather is gathered once for all scopes."""

    def __init__(self, load: Load, task: Task, method: PeerMethod, gathered: Gathered) -> None:
        self._load, self._task, self._method = load, task, method
        self._gathered = gathered

    @property
    def _case(self) -> Case:
        return self._load()

    def cut(self, target: float) -> nn.Module | None:
        """A copy of the model with at most ``target`` MACs, as near as the pruning ratio allows.

        None where the method fails, or no ratio comes below the target.
        """
        full = self._case.macs(self._case.model)
        low, high = (0.0, full), (1.0, 0.0)  # pruning ratios and the MACs at them
        best: nn.Module | None = None
        for number in range(MOST_CUTS):
            ratio = _between(low, high, target, bisect=number % 3 == 2)
            small = self._at(ratio)
            if small is None:  # it empties a layer, or breaks the model's code
                high = (ratio, 0.0)
                continue
            macs = self._case.macs(small)
            if macs > target:
                low = (ratio, macs)
                continue
            best, high = small, (ratio, macs)
            if macs > target - NEAR * full:
                break
        return best

    def _at(self, ratio: float) -> nn.Module | None:
        try:
            kept = self._method.name, self._method.drawn
            if kept not in self._gathered:
                self._gathered[kept] = self._gather()
            model, _ = prepared = self._gathered[kept]
            # In one copy: the importance keeps gradients by parameter. Copies of parameters have none.
            small, importance = copy.deepcopy(prepared)
            for own, given in zip(small.parameters(), model.parameters(), strict=True):
                own.grad = None if given.grad is None else given.grad.clone()
            self._pruner(small, importance, ratio).step()
            small.zero_grad(set_to_none=True)
            self._task.peer_repair(small)
            self._case.macs(small)
        except FAILURES:
            return None
        return small

    def _pruner(self, model: nn.Module, importance: Any, ratio: float) -> Any:
        return tp.pruner.BasePruner(
            model,
            self._task.peer_example(self._case),
            importance=importance,
            global_pruning=self._method.scope != "local",
            isomorphic=self._method.scope == "isomorphic",
            pruning_ratio=ratio,
            **self._task.peer_settings(model, self._method.variant, ratio),
        )

    def _gather(self) -> tuple[nn.Module, Any]:
        case, needs = self._case, self._method.needs
        model, importance = copy.deepcopy(case.model).eval(), self._method.importance()
        loss = case.drawn() if self._method.drawn and case.drawn else case.loss
        if needs == "samples":
            importance.zero_grad()
            for sample in case.samples[:4]:
                for one in _singles(sample):
                    model.zero_grad()
                    loss(self._run(model, one), one).backward()
                    importance.accumulate_grad(model)
        elif needs == "fisher":
            importance._prepare_model(model, self._pruner(model, importance, 0.5))
            for sample in case.samples[:4]:
                model.zero_grad()
                loss(self._run(model, sample), sample).backward()
                importance.step()
            importance._rm_hooks(model)
        elif needs == "activations":
            with importance.compute_importance(model), torch.no_grad():
                self._run(model, case.samples[0])
        elif needs:
            for sample in case.samples:
                loss(self._run(model, sample), sample).backward()
        return model, importance

    def _run(self, model: nn.Module, sample: Any) -> Any:
        args, kwargs = model_inputs(model, sample)
        return model(*args, **kwargs)


def _between(low: tuple[float, float], high: tuple[float, float], target: float, *, bisect: bool) -> float:
    """The next ratio to try: by the secant through both ends, now and then in the middle."""
    if bisect:
        return (low[0] + high[0]) / 2
    share = (low[1] - target) / max(low[1] - high[1], 1e-9)
    return low[0] + min(max(share, 0.02), 0.98) * (high[0] - low[0])


def _singles(sample: Any, most: int = 16) -> Iterator[Any]:
    """The first examples of a batch, each as a batch of one."""
    if isinstance(sample, dict):
        count = len(next(iter(sample.values())))
        yield from ({k: v[i : i + 1] for k, v in sample.items()} for i in range(min(count, most)))
    else:
        yield from (tuple(p[i : i + 1] for p in sample) for i in range(min(len(sample[0]), most)))
