"""The oracle: pruning random labels gives what masking them gives.

It needs no expectation written by hand. What it does need is parameters that could betray an error:
one that is initialised to zeros or ones makes a check that cannot fail, so :func:`randomise` comes
first, always.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

import secateur
from secateur import Group, Label, PruningIR

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic that an initialisation leaves constant a random value.

    Matrices keep their random initialisation. Vectors, scalars and constant tensors of any shape
    become noise, around one for what multiplies and around zero for what is added.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and bool((parameter != parameter.flatten()[0]).any()):
                continue
            centre = 1.0 if name.endswith("weight") and parameter.dim() <= 1 else 0.0
            parameter.copy_(noise(parameter) * 0.3 + centre)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(noise(buffer) * 0.3)
            elif name.endswith("running_var"):
                buffer.copy_(noise(buffer).abs() + 0.5)
    return model


def random_labels(groups: Iterable[Group], seed: int, share: float | None = 0.5) -> list[Label]:
    """Random labels of every group: a fixed share, or with None another share in each group.

    Shares that differ are what exercises balances. At least one label of each group stays.
    """
    rng = random.Random(seed)
    labels: list[Label] = []
    for group in groups:
        wanted = share if share is not None else rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        labels += rng.sample(group.labels, min(int(group.size * wanted), group.size - 1))
    return labels


def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor that the model puts out, in eval mode, by its path."""
    was = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            result = model(*copy.deepcopy(args), **copy.deepcopy(dict(kwargs)))
    finally:
        for module, training in was.items():
            module.training = training
    return {path: tensor.detach().clone() for path, tensor in tensors_in(result)}


def tensors_in(tree: Any, path: str = "output") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in nested containers. Written anew, so that the oracle shares no code with the library."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key in tree:
            yield from tensors_in(tree[key], f"{path}.{key}")
    elif isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            yield from tensors_in(item, f"{path}.{index}")


def difference(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """Largest relative L2 error of two models' outputs; infinite where shapes or finiteness differ."""
    assert left.keys() == right.keys()
    worst = 0.0
    for path, a in left.items():
        b = right[path]
        if a.shape != b.shape or not bool((a.isfinite() == b.isfinite()).all()):
            return float("inf")
        a, b = a.double().nan_to_num(), b.double().nan_to_num()
        worst = max(worst, float((a - b).norm() / a.norm().clamp_min(1e-300)))
    return worst


def check_cut(
    ir: PruningIR,
    labels: list[Label],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    exact: bool,
) -> nn.Module:
    """Prune ``labels`` and hold the result against the masked model; returns the small model.

    With ``exact`` outputs have to agree; without, the small model still has to run and put out the
    same shapes. In both cases the report has to tell the truth about parameters.
    """
    kwargs = kwargs or {}
    masked = outputs(ir.masked(labels=labels), args, kwargs)
    small = ir.prune(labels=labels, verify=False)
    made = outputs(small.model, args, kwargs)
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in masked.items()}
    if exact:
        kinds = [tensor.dtype for tensor in masked.values() if tensor.is_floating_point()]
        tolerance = max((TOLERANCES[kind] for kind in kinds), default=1e-9)
        error = difference(masked, made)
        assert error <= tolerance, f"exact groups only, and outputs differ by {error:.2e}"
    assert small.report is not None
    assert small.report.parameters[1] == count(small.model)
    return small.model


def count(model: nn.Module) -> int:
    """Number of parameter elements; a tied parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def snapshot_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> PruningIR:
    """An IR of ``model`` with one snapshot."""
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", args, dict(kwargs or {}))
    return ir
