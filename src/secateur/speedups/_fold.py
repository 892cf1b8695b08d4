"""Folding: constants of positions that go are added to the biases of the layers that read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..axes import Dim, Leaf, kept
from ..capture import owned_tensors
from ..masks import EXACTLY, BiasPlace, Block, Exit, Reading, ReadingExit, Why
from ..surgery import Plan, Undo
from ._align import Pair, positions_of
from ._bake import put

SAME = 1e-9
"""Two calls of a shared layer agree if their constants are as close as this, relative to the larger."""


@dataclass(frozen=True)
class Folded:
    """Constants that were added to one bias.

    Attributes:
        bias: path of the bias.
        created: whether the layer had none before.
        constants: how many positions that are constant and not zero were folded.
        exact: whether the result is the same everywhere, also at the border of a padded layer.
        size: Euclidean length of what was added.
    """

    bias: str
    created: bool
    constants: int
    exact: bool
    size: float


@dataclass
class Fold:
    """What is to be added to the rows of one bias."""

    place: BiasPlace
    rows: tuple[Dim, slice]
    delta: Tensor
    constants: int
    exact: bool

    def folded(self) -> Folded:
        """For the report."""
        size = float(self.delta.norm())
        return Folded(self.place.name, not self.place.exists, self.constants, self.exact, size)


@dataclass
class _Share:
    """What one call of a layer asks to be added."""

    exit: ReadingExit
    columns: Tensor
    delta: Tensor

    @property
    def reading(self) -> Reading:
        return self.exit.reading


def find_folds(
    exits: Sequence[Exit], removed: Mapping[Leaf, Tensor], *, exact: bool
) -> tuple[list[Fold], list[_Share]]:
    """The folds of a removal, and calls of shared layers that do not agree.

    If all is to be ``exact``, zero-padded layers take nothing into their biases (they have stand-ins).
    """
    shares: dict[tuple[str, int], list[_Share]] = defaultdict(list)
    for exit_ in exits:
        if isinstance(exit_, ReadingExit) and isinstance(exit_.reading.bias, BiasPlace):
            place = exit_.reading.bias
            shares[place.name, place.row].append(_share(exit_, removed, exact))
    folds, disagreeing = [], []
    for calls in shares.values():
        first = calls[0]
        if any(not _agree(first.delta, other.delta) for other in calls[1:]):
            disagreeing += [call for call in calls if bool(call.columns.any())]
        elif bool(first.columns.any()) and isinstance(first.reading.bias, BiasPlace):
            folds.append(
                Fold(
                    first.reading.bias,
                    first.reading.rows,
                    first.delta.flatten(),
                    int(first.columns.sum()),
                    not _is_near(first),
                )
            )
    return folds, disagreeing


def _share(exit_: ReadingExit, removed: Mapping[Leaf, Tensor], exact: bool) -> _Share:
    reading = exit_.reading
    gone = exit_.removed_columns(removed)
    columns = gone & reading.nonzero & (reading.source.state != 0) & exit_.used(removed)
    if exact and reading.bordered:
        columns = torch.zeros_like(columns)
    return _Share(exit_, columns, reading.fed(columns) * exit_.alive(removed))


def _agree(a: Tensor, b: Tensor) -> bool:
    scale = max(float(a.abs().max()), float(b.abs().max())) if a.numel() else 0.0
    return bool((a - b).abs().max() <= SAME * scale) if scale else True


def _is_near(share: _Share) -> bool:
    reading = share.reading
    return reading.bordered or bool((reading.source.state[share.columns] != EXACTLY).any())


def disagreements(shares: Sequence[_Share]) -> list[Block]:
    """Labels that stay, since a shared layer cannot add another constant in every call."""
    blocks = []
    for share in shares:
        labels = share.exit.addresses.labels(share.reading.columns, share.columns.flatten())
        blocks += [Block(axis, v, Why.DISAGREES, share.reading.node) for axis, v in labels.items()]
    return blocks


def add_to_biases(model: nn.Module, folds: Sequence[Fold], undo: Undo) -> None:
    """Add to the biases that exist, at their full size."""
    owned = {name: tensor for _, name, tensor in owned_tensors(model)}
    for fold in folds:
        if fold.place.exists:
            bias = owned[fold.place.name].detach()
            before = bias.clone()
            undo.note(lambda bias=bias, before=before: put(bias, (), before))
            part = slice(fold.place.row, fold.place.row + len(fold.delta))
            bias[part] = (bias[part].double() + fold.delta.to(bias.device)).to(bias.dtype)


def create_biases(
    model: nn.Module,
    folds: Sequence[Fold],
    orders: Sequence[tuple[Pair, Tensor]],
    plan: Plan,
    undo: Undo,
) -> None:
    """Give a bias to layers that had none, in the order and at the size of their rows now."""
    changes = {name: change for change in plan.tensors for name in change.names}
    for fold in folds:
        if fold.place.exists:
            continue
        path, _, name = fold.place.name.rpartition(".")
        module = model.get_submodule(path)
        delta = fold.delta.clone()
        for pair, order in orders:
            delta = delta[positions_of(fold.rows[0], pair, order)]
        stay = kept(fold.rows[0], plan.keep)
        if stay is not None:
            delta = delta[torch.from_numpy(stay)]
        weight, dim = fold.place.weight
        for own, rows, factor in changes[weight].scales if weight in changes else ():
            if own == dim:
                delta[torch.from_numpy(rows)] *= factor
        like = getattr(module, "weight")  # noqa: B009 - not every module is known to have one
        module._parameters[name] = nn.Parameter(delta.to(like), requires_grad=like.requires_grad)
        undo.note(lambda module=module, name=name: module._parameters.update({name: None}))
