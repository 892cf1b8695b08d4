"""Greedy elimination: which label costs least, given those that are gone and all that others make good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ONE_BY_ONE = 96
"""Up to so many labels are taken off one by one on the whole matrices."""

SHARE = 16
"""Of more labels, one part in so many is taken off at a time, chosen among four times as many."""

_GONE = 1e30


@dataclass
class Layer:
    """A layer that reads the labels, for the elimination.

    Attributes:
        precision: inverse covariance of its inputs, of shape ``(n, n)``.
        gram: inner products of its weights by input, weighted by how much its outputs matter, ``(n, n)``.
        positions: for each label that is not gone, the inputs that belong to it.
    """

    precision: torch.Tensor
    gram: torch.Tensor
    positions: list[torch.Tensor]

    def __post_init__(self) -> None:
        self._single = all(len(own) == 1 for own in self.positions)

    def increases(self, alive: Sequence[int]) -> torch.Tensor:
        """For each of these labels: by how much the error grows if it goes too."""
        if self._single:
            own = torch.cat([self.positions[label] for label in alive])
            return self.gram.diagonal()[own] / self.precision.diagonal()[own].clamp_min(1e-30)
        return torch.stack([self._increase(self.positions[label]) for label in alive])

    def _increase(self, own: torch.Tensor) -> torch.Tensor:
        block = self.precision[own[:, None], own]
        return torch.linalg.solve(block, self.gram[own[:, None], own]).trace()

    def remove(self, labels: Sequence[int]) -> None:
        """Take labels off, and let the inputs that stay make good what they can."""
        own = torch.cat([self.positions[label] for label in labels])
        block = self.precision[own[:, None], own]
        share = torch.linalg.solve(block, self.precision[own]).t()  # (n, positions that go)
        lost = share @ self.gram[own]
        self.gram += share @ self.gram[own[:, None], own] @ share.t() - lost - lost.t()
        self.precision -= share @ self.precision[own]
        self.gram[own], self.gram[:, own] = 0.0, 0.0
        self.precision[own], self.precision[:, own] = 0.0, 0.0
        self.precision[own, own] = _GONE

    def only(self, labels: Sequence[int]) -> Layer:
        """The part that concerns these labels, numbered anew."""
        own = torch.cat([self.positions[label] for label in labels])
        each = len(self.positions[labels[0]])
        positions = list(torch.arange(len(own)).split(each))
        return Layer(self.precision[own[:, None], own], self.gram[own[:, None], own], positions)


def eliminate(layers: Sequence[Layer], size: int) -> torch.Tensor:
    """Scores from taking labels off one by one, the cheapest first.

    The score of a label is the increase of the error of all ``layers`` when it goes, and never below
    that of one that went before it; so the sum of the lowest scores is the error without them.

    Of many labels only the cheapest are looked at until some of them are gone; what they do to each
    other is exact, and what they do to the rest is made up for at once.

    Args:
        layers: those that read the labels; used up.
        size: the number of labels.

    Returns:
        A float64 tensor of shape ``(size,)``.

    Two inputs that are nearly the same: one is free, as long as the other stays.

    >>> covariance = torch.tensor([[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    >>> positions = [torch.tensor([i]) for i in range(3)]
    >>> layer = Layer(torch.linalg.inv(covariance), torch.eye(3).double(), positions)
    >>> [round(score, 2) for score in eliminate([layer], 3).tolist()]
    [0.0, 2.0, 1.0]
    """
    scores = torch.zeros(size, dtype=torch.float64)
    alive = list(range(size))
    highest = 0.0
    while alive:
        few = len(alive) <= ONE_BY_ONE
        take = len(alive) if few else len(alive) // SHARE
        increase = torch.stack([layer.increases(alive) for layer in layers]).sum(0)
        nearest = torch.argsort(increase, stable=True)[: None if few else 4 * take]
        candidates = [alive[place] for place in sorted(nearest.tolist())]
        order = _one_by_one([layer.only(candidates) for layer in layers], len(candidates), take)
        gone = [candidates[place] for place, _ in order]
        for label, (_, cost) in zip(gone, order, strict=True):
            highest = max(highest, cost)
            scores[label] = highest
        left = set(gone)
        alive = [label for label in alive if label not in left]
        for layer in layers if alive else ():
            layer.remove(gone)
    return scores


def _one_by_one(layers: Sequence[Layer], size: int, count: int) -> list[tuple[int, float]]:
    """The ``count`` labels that go first, with the increase of the error at each."""
    alive = list(range(size))
    order: list[tuple[int, float]] = []
    while len(order) < count:
        increase = torch.stack([layer.increases(alive) for layer in layers]).sum(0)
        place = int(increase.argmin())
        order.append((alive.pop(place), float(increase[place])))
        for layer in layers if alive else ():
            layer.remove([order[-1][0]])
    return order
