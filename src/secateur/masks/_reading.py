"""Readings: where a layer sums over positions, with which of its weights, and where a constant may go.

A :class:`Reading` is one weighted sum ``out = W x + b`` of the graph in a normal form: positions of
``x`` in columns, positions of ``out`` in rows, both in ``groups`` blocks that do not see each other
(grouped convolutions; one block otherwise). Kernel taps are the last dimension of ``W``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..axes import Dim
from ..capture import Node
from ._known import EXACTLY, NEARLY, UNKNOWN, Known, compress

_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class BiasPlace:
    """Where a constant can be added to the rows of a layer.

    Attributes:
        name: path of the bias parameter, which may not exist yet.
        exists: whether it does.
        weight: path of the weight that it belongs to, and the dimension of it that has the rows.
        row: the first row of the bias that belongs to the reading.
    """

    name: str
    exists: bool
    weight: tuple[str, int]
    row: int = 0


@dataclass(frozen=True)
class Weights:
    """A weight that ``arrange`` brings into normal form: (groups, rows, columns, taps).

    ``present`` says which weights are not masked: None for all of them, a pair (rows, columns) where
    whole rows and columns are masked and nothing else, or a tensor (groups, rows, columns).
    """

    shape: tuple[int, int, int, int]
    known: Known
    arrange: Callable[[Tensor], Tensor]
    present: tuple[Tensor, Tensor] | Tensor | None
    trusted: bool = True

    @staticmethod
    def of(known: Known, arrange: Callable[[Tensor], Tensor]) -> Weights:
        """Of a tensor that ``arrange`` brings into normal form."""
        shape: Any = tuple(arrange(known.value).shape)
        if not known.everything:
            return Weights(shape, known, arrange, None, trusted=False)
        return Weights(shape, known, arrange, _pattern(arrange(known.zeros())))

    def columns(self, which: Tensor) -> Tensor:
        """The weights of some columns, masked, as float64 on the CPU; NaN where there are no numbers."""
        parts = []
        for tensor in (self.known.value, *self.known.tensors[2:]):
            parts.append(self.arrange(tensor.detach()).index_select(2, which.to(tensor.device)))
        if parts[0].device.type == "meta":
            parts[0] = torch.full(parts[0].shape, torch.nan)
        value = parts[0].to("cpu", torch.float64)
        return value.masked_fill(parts[1].cpu(), 0) if len(parts) > 1 else value

    def rows_with(self, columns: Tensor) -> Tensor:
        """Rows (groups, rows) that have a weight in one of ``columns`` (groups, columns)."""
        if self.present is None:
            return columns.any(1, keepdim=True).expand(self.shape[:2])
        if isinstance(self.present, tuple):
            rows, own = self.present
            return rows & (own & columns).any(1, keepdim=True)
        return (self.present & columns[:, None, :]).any(2)

    def columns_with(self, rows: Tensor) -> Tensor:
        """Columns (groups, columns) that have a weight in one of ``rows`` (groups, rows)."""
        if self.present is None:
            return rows.any(1, keepdim=True).expand(self.shape[0], self.shape[2])
        if isinstance(self.present, tuple):
            own, columns = self.present
            return columns & (own & rows).any(1, keepdim=True)
        return (self.present & rows[:, :, None]).any(1)


def _pattern(gone: Tensor) -> tuple[Tensor, Tensor] | Tensor | None:
    """What of a weight in normal form is there: see :class:`Weights`."""
    groups, rows_, columns_, _ = gone.shape
    (small,) = compress(gone)  # masks of whole rows are a few numbers
    if not bool(small.any()):
        return None
    present = (~small).any(-1).cpu()
    rows, columns = present.any(2), present.any(1)
    if not bool((present == (rows[:, :, None] & columns[:, None, :])).all()):
        return present.expand(groups, rows_, columns_)
    if bool(rows.all() & columns.all()):
        return None
    return rows.expand(groups, rows_), columns.expand(groups, columns_)


@dataclass
class Reading:
    """One weighted sum; see the module's docstring.

    Attributes:
        node: the operator call.
        source: what is known along the positions that are summed, as (groups, columns).
        weights: the weight in normal form.
        taps: how often each kernel tap falls inside the input, from 0 to 1 (all 1 without padding).
        columns: the dimension of the input that is summed, row-major (groups, columns).
        rows: the dimension that the rows belong to, and which part of it they are, row-major (groups, rows).
        bias: where constants can be folded, or in words why they cannot.
        weight: path of the weight, empty if it is no parameter; and how many operators read it.
        start: what the result has without any input, (groups, rows): the bias.
    """

    node: Node
    source: Known
    weights: Weights
    taps: Tensor
    columns: Dim
    rows: tuple[Dim, slice]
    bias: BiasPlace | str
    start: Known
    weight: str = ""
    readers: int = 1

    @property
    def bordered(self) -> bool:
        """Whether zeros are padded to the input, so that a constant is not one at the border."""
        return bool((self.taps != 1).any())

    @cached_property
    def nonzero(self) -> Tensor:
        """Columns that carry something else than zero."""
        return ~((self.source.state == EXACTLY) & (self.source.value == 0))

    def fed(self, columns: Tensor) -> Tensor:
        """(groups, rows): what ``columns`` (groups, columns) add to every row, on the average."""
        picked = torch.where(columns & self.nonzero, self.source.value, 0.0)
        total = torch.zeros(self.weights.shape[:2], dtype=torch.float64)
        used = torch.nonzero((picked != 0).any(0)).flatten()
        if not len(used):
            return total
        rows, _, taps = self.weights.shape[1:]
        many = max(1, _AT_ONCE // max(1, self.weights.shape[0] * rows * taps))
        for some in used.split(many):  # a slice at a time: large layers are not copied whole
            total += torch.einsum("grct,t,gc->gr", self.weights.columns(some), self.taps, picked[:, some])
        return total

    def result(self) -> Known:
        """What is known of the result, (groups, rows)."""
        hidden = self.source.state == UNKNOWN
        if not self.weights.trusted:  # a weight that is not known makes something unknown of any number
            hidden = hidden | self.nonzero
        unknown_rows = self.weights.rows_with(hidden)
        nearly = (self.source.state == NEARLY) | torch.tensor(self.bordered)
        state = torch.where(self.weights.rows_with(nearly & self.nonzero), NEARLY, EXACTLY)
        state = torch.minimum(torch.where(unknown_rows, UNKNOWN, state), self.start.state)
        value, given = self.start.value, self.source.state != UNKNOWN
        if bool(((state != UNKNOWN) & self.weights.rows_with(given & self.nonzero)).any()):
            value = value + self.fed(given)  # only rows that are known are looked at later
        return Known(value, state.to(torch.uint8))
