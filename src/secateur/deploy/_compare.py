"""The deployed model against the one in PyTorch, output by output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import DeploymentError
from ..capture import named_tensors, untouched
from ._caches import without_caches

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
_STEPS = 255


@dataclass(frozen=True)
class Agreement:
    """How far two models' outputs are apart, over all samples.

    Attributes:
        samples: how many rows (first dimension) of outputs were compared.
        max_error: the largest difference of two values.
        relative_error: ``|a - b| / |a|`` in the L2 norm over all values.
        top1: share of rows whose largest value is at the same place: of positions for outputs of more than
        two
            dimensions; over dimension 1 of images, the last one otherwise.
        within_one_step: share of values that are no further apart than one step of 8 bits over the range of
        the
            output they belong to.
    """

    samples: int
    max_error: float
    relative_error: float
    top1: float
    within_one_step: float

    def __str__(self) -> str:
        return (
            f"top-1 {self.top1:.2%}, within one step {self.within_one_step:.2%}, relative error "
            f"{self.relative_error:.1e}, largest {self.max_error:.1e}, {self.samples} samples"
        )


def agreement(reference: nn.Module, deployed: nn.Module, inputs: Iterable[Inputs]) -> Agreement:
    """Run both on all inputs and compare every output tensor of floats.

    Raises:
        DeploymentError: if outputs differ in number or shape, or there is none.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with untouched(reference), without_caches(reference):
        for args, kwargs in inputs:
            wanted = dict(named_tensors(reference(*args, **kwargs), "output"))
            given = deployed(*args, **kwargs)
            made = list(given) if isinstance(given, (tuple, list)) else [given]
            if [tuple(t.shape) for t in wanted.values()] != [tuple(t.shape) for t in made]:
                raise DeploymentError(
                    f"the deployed model gives {[tuple(t.shape) for t in made]} where the model gives "
                    f"{ {name: tuple(t.shape) for name, t in wanted.items()} }"
                )
            for (name, one), other in zip(wanted.items(), made, strict=True):
                if one.is_floating_point():
                    pairs.setdefault(name, []).append((one.double().cpu(), other.double().cpu()))
    if not pairs:
        raise DeploymentError("the model has no output of floats to compare, or there is no sample")
    return _summary([pair for named in pairs.values() for pair in named], list(pairs.values()))


def _summary(pairs: list[tuple[Tensor, Tensor]], outputs: list[list[tuple[Tensor, Tensor]]]) -> Agreement:
    gaps = [(one - other).abs() for one, other in pairs]
    size = sum(float(one.square().sum()) for one, _ in pairs) ** 0.5
    apart = sum(float(gap.square().sum()) for gap in gaps) ** 0.5
    same = torch.cat([_same_top(one, other) for one, other in pairs])
    near = torch.cat([_near(named) for named in outputs])
    return Agreement(
        samples=sum(len(one) if one.dim() else 1 for one, _ in outputs[0]),
        max_error=max(float(gap.max()) for gap in gaps if gap.numel()),
        relative_error=apart / size if size else apart,
        top1=float(same.double().mean()),
        within_one_step=float(near.double().mean()),
    )


def _same_top(one: Tensor, other: Tensor) -> Tensor:
    if not one.dim():
        return torch.ones(1, dtype=torch.bool)
    dim = 1 if one.dim() > 3 else -1
    return (one.argmax(dim) == other.argmax(dim)).flatten()


def _near(named: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Which values of one output are within one step: its range over all samples, in 255 steps."""
    low, high = min(float(one.min()) for one, _ in named), max(float(one.max()) for one, _ in named)
    step = (high - low) / _STEPS
    return torch.cat([((one - other).abs() <= step).flatten() for one, other in named])
