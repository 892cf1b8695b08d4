"""A loss for data without labels: what the model answers, drawn by its own probabilities."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def drawn_cross_entropy(logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Cross entropy against classes that are drawn from the model's own probabilities.

    For criteria that square gradients, on data without labels. Against the model's own soft answer the
    gradient of a cross entropy or a KL divergence is zero: what is left of it is rounding. Against
    drawn classes the mean square of the gradient is Fisher information, and so the curvature of the
    KL divergence from the model as it is.

    Source: Kunstner et al., "Limitations of the empirical Fisher approximation" (NeurIPS 2019), where
    this is the Monte-Carlo estimate of the Fisher information.

    Args:
        logits: of shape ``(examples, classes)`` or ``(examples, classes, ...)``, float.
        generator: for the draws; by default torch's own random state is used, and moves on.

    Returns:
        The mean over all that is drawn, a scalar.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
        >>> drawn_cross_entropy(logits, torch.Generator().manual_seed(0)).backward()
        >>> bool((logits.grad != 0).all())
        True
    """
    last = logits.detach().movedim(1, -1).float()
    chances = last.softmax(-1).flatten(0, -2)
    if generator is not None:
        chances = chances.to(generator.device)
    drawn = torch.multinomial(chances, 1, generator=generator)
    return F.cross_entropy(logits, drawn.reshape(last.shape[:-1]).to(logits.device))
