"""First and second moments of an activation, and a covariance that is honest about few examples."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Moments:
    """Sums over everything that was seen along one dimension of an activation.

    Attributes:
        total: sum of ``x``, float64 of shape ``(n,)``.
        products: sum of ``x x^T``, float64 of shape ``(n, n)``; None where only means are wanted.
        count: number of ``x``, float64.
        spread: sum over examples of the squared Frobenius norm of an example's own second moments,
            around the first batch's mean, float64.
        examples: number of examples, float64.
    """

    total: torch.Tensor
    products: torch.Tensor | None
    count: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    spread: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    examples: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def __post_init__(self) -> None:
        self._origin: torch.Tensor | None = None

    @classmethod
    def of(cls, size: int, *, products: bool) -> Moments:
        """Nothing seen yet of ``size`` positions."""
        total = torch.zeros(size, dtype=torch.float64)
        return cls(total, torch.zeros(size, size, dtype=torch.float64) if products else None)

    def add(self, x: torch.Tensor, dim: int) -> None:
        """Take in a batch: its first dimension counts examples, ``dim`` the positions."""
        examples = len(x) if dim % x.dim() else 1
        rows = x.detach().movedim(dim, -1).reshape(-1, x.shape[dim]).float()
        self.total += rows.double().sum(0).cpu()
        self.count += len(rows)
        if self.products is None:
            return
        self.products += (rows.t() @ rows).double().cpu()
        if self._origin is None:
            self._origin = rows.mean(0)
        self.spread += _own_sizes((rows - self._origin).reshape(examples, -1, rows.shape[1])).sum().cpu()
        self.examples += examples

    def __add__(self, other: Moments) -> Moments:
        """What both have seen."""
        total, count = self.total + other.total, self.count + other.count
        if self.products is None or other.products is None:
            return Moments(total, None, count)
        products = self.products + other.products
        return Moments(total, products, count, self.spread + other.spread, self.examples + other.examples)

    @property
    def sums(self) -> list[torch.Tensor]:
        """All sums, to be added over processes in place."""
        squares = [] if self.products is None else [self.products, self.spread, self.examples]
        return [self.total, self.count, *squares]

    @property
    def mean(self) -> torch.Tensor:
        """Mean of every position."""
        return self.total / self.count.clamp_min(1)

    @property
    def covariance(self) -> torch.Tensor:
        """Covariance of all positions, as it is in the data."""
        assert self.products is not None
        return self.products / self.count.clamp_min(1) - torch.outer(self.mean, self.mean)

    def shrunk(self) -> torch.Tensor:
        """The covariance, drawn towards a multiple of the identity as far as examples are few.

        With fewer examples than positions every position seems to be a combination of others, which
        it is not on other data. The share of the identity is the one with the least expected error,
        estimated from how much the examples differ.

        Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
        matrices" (Journal of Multivariate Analysis, 2004), here with an example's places as one draw.

        >>> few, many = (Moments.of(20, products=True) for _ in range(2))
        >>> few.add(torch.randn(10, 20, generator=torch.Generator().manual_seed(0)), 1)
        >>> many.add(torch.randn(10000, 20, generator=torch.Generator().manual_seed(0)), 1)
        >>> [round(float(torch.linalg.eigvalsh(m.shrunk())[0]), 1) for m in (few, many)]
        [0.8, 1.0]
        """
        covariance = self.covariance
        size = covariance.square().sum()
        mean = covariance.diagonal().mean()
        away = (size - len(covariance) * mean.square()).clamp_min(1e-30)
        error = (self.spread / self.examples.clamp_min(1) - size).clamp_min(0) / self.examples.clamp_min(1)
        share = (error / away).clamp_max(1)
        return (1 - share) * covariance + share * mean * torch.eye(len(covariance), dtype=torch.float64)


def _own_sizes(blocks: torch.Tensor) -> torch.Tensor:
    """Of (examples, places, positions): the squared norm of each example's second moments, in float64."""
    places, positions = blocks.shape[1:]
    other = blocks.transpose(1, 2)
    square = blocks @ other if places < positions else other @ blocks
    return (square / places).flatten(1).double().square().sum(1)
