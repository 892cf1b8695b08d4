"""Run two models on the same inputs and measure how far their outputs are apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .._errors import VerificationError
from ..capture import map_tensors, named_tensors, untouched

TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}

# An operator rounds as often as a change of the parameters does, and a model has more of them.
ROUNDINGS = 10
# Outputs that rounding moves further than this say nothing about a cut: no comparison of them passes.
TELLING = 1e-2


@dataclass(frozen=True)
class Comparison:
    """One output of the two models on one draw of inputs: ``|a - b| / |a|`` in the L2 norm."""

    output: str
    draw: int
    error: float
    shape: tuple[int, ...]


@dataclass
class Verification:
    """What a comparison of two models found.

    Attributes:
        comparisons: an entry for each output tensor and draw.
        tolerance: the largest relative error that counts as equal at the outputs' precision.
        at: what was compared, in words.
        rounding: how far the outputs move when every parameter changes by its last bit; measured where
            errors are beyond the tolerance, else zero. Up to ten times that, and a hundredth of the outputs,
            is no difference.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    tolerance: float = 1e-4
    at: str = "the model's outputs"
    rounding: float = 0.0

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max((c.error for c in self.comparisons), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether all errors are within the tolerance, or within what rounding does to this model."""
        within = max(self.tolerance, min(ROUNDINGS * self.rounding, TELLING))
        return all(c.error <= within for c in self.comparisons)

    @property
    def telling(self) -> bool:
        """Whether rounding alone moves the outputs so little that comparing them says something."""
        return ROUNDINGS * self.rounding <= TELLING

    def __str__(self) -> str:
        verdict = "equal" if self.passed else "different"
        text = (
            f"{verdict}: relative error {self.error:.2e} (tolerance {self.tolerance:.0e}) over "
            f"{len(self.comparisons)} comparisons at {self.at}"
        )
        if self.rounding:
            text += f"; a change of every parameter's last bit moves the outputs by {self.rounding:.2e}"
        return text


def tolerance_of(dtype: torch.dtype) -> float:
    """Relative error that counts as equal for outputs of a precision."""
    return TOLERANCES.get(dtype, 1e-4)


def verify(
    reference: nn.Module,
    candidate: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    draws: int = 2,
    seed: int = 0,
) -> Verification:
    """Compare two models on ``args`` and ``kwargs``, and on random inputs like them.

    Both run in eval mode without gradients and are given back as they were.

    Args:
        reference: the model to agree with, usually ``ir.masked(labels=...)``.
        candidate: the model to judge.
        args: positional inputs. The first draw uses them as they are.
        kwargs: keyword inputs.
        draws: how many draws; from the second on, floating-point inputs are normal noise with the
            mean and deviation of the given ones, and integer inputs are the given ones shuffled.
        seed: of the random draws. The caller's random state is left alone.

    Raises:
        VerificationError: if the outputs differ in structure, in shape, or are not finite in one only.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 2)
        >>> verify(layer, layer, (torch.ones(1, 4),)).passed
        True
    """
    inputs = list(draw_inputs(args, kwargs or {}, draws, seed))
    return compare([run(reference, *i) for i in inputs], [run(candidate, *i) for i in inputs])


def draw_inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any], draws: int, seed: int = 0
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The given inputs, then random ones like them."""
    generator = torch.Generator().manual_seed(seed)
    for draw in range(draws):
        inputs = (tuple(args), kwargs)
        yield map_tensors(inputs, lambda t: _like(t, generator)) if draw else inputs


def compare(
    reference: Sequence[Any], candidate: Sequence[Any], at: str = "the model's outputs"
) -> Verification:
    """Compare what two models put out on the same draws."""
    report = Verification(at=at)
    tolerances = []
    for draw, (left, right) in enumerate(zip(reference, candidate, strict=True)):
        report.comparisons += compare_outputs(left, right, draw)
        tolerances += [tolerance_of(t.dtype) for _, t in named_tensors(left) if t.is_floating_point()]
    report.tolerance = max(tolerances, default=report.tolerance)
    return report


def run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Outputs of a model in eval mode, on copies of its inputs; the model stays as it was."""
    args, kwargs = map_tensors((args, kwargs), lambda tensor: tensor.detach().clone())
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with untouched(model):
        result = model(*args, **kwargs)
    for buffer, value in buffers:
        buffer.copy_(value)
    return result


def compare_outputs(reference: Any, candidate: Any, draw: int = 0) -> Iterator[Comparison]:
    """Relative L2 error of every floating-point tensor in two equal structures of outputs."""
    left, right = dict(named_tensors(reference, "output")), dict(named_tensors(candidate, "output"))
    if left.keys() != right.keys():
        raise VerificationError(f"the outputs differ in structure: {list(left)} and {list(right)}")
    floating = any(tensor.is_floating_point() for tensor in left.values())
    for name, a in left.items():
        b = right[name]
        if floating and not a.is_floating_point() and not a.is_complex():
            continue  # indices and decisions follow from the floats, and flip where two are equal
        if a.shape != b.shape:
            raise VerificationError(f"{name} has shape {tuple(a.shape)} and {tuple(b.shape)}")
        yield Comparison(name, draw, relative_error(a, b), tuple(a.shape))


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """``|a - b| / |a|``; infinite where only one of the two is finite."""
    if not (a.is_floating_point() or a.is_complex()):
        return float((a != b).double().mean()) if a.numel() else 0.0
    same = (a == b) | (a.isnan() & b.isnan())  # infinities that agree do not count
    kind = torch.complex128 if a.is_complex() else torch.float64
    zero = torch.zeros((), dtype=kind, device=a.device)
    difference = torch.where(same, zero, a.to(kind) - b.to(kind))
    scale = torch.where(a.isfinite(), a.to(kind), zero).norm()
    error = difference.norm() / scale.clamp_min(torch.finfo(torch.float64).tiny)
    if not bool(difference.any()):
        return 0.0
    return float(error) if bool(error.isfinite()) else float("inf")


def _like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another tensor of the same kind: noise for floats, the same values in another order for integers."""
    if tensor.is_floating_point():
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        spread = tensor.float().std() if tensor.numel() > 1 else torch.ones(())
        return (noise * spread.to(tensor) + tensor.float().mean().to(tensor)).to(tensor)
    if tensor.dtype in (torch.int64, torch.int32) and tensor.numel() > 1:
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        return tensor.flatten()[order].reshape(tensor.shape)
    return tensor
