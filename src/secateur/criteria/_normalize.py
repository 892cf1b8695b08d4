"""Making the scores of different groups comparable."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import torch

from .._errors import ScoreError

Scores = dict[str, torch.Tensor]
"""A float64 tensor of shape ``(size,)`` for every group name; the lowest are the first to go."""


class Normalize(Enum):
    """How scores are made comparable across groups; their order within a group never changes.

    - ``none``: as they are.
    - ``mean``: divided by the group's mean, so that every group has mean 1.
    - ``max``: divided by the group's largest.
    - ``standard``: the group's mean subtracted, divided by its standard deviation.
    - ``macs``: divided by the multiply-accumulates that taking one label off saves: score per cost,
      as in HALP's latency-saliency view.
    """

    NONE = "none"
    MEAN = "mean"
    MAX = "max"
    STANDARD = "standard"
    MACS = "macs"

    @classmethod
    def _missing_(cls, value: object) -> Normalize:
        raise ScoreError(f"normalize is one of {[n.value for n in cls]}, got {value!r}")


def normalize_scores(
    scores: Mapping[str, torch.Tensor],
    normalize: Normalize | str = Normalize.NONE,
    *,
    savings: Mapping[str, float] | None = None,
) -> Scores:
    """Scores of each group, brought to a common scale.

    Args:
        scores: by group name, each of shape ``(size,)``.
        normalize: see :class:`Normalize`.
        savings: for ``macs``, what one label of each group costs.

    Raises:
        ScoreError: for an unknown way, or for ``macs`` without savings.

    Example:
        >>> normalize_scores({"a": torch.tensor([1.0, 3.0])}, "mean")["a"]
        tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    way = Normalize(normalize)
    if way is Normalize.MACS and savings is None:
        raise ScoreError("normalize='macs' needs what a label of each group saves: savings={name: macs}")
    return {
        name: _normalized(score.double(), way, (savings or {}).get(name, 1.0))
        for name, score in scores.items()
    }


def _normalized(score: torch.Tensor, way: Normalize, saved: float) -> torch.Tensor:
    if way is Normalize.MEAN:
        return score / _nonzero(score.mean())
    if way is Normalize.MAX:
        return score / _nonzero(score.max())
    if way is Normalize.STANDARD:
        return (score - score.mean()) / _nonzero(score.std(correction=0))
    if way is Normalize.MACS:
        return score / max(saved, 1.0)
    return score


def _nonzero(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value == 0, 1.0, value)
