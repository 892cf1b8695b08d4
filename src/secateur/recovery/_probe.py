"""A loss whose gradients tell what the outputs are sensitive to, without labels."""

from __future__ import annotations

from typing import Any

import torch

from .._errors import RecoveryError
from ..capture import named_tensors


def output_probe(output: Any, generator: torch.Generator | None = None) -> torch.Tensor:
    """The outputs along a random direction: what to differentiate where a model is to be imitated.

    For criteria that square gradients, on data without labels. The distance to the model's own outputs
    has no gradient at the model itself. But for outputs ``f`` with Jacobian ``J`` and a random vector
    ``z`` of unit covariance, the gradient of ``z^T f`` has the covariance ``J^T J``, the Gauss-Newton
    matrix of the squared error of the outputs. So :class:`secateur.ReconstructionCriterion` scores by
    that error, which suits embeddings and regressions; for logits of classes
    :func:`secateur.criteria.drawn_cross_entropy` does the same for the KL divergence.

    Source: random vectors for traces are from Hutchinson, "A stochastic estimator of the trace of the
    influence matrix" (1990).

    Args:
        output: what the model put out: floating-point tensors of shape ``(examples, ...)``, alone or
            anywhere in tuples, dicts and dataclasses. All their numbers count alike.
        generator: for the draws; by default torch's own random state is used, and moves on.

    Returns:
        A scalar, a mean over examples.

    Raises:
        RecoveryError: if there is no floating-point tensor in the output.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> ir = secateur.PruningIR(model)
        >>> draws = torch.Generator().manual_seed(0)
        >>> with secateur.ReconstructionCriterion(ir) as collect:
        ...     for x in torch.randn(3, 16, 4):
        ...         secateur.recovery.output_probe(collect(x), draws).backward()
        >>> ir.scores()["0"].shape
        torch.Size([8])
    """
    tensors = [tensor for _, tensor in named_tensors(output, "") if tensor.is_floating_point()]
    if not tensors:
        raise RecoveryError("the model's output has no floating-point tensor to probe")
    return torch.stack([_probed(tensor, generator) for tensor in tensors]).sum()


def _probed(tensor: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    device = tensor.device if generator is None else generator.device
    direction = torch.randn(tensor.shape, generator=generator, device=device).to(tensor)
    return (tensor * direction).sum() / (len(tensor) if tensor.dim() else 1)
