"""What is known of a tensor: at which positions it is the same on every input, and its value there.

A :class:`Known` has the shape of its tensor. Dimensions along which everything is alike have stride
0, so what is known of an activation costs a few numbers for each channel, and a view of the tensor
is the same view of what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNKNOWN, NEARLY, EXACTLY = 0, 1, 2
"""States of a position: depends on the input; constant but for the border of a padded layer; constant."""

LARGEST = 1 << 22
"""Tensors of more elements than this are not computed with: they are unknown."""


@dataclass(frozen=True, slots=True)
class Known:
    """Values of a tensor that do not depend on the model's input.

    Attributes:
        value: numbers, float64 on the CPU; of parameters and their views, the parameter itself as
            it is without its mask. Meaningless where unknown; NaN where constant but without a
            number (``meta`` device).
        state: UNKNOWN, NEARLY or EXACTLY, uint8.
        masked: for parameters and their views, what a mask makes zero. A parameter that merely
            happens to be zero may be trained to be something else, so nothing is removed on its
            account. None for everything else: its zeros follow from masks.
    """

    value: Tensor
    state: Tensor
    masked: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that this is known of."""
        return tuple(self.value.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Value and state, and which zeros are masked if that is said."""
        return (self.value, self.state) if self.masked is None else (self.value, self.state, self.masked)

    @property
    def anything(self) -> bool:
        """Whether anything is known at all."""
        (state,) = compress(self.state)
        return bool(state.any())

    @property
    def everything(self) -> bool:
        """Whether every position is exactly known."""
        (state,) = compress(self.state)
        return bool((state == EXACTLY).all())

    def known(self) -> Tensor:
        """Positions of which anything is known. Stride 0 where alike."""
        (state,) = compress(self.state)
        return spread(state != UNKNOWN, self.shape)

    def zeros(self) -> Tensor:
        """Positions that are zero on every input, on account of a mask. Stride 0 where alike."""
        value, state, *masked = compress(*self.tensors)
        return spread(masked[0] if masked else (value == 0) & (state == EXACTLY), self.shape)

    def numbers(self) -> Known:
        """The same as float64 on the CPU, masked, ready to be computed with."""
        value, *masked = compress(self.value, *self.tensors[2:])
        if value.device.type == "meta":
            value = torch.full(value.shape, torch.nan, dtype=torch.float64)
        elif value.is_floating_point():
            value = value.detach().to("cpu", torch.float64)
        if masked and bool(masked[0].any()):
            value = value.masked_fill(masked[0].cpu(), 0)
        return Known(spread(value, self.shape), self.state, self.masked)

    def without_chance(self) -> Known:
        """Parameters that happen to be zero taken for unknown; see ``masked``."""
        if self.masked is None:
            return self
        known = self.numbers()
        value, state, masked = compress(known.value, known.state, self.masked)
        state = torch.where((value == 0) & ~masked.cpu(), UNKNOWN, state)
        return Known(known.value, spread(state.to(torch.uint8), self.shape))


def unknown(shape: Sequence[int]) -> Known:
    """Nothing is known."""
    return constant(0.0, shape, UNKNOWN)


def constant(value: float | Tensor, shape: Sequence[int], state: int | Tensor = EXACTLY) -> Known:
    """Constants in ``value``, broadcast to ``shape``."""
    value = torch.as_tensor(value, dtype=torch.float64)
    return Known(spread(value, shape), spread(torch.as_tensor(state, dtype=torch.uint8), shape))


def compress(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with every dimension along which all of them are alike narrowed to size 1."""
    for dim in range(tensors[0].dim()):
        if tensors[0].shape[dim] > 1 and all(t.stride(dim) == 0 for t in tensors):
            tensors = tuple(t.narrow(dim, 0, 1) for t in tensors)
    return tensors


def spread(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor expanded to ``shape``, with stride 0 along new dimensions.

    >>> spread(torch.ones(1, 3, 1), (2, 3, 4)).stride()[::2]
    (0, 0)
    """
    return tensor.expand(tuple(shape))


def uniform(known: Known, dims: Sequence[int]) -> Known:
    """What holds for all positions of ``dims`` alike; these have size 1 afterwards."""
    known = known.numbers()
    value, state = compress(known.value, known.state)
    for dim in dims:
        if value.shape[dim] > 1:
            first = value.narrow(dim, 0, 1)
            same = ((value == first) | (value.isnan() & first.isnan())).all(dim, keepdim=True)
            state = torch.where(same, state.amin(dim, keepdim=True), UNKNOWN)
            value = first
        elif state.shape[dim] > 1:
            state = state.amin(dim, keepdim=True)
    shape = [1 if d in {dim % len(known.shape) for dim in dims} else n for d, n in enumerate(known.shape)]
    return Known(spread(value, shape), spread(state, shape))


def along(known: Known, dim: int) -> Known:
    """What is known for each position of ``dim``, whatever the positions of the other dimensions."""
    dim %= len(known.shape)
    rest = uniform(known, [d for d in range(len(known.shape)) if d != dim])
    return Known(rest.value.reshape(-1), rest.state.reshape(-1))
