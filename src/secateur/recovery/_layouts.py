"""Weighted sums as matrix products: what one row of the inputs is, and where the weights belong.

Every operator here computes ``y = rows(x) @ matrix(weight) + bias`` for each of its groups. A layout
says how, so that one least squares problem serves linear layers and all kinds of convolutions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch.nn import functional as F


class Layout(ABC):
    """How an operator's input and weight become rows and a matrix.

    Positions count the places at which the operator makes a result: examples, then steps or pixels.
    """

    @property
    def channel(self) -> int:
        """The dimension of the input that is summed over, counted from the end."""
        return -1

    def inputs(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Some places of the input, (places, channels)."""
        return x.movedim(self.channel, -1).reshape(-1, x.shape[self.channel])[at]

    @abstractmethod
    def positions(self, x: torch.Tensor, weight: torch.Tensor) -> int:
        """How many there are."""

    @abstractmethod
    def rows(self, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The inputs of some positions, of shape (groups, positions, features)."""

    def places(self, y: torch.Tensor) -> int:
        """How many positions a result has."""
        return y.numel() // y.shape[self.channel]

    def results(self, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Some positions of a tensor that has the shape of the result, (positions, outputs of all groups)."""
        return y.reshape(-1, y.shape[-1])[at]

    @abstractmethod
    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights, of shape (groups, features, outputs)."""

    @abstractmethod
    def weight(self, matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The other way: a tensor of the shape of ``like``."""

    @abstractmethod
    def outputs(self, shape: Sequence[int]) -> int:
        """Results at a position, of all groups, for weights of this shape."""


@dataclass(frozen=True)
class Dense(Layout):
    """A linear layer.

    ``transposed``: the weight is (features, outputs), as in GPT-2's ``Conv1D``. ``swapped``: of a result
    with three dimensions the second one counts examples.
    """

    transposed: bool = False
    swapped: bool = False

    def positions(self, x: torch.Tensor, weight: torch.Tensor) -> int:
        """All but the last dimension."""
        return x.numel() // x.shape[-1]

    def results(self, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Rows of the flattened result."""
        return super().results(y.transpose(0, 1) if self.swapped and y.dim() == 3 else y, at)

    def rows(self, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Rows of the flattened input."""
        return x.reshape(-1, x.shape[-1])[at][None]

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight itself."""
        return (weight if self.transposed else weight.t())[None]

    def weight(self, matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The weight itself."""
        return matrix[0] if self.transposed else matrix[0].t()

    def outputs(self, shape: Sequence[int]) -> int:
        """One dimension."""
        return shape[1 if self.transposed else 0]


@dataclass(frozen=True)
class Stacked(Layout):
    """A batched product with weights of shape (groups, features, outputs), as of fused experts."""

    def positions(self, x: torch.Tensor, weight: torch.Tensor) -> int:
        """The rows of each group."""
        return x.shape[1]

    def rows(self, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The same rows of every group."""
        return x[:, at]

    def places(self, y: torch.Tensor) -> int:
        """The rows of each group."""
        return y.shape[1]

    def results(self, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The same rows of every group, side by side."""
        return y[:, at].transpose(0, 1).flatten(1)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight itself."""
        return weight

    def weight(self, matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The weight itself."""
        return matrix

    def outputs(self, shape: Sequence[int]) -> int:
        """Of all groups."""
        return shape[0] * shape[2]


@dataclass(frozen=True)
class Convolution(Layout):
    """A convolution of any number of dimensions, grouped, dilated, or transposed.

    A transposed convolution is an ordinary one of stride 1, with mirrored kernels, over its input
    spread out by its stride.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] = ()
    transposed: bool = False

    @property
    def channel(self) -> int:
        """In front of space."""
        return -1 - len(self.stride)

    def positions(self, x: torch.Tensor, weight: torch.Tensor) -> int:
        """Examples times places of the result."""
        windows = self._windows(x, weight)
        return windows.shape[0] * prod(windows.shape[2 : windows.dim() - len(self.stride)])

    def rows(self, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The window of each position, channels first."""
        windows = self._windows(x, weight)
        space = len(self.stride)
        places = (windows.shape[0], *windows.shape[2 : 2 + space])
        index = torch.unravel_index(at, places)
        taken = windows.movedim(1, 1 + space)[index]  # (positions, channels, *kernel)
        return taken.reshape(len(at), self.groups, -1).transpose(0, 1)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Kernels of every group, one column an output."""
        if not self.transposed:
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1).transpose(1, 2)
        taps = weight.flip(tuple(range(2, weight.dim()))).flatten(2)
        each = taps.reshape(self.groups, -1, *taps.shape[1:])  # (groups, inputs, outputs, taps)
        return each.transpose(2, 3).flatten(1, 2)

    def weight(self, matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The other way."""
        if not self.transposed:
            return matrix.transpose(1, 2).reshape(like.shape)
        each = matrix.reshape(self.groups, -1, prod(like.shape[2:]), like.shape[1]).transpose(2, 3)
        return each.reshape(like.shape).flip(tuple(range(2, like.dim())))

    def results(self, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Channels at some places of the result."""
        y = y if y.dim() == len(self.stride) + 2 else y[None]
        index = torch.unravel_index(at, (y.shape[0], *y.shape[2:]))
        return y.movedim(1, -1)[index]

    def outputs(self, shape: Sequence[int]) -> int:
        """Channels of the result."""
        return self.groups * shape[1] if self.transposed else shape[0]

    def _windows(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A view of shape (examples, channels, *places, *kernel)."""
        space = len(self.stride)
        x = x if x.dim() == space + 2 else x[None]
        kernel = weight.shape[2:]
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        stride = self.stride
        if self.transposed:
            x, stride = self._spread(x, reach), (1,) * space
        else:
            x = F.pad(x, _flat_pads(self._pads(reach)))
        places = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
        steps = x.stride()[2:]
        return x.as_strided(
            (*x.shape[:2], *places, *kernel),
            (
                *x.stride()[:2],
                *(step * s for step, s in zip(steps, stride, strict=True)),
                *(step * d for step, d in zip(steps, self.dilation, strict=True)),
            ),
        )

    def _pads(self, reach: list[int]) -> list[tuple[int, int]]:
        if self.padding == "same":
            return [(r // 2, r - r // 2) for r in reach]
        if isinstance(self.padding, str):
            return [(0, 0) for _ in reach]
        return [(p, p) for p in self.padding]

    def _spread(self, x: torch.Tensor, reach: list[int]) -> torch.Tensor:
        sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], self.stride, strict=True)]
        wide = x.new_zeros(*x.shape[:2], *sizes)
        wide[(..., *(slice(None, None, s) for s in self.stride))] = x
        assert not isinstance(self.padding, str)
        pads = [
            (r - p, r - p + extra)
            for r, p, extra in zip(reach, self.padding, self.output_padding, strict=True)
        ]
        return F.pad(wide, _flat_pads(pads))


def _flat_pads(pads: list[tuple[int, int]]) -> list[int]:
    return [n for pair in reversed(pads) for n in pair]
