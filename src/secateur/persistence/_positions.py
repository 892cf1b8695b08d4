"""Kept positions as text: runs, which are shorter than a list and easier to read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..axes import Positions


def to_text(positions: Sequence[int] | Positions) -> str:
    """Ascending positions as text.

    >>> to_text([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    return _runs_of(np.asarray(positions, dtype=np.int64).tobytes())


@lru_cache(maxsize=256)
def _runs_of(data: bytes) -> str:
    """The runs in an array; one keep set serves many tensors, so it is remembered."""
    array = np.frombuffer(data, dtype=np.int64)
    if not len(array):
        return ""
    breaks = np.flatnonzero(np.diff(array) != 1)
    firsts = array[np.concatenate([[0], breaks + 1])].tolist()
    lasts = array[np.concatenate([breaks, [len(array) - 1]])].tolist()
    return ",".join(
        f"{first}-{last}" if last > first else str(first) for first, last in zip(firsts, lasts, strict=True)
    )


def from_text(text: str) -> Positions:
    """The positions that :func:`to_text` wrote.

    >>> from_text("0-2,5,7-8")
    array([0, 1, 2, 5, 7, 8])
    """
    runs = [np.arange(first, last + 1) for first, last in _runs(text)]
    return np.concatenate([np.zeros(0, np.int64), *runs])


@lru_cache(maxsize=256)
def count(text: str) -> int:
    """How many positions a text stands for, without making them.

    >>> count("0-2,5,7-8")
    6
    """
    return sum(last - first + 1 for first, last in _runs(text))


def check(text: str, size: int) -> None:
    """That a text stands for ascending positions of a dimension of ``size``.

    Raises:
        ValueError: if it does not.
    """
    ends = [-1]
    for first, last in _runs(text):
        if not ends[-1] < first <= last < size:
            raise ValueError(f"{text!r} are no positions of a dimension of {size}")
        ends += [first, last]


def _runs(text: str) -> list[tuple[int, int]]:
    runs = [[int(end) for end in run.split("-")] for run in text.split(",")] if text else []
    return [(run[0], run[-1]) for run in runs]
