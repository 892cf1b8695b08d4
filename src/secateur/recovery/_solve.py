"""Ridge regression of one layer from sums over its rows, its strength chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates, as shares of the mean square of a feature."""

BLOCK = 256
"""Columns of a matrix of second moments that are computed at once."""


class Sums:
    """Second moments of features ``x``, errors ``e = y - (x W + b)`` and what is wanted, ``y``.

    Rows come as (groups, rows, features) and (groups, rows, outputs) in float32; sums are float64.
    Products are taken in float32 of as many rows at once as there are features.
    """

    def __init__(self) -> None:
        self._totals: list[torch.Tensor] = []
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._rows = 0

    def add(self, x: torch.Tensor, e: torch.Tensor, y: torch.Tensor) -> None:
        """Take in rows."""
        if not x.shape[1]:
            return
        self._waiting.append((x, e, y))
        self._rows += x.shape[1]
        # Few rows at a time would spend more on reading and writing the sums than on the products.
        if self._rows >= x.shape[2]:
            self._work_off()

    @property
    def _sums(self) -> list[torch.Tensor]:
        self._work_off()
        return self._totals

    def _work_off(self) -> None:
        """Sum what is waiting."""
        if not self._waiting:
            return
        x, e, y = (torch.cat(parts, 1) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._rows = [], 0
        if not self._totals:
            self._totals = _zeros(x, e)
        count, square, cross, features, errors, error, results, result = self._totals
        count += x.shape[1]
        _add_square(square, x)
        _add(cross, x.transpose(1, 2) @ e)
        _add(features, x.sum(1))
        _add(errors, e.sum(1))
        _add(error, _wide(e).square().sum())
        _add(results, y.sum(1))
        _add(result, _wide(y).square().sum())

    def __add__(self, other: Sums) -> Sums:
        both = Sums()
        both._totals = [a + b for a, b in zip(self._sums, other._sums, strict=True)]
        return both

    def reduce(self, total: Callable[..., None]) -> None:
        """Sum over all processes, by a function that does so in place."""
        total(*self._sums)

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self._sums[0]) if self._sums else 0

    @property
    def features(self) -> int:
        """Length of a row."""
        return self._sums[3].shape[1]

    @property
    def parts(self) -> list[torch.Tensor]:
        """``x^T x``, ``x^T e``, ``x`` and ``e``, summed."""
        return self._sums[1:5]

    @property
    def error(self) -> float:
        """Sum of squared errors."""
        return float(self._sums[5])

    @property
    def variance(self) -> float:
        """Sum of squares of what is wanted, around its mean."""
        _, _, _, _, _, _, total, square = self._sums
        return max(float(square) - float(total.square().sum()) / self.count, 1e-30)

    def error_with(self, change: Change) -> float:
        """The squared error after a change."""
        square, cross, x, e = self.parts
        w, b = change.weight, change.bias
        loss = self.error - 2 * float((w * cross).sum()) + float((w * (square @ w)).sum())
        if b is not None:
            shift = (x[:, None] @ w)[:, 0]
            loss += float((self.count * b.square() - 2 * b * e + 2 * b * shift).sum())
        return max(loss, 0.0)


@dataclass
class Change:
    """What is added to the weights, (groups, features, outputs), and to the bias, (groups, outputs)."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass
class Solution:
    """The best change for a layer.

    Attributes:
        change: None to leave the layer as it is.
        ridge: strength that was chosen; infinite where only the bias changes.
        before: held-out squared error as it is, as a share of the variance of what is wanted.
        after: with the change that the other rows ask for.
    """

    change: Change | None
    ridge: float
    before: float
    after: float


def solve(train: Sums, held: Sums, *, bias: bool, ridges: Sequence[float] = RIDGES) -> Solution:
    """Ridge regression towards the weights as they are; strength and use decided on held-out rows.

    With the strength decided, the change itself is found from all rows.
    """
    candidates = [(float("inf"), _only_bias(train))] if bias else []
    candidates += [(ridge, change) for ridge in ridges if (change := _ridge(train, ridge, bias)) is not None]
    scale = held.variance
    before = held.error / scale
    errors = [held.error_with(change) / scale for _, change in candidates]
    best = min(range(len(errors)), key=errors.__getitem__, default=-1)
    if best < 0 or not errors[best] < before:
        return Solution(None, float("inf"), before, before)
    ridge = candidates[best][0]
    every = train + held
    change = _only_bias(every) if ridge == float("inf") else _ridge(every, ridge, bias)
    return Solution(change or candidates[best][1], ridge, before, errors[best])


def _only_bias(sums: Sums) -> Change:
    _, cross, _, e = sums.parts
    return Change(torch.zeros_like(cross), e / sums.count)


def _ridge(sums: Sums, ridge: float, bias: bool) -> Change | None:
    """None where the sums have no full rank even so."""
    square, cross, x, e = sums.parts
    share = -1 / sums.count if bias else 0.0
    square = torch.baddbmm(square, x[:, :, None], x[:, None], alpha=share)
    cross = torch.baddbmm(cross, x[:, :, None], e[:, None], alpha=share)
    diagonal = square.diagonal(dim1=1, dim2=2)
    diagonal += ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-30)
    factor, failed = torch.linalg.cholesky_ex(square)
    if bool(failed.any()):
        return None
    weight = torch.cholesky_solve(cross, factor)
    if not bias:
        return Change(weight, None)
    return Change(weight, (e - (x[:, None] @ weight)[:, 0]) / sums.count)


def _zeros(x: torch.Tensor, e: torch.Tensor) -> list[torch.Tensor]:
    """Sums over no rows, in float64; on the CPU if the device has none."""
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    groups, _, features = x.shape
    shapes = [(groups, features, features), (groups, features, e.shape[2]), (groups, features)]
    each: Sequence[tuple[int, ...]] = [*shapes, (groups, e.shape[2]), (), (groups, e.shape[2]), ()]
    sums = [torch.zeros(shape, dtype=torch.float64, device=device) for shape in each]
    return [torch.zeros((), dtype=torch.float64), *sums]


def _add_square(total: torch.Tensor, x: torch.Tensor) -> None:
    """Add ``x^T x``, of which only the blocks on and above the diagonal are computed."""
    for start in range(0, x.shape[2], BLOCK):
        stop = start + BLOCK
        block = x[..., start:stop].transpose(1, 2) @ x[..., start:]
        _add(total[:, start:stop, start:], block)
        _add(total[:, stop:, start:stop], block[..., BLOCK:].transpose(1, 2))


def _add(total: torch.Tensor, more: torch.Tensor) -> None:
    total += more.to(total.device)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, on the CPU if the device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
