"""From the positions of dimensions to labels of axes and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..axes import Concat, Dim, Leaf, labels_at, leaves_of

Vectors = Mapping[Leaf, Tensor]
"""For each axis, a boolean for each of its labels."""


class Addresses:
    """Which labels the positions of a dimension belong to; remembers what it found.

    A *joint* axis has a label for every position of a product of two axes. It is an axis for the
    purpose of removing: positions that no single label of either could address.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[Dim, list[tuple[Leaf, Tensor, Tensor]]]] = {}
        self._joint: dict[Leaf, list[tuple[Leaf, Leaf]]] = {}

    def join(self, outer: Leaf, inner: Leaf) -> Leaf:
        """A joint axis of ``outer`` and ``inner``, wherever the one comes right after the other."""
        joint = Leaf(outer.size * inner.size)
        self._joint.setdefault(inner, []).append((outer, joint))
        self._found.clear()
        return joint

    def of(self, dim: Dim) -> list[tuple[Leaf, Tensor, Tensor]]:
        """(axis, positions, label of each) for every axis of a resolved dimension."""
        known = self._found.get(id(dim))
        if known is None:
            known = self._found[id(dim)] = (dim, _addresses(dim, self._joint))
        return known[1]

    def positions(self, dim: Dim, vectors: Vectors) -> Tensor:
        """Positions that belong to a label which ``vectors`` marks, in any axis."""
        marked = torch.zeros(dim.size, dtype=torch.bool)
        for axis, at, labels in self.of(dim):
            vector = vectors.get(axis)
            if vector is not None:
                marked[at] |= vector[labels]
        return marked

    def labels(self, dim: Dim, marked: Tensor) -> dict[Leaf, Tensor]:
        """Labels, by axis, that have a marked position."""
        result: dict[Leaf, Tensor] = {}
        for axis, at, labels in self.of(dim):
            vector = torch.zeros(axis.size, dtype=torch.bool)
            vector[labels[marked[at]]] = True
            result[axis] = result[axis] | vector if axis in result else vector
        return result


def _addresses(dim: Dim, joints: Mapping[Leaf, list[tuple[Leaf, Leaf]]]) -> list[tuple[Leaf, Tensor, Tensor]]:
    if isinstance(dim, Leaf):
        every = torch.arange(dim.size)
        return [(dim, every, every)]
    if isinstance(dim, Concat):
        found, offset = [], 0
        for part in dim.parts:
            found += [(axis, at + offset, labels) for axis, at, labels in _addresses(part, joints)]
            offset += part.size
        return found
    found = []
    for axis in dict.fromkeys(leaves_of(dim)):
        labels = labels_at(dim, axis)
        at = np.flatnonzero(labels >= 0)
        found.append((axis, torch.from_numpy(at), torch.from_numpy(labels[at])))
        for outer, joint in joints.get(axis, ()):
            if outer in dim.factors:
                both = labels_at(dim, outer) * axis.size + labels
                found.append((joint, torch.arange(dim.size), torch.from_numpy(both)))
    return found
