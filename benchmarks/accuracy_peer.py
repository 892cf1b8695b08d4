"""Torch-Pruning 1.6.1, with every importance it has, brought to a wanted number of MACs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from accuracy_case import Case, Task
from torch import nn

STEPS = 9


@dataclass(frozen=True)
class PeerMethod:
    """An importance with its settings, and how labels compete.

    ``gradients`` is empty, ``"batches"`` (gradients of all batches are added up) or ``"samples"`` (one
    after the other, as ``HessianImportance`` wants them).
    """

    name: str
    importance: Callable[[], Any]
    scope: str
    gradients: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.scope}"


def peer_methods(scopes: Iterable[str] = ("local", "global", "isomorphic")) -> list[PeerMethod]:
    """Every importance of the package, with the settings that its documentation names."""
    imp = tp.importance
    norms = [nn.modules.batchnorm._BatchNorm, nn.LayerNorm]
    makers: list[tuple[str, Callable[[], Any], str]] = [
        ("random", imp.RandomImportance, ""),
        ("L1 first", lambda: imp.MagnitudeImportance(1, group_reduction="first", normalizer=None), ""),
        ("L1", lambda: imp.MagnitudeImportance(p=1), ""),
        ("L2", lambda: imp.MagnitudeImportance(p=2), ""),
        ("L2 sum", lambda: imp.MagnitudeImportance(p=2, group_reduction="sum", normalizer=None), ""),
        ("norm scale", lambda: imp.MagnitudeImportance(p=1, target_types=norms), ""),
        ("LAMP", lambda: imp.LAMPImportance(p=2), ""),
        ("FPGM", lambda: imp.FPGMImportance(p=2), ""),
        ("Taylor", imp.TaylorImportance, "batches"),
        ("Taylor multivariable", lambda: imp.TaylorImportance(multivariable=True), "batches"),
        ("Taylor unnormalised", lambda: imp.TaylorImportance(normalizer=None), "batches"),
        ("Hessian", imp.HessianImportance, "samples"),
        ("Hessian unnormalised", lambda: imp.HessianImportance(normalizer=None), "samples"),
    ]
    return [PeerMethod(n, make, scope, grads) for n, make, grads in makers for scope in scopes]


def prune_with_peer(case: Case, task: Task, method: PeerMethod, target: float) -> nn.Module | None:
    """A copy of the case's model with at most ``target`` MACs, as near as the pruning ratio allows.

    None where the method fails, or no ratio comes below the target.
    """
    low, high = 0.0, 1.0
    best: nn.Module | None = None
    prepared = _with_gradients(case, task, method)
    for _ in range(STEPS):
        ratio = (low + high) / 2
        small = _cut(case, task, method, prepared, ratio)
        if small is not None and case.macs(small) <= target:
            best, high = small, ratio
        elif small is None:  # it empties a layer, or breaks the model's code
            high = ratio
        else:
            low = ratio
    return best


def _cut(
    case: Case, task: Task, method: PeerMethod, prepared: tuple[nn.Module, Any], ratio: float
) -> nn.Module | None:
    # In one copy: the importance keeps gradients by parameter. Copies of parameters have none.
    small, importance = copy.deepcopy(prepared)
    for own, given in zip(small.parameters(), prepared[0].parameters(), strict=True):
        own.grad = None if given.grad is None else given.grad.clone()
    settings = task.peer_settings(small)
    try:
        pruner = tp.pruner.BasePruner(
            small,
            task.peer_example(case),
            importance=importance,
            global_pruning=method.scope != "local",
            isomorphic=method.scope == "isomorphic",
            pruning_ratio=ratio,
            **settings,
        )
        pruner.step()
        small.zero_grad(set_to_none=True)
        case.macs(small)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError, AttributeError, AssertionError):
        return None
    return small


def _with_gradients(case: Case, task: Task, method: PeerMethod) -> tuple[nn.Module, Any]:
    model, importance = copy.deepcopy(case.model).eval(), method.importance()
    if method.gradients == "samples":
        importance.zero_grad()
        for sample in case.samples[:4]:
            for one in _singles(sample):
                model.zero_grad()
                _loss(case, model, one).backward()
                importance.accumulate_grad(model)
    elif method.gradients:
        for sample in case.samples:
            _loss(case, model, sample).backward()
    return model, importance


def _loss(case: Case, model: nn.Module, sample: Any) -> torch.Tensor:
    from secateur.criteria import model_inputs

    args, kwargs = model_inputs(model, sample)
    return case.loss(model(*args, **kwargs), sample)


def _singles(sample: Any, most: int = 16) -> list[Any]:
    """The first examples of a batch, each as a batch of one."""
    if isinstance(sample, dict):
        count = len(next(iter(sample.values())))
        return [{k: v[i : i + 1] for k, v in sample.items()} for i in range(min(count, most))]
    return [tuple(part[i : i + 1] for part in sample) for i in range(min(len(sample[0]), most))]
