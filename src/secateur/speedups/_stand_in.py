"""Stand-ins: one constant channel that a zero-padded layer reads in place of all others.

The border of the padded zeros sees that a constant is missing, so a bias cannot replace one exactly.
But all constant channels look alike up to their values: one of them, with the weights of the others
scaled and added to its own, gives the same result everywhere, border included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..axes import Leaf
from ..capture import owned_tensors
from ..masks import EXACTLY, Block, Exit, ReadingExit, Why
from ..surgery import Undo
from ._bake import put

WEAKEST = 1e-3
"""A stand-in's constant may be this much smaller than the largest that it stands in for."""


@dataclass
class Merge:
    """Columns of one weight that are added to a column that stays.

    Attributes:
        exit: where the constants are read.
        columns: (groups, columns) that go.
        keepers: for every group the column that stays.
    """

    exit: ReadingExit
    columns: Tensor
    keepers: Tensor


@dataclass
class StandIns:
    """Chosen stand-ins, one label an axis at most."""

    chosen: dict[Leaf, int] = field(default_factory=dict)

    def settle(
        self, exits: Sequence[Exit], removed: Mapping[Leaf, Tensor]
    ) -> tuple[list[Merge], list[Block]]:
        """What is to be merged, and labels that have to stay for it or since nothing stands in."""
        needs = [need for exit_ in exits if isinstance(exit_, ReadingExit) for need in _needs(exit_, removed)]
        by_axis: dict[Leaf, list[_Need]] = defaultdict(list)
        for need in needs:
            by_axis[need.axis].append(need)
        merges: list[Merge] = []
        demands: list[Block] = []
        for axis, own in by_axis.items():
            if axis not in self.chosen:
                label = _best(own, removed[axis])
                if label is None:
                    demands += [need.block() for need in own]
                    continue
                self.chosen[axis] = label
            label = self.chosen[axis]
            if bool(removed[axis][label]):
                one = torch.zeros(axis.size, dtype=torch.bool)
                one[label] = True
                demands.append(Block(axis, one, Why.STAND_IN))
            for need in own:
                served = need.served_by(label)
                if served is None:
                    demands.append(need.block())
                else:
                    merges.append(Merge(need.exit, need.columns, served))
        return merges, [*demands, *_shared(merges)]


@dataclass
class _Need:
    """Constants of one axis that a bordered reading would lose."""

    exit: ReadingExit
    axis: Leaf
    columns: Tensor
    labels: Tensor
    """(groups, columns): the label of every column in the axis, or -1."""

    def block(self) -> Block:
        gone = torch.zeros(self.axis.size, dtype=torch.bool)
        gone[self.labels[self.columns]] = True
        return Block(self.axis, gone, Why.BORDER, self.exit.reading.node)

    def strength(self) -> Tensor:
        """For every label: how large its constant is against the largest that is needed; 0 if none."""
        source = self.exit.reading.source
        constant = torch.where(source.state == EXACTLY, source.value.abs(), 0.0)
        result = torch.full((self.axis.size,), torch.inf, dtype=torch.float64)
        for group in torch.nonzero(self.columns.any(1)).flatten().tolist():
            largest = constant[group][self.columns[group]].max()
            own = torch.zeros(self.axis.size, dtype=torch.float64)
            given = self.labels[group] >= 0
            own[self.labels[group][given]] = constant[group][given] / largest
            result = torch.minimum(result, own)
        return result

    def served_by(self, label: int) -> Tensor | None:
        """The column of ``label`` in every group, -1 where none is needed; None if it is too weak."""
        if not self.strength()[label] >= WEAKEST:
            return None
        at = (self.labels == label).double().argmax(1)
        return torch.where(self.columns.any(1), at, -1)


def _needs(exit_: ReadingExit, removed: Mapping[Leaf, Tensor]) -> Iterator[_Need]:
    reading = exit_.reading
    if not reading.bordered:
        return
    shape = reading.source.shape
    left = (
        exit_.removed_columns(removed)
        & exit_.used(removed)
        & reading.nonzero
        & (reading.source.state == EXACTLY)
    )
    if not bool(left.any()):
        return
    for axis, at, labels in exit_.addresses.of(reading.columns):
        vector = removed.get(axis)
        if vector is None or not bool(vector.any()):
            continue
        mine = torch.zeros(left.numel(), dtype=torch.bool)
        mine[at] = vector[labels]
        mine = mine.reshape(shape) & left
        left = left & ~mine
        if bool(mine.any()):
            own = torch.full((left.numel(),), -1)
            own[at] = labels
            yield _Need(exit_, axis, mine, own.reshape(shape))


def _best(needs: Sequence[_Need], removed: Tensor) -> int | None:
    """The label with the strongest constants; one that stays anyway where that is strong enough."""
    if any(not _one_column_each(need) for need in needs):
        return None
    strength = torch.stack([need.strength() for need in needs]).amin(0)
    staying = torch.where(removed, 0.0, strength)
    strength = staying if float(staying.max()) >= 20 * WEAKEST else strength
    label = int(strength.argmax())
    return label if strength[label] >= WEAKEST else None


def _one_column_each(need: _Need) -> bool:
    groups = torch.arange(need.labels.shape[0])[:, None].expand_as(need.labels)
    given = need.labels >= 0
    pairs = torch.stack([groups[given], need.labels[given]])
    return pairs.shape[1] == pairs.unique(dim=1).shape[1]


def _shared(merges: Sequence[Merge]) -> Iterator[Block]:
    """Weights that are used in several calls cannot take in different constants."""
    calls: dict[str, list[Merge]] = defaultdict(list)
    for merge in merges:
        calls[merge.exit.reading.weight].append(merge)
    for merge in merges:
        reading = merge.exit.reading
        alone = len(calls[reading.weight]) == 1 and reading.readers == 1
        if not alone or not reading.weight:
            for axis, labels in merge.exit.addresses.labels(reading.columns, merge.columns.flatten()).items():
                yield Block(axis, labels, Why.BORDER, reading.node)


def merge_columns(
    model: nn.Module, merges: Sequence[Merge], removed: Mapping[Leaf, Tensor], undo: Undo
) -> None:
    """Write the merged weights into the columns that stay, at the full size of the weights."""
    owned = {name: tensor for _, name, tensor in owned_tensors(model)}
    for merge in merges:
        reading = merge.exit.reading
        weight = owned[reading.weight].detach()
        columns = torch.nonzero(merge.columns.any(0)).flatten()
        values = torch.where(merge.columns, reading.source.value, 0.0)[:, columns]
        extra = torch.einsum("grct,gc->grt", reading.weights.columns(columns), values)
        alive = merge.exit.alive(removed)
        # Where the normal form's elements are in the weight, whatever its memory format.
        places = reading.weights.arrange(torch.arange(weight.numel()).reshape(weight.shape))
        for group in torch.nonzero(merge.keepers >= 0).flatten().tolist():
            keeper = int(merge.keepers[group])
            at = torch.unravel_index(places[group, :, keeper].to(weight.device), weight.shape)
            before = weight[at]
            undo.note(lambda weight=weight, at=at, before=before: put(weight, at, before))
            added = extra[group] * alive[group][:, None] / reading.source.value[group, keeper]
            weight.index_put_(at, (before.double() + added.to(weight.device)).to(weight.dtype))
