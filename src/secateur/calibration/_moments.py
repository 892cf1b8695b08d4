"""Mean and covariance of what the readers of every axis get, over a few batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from .._errors import ScoreError
from ..capture import Watch
from ..criteria import Moments, ToInputs, find_uses, model_inputs

if TYPE_CHECKING:
    from .._snapshot import Snapshot

Place = tuple[int, int]
"""A tensor of the recorded graph, and one of its dimensions."""


def collect_moments(
    snapshot: Snapshot,
    loader: Iterable[Any],
    *,
    products: bool,
    batches: int | None = None,
    sample_to_model_inputs: ToInputs | None = None,
) -> dict[Place, Moments]:
    """Moments of every activation that a weight of a group reads.

    Args:
        snapshot: the model.
        loader: samples, as for criteria.
        products: whether covariances are wanted too.
        batches: stop after so many.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.

    Raises:
        ScoreError: if there is no batch.
    """
    found: dict[Place, Moments] = {}
    wanted: dict[int, dict[int, Callable[[torch.Tensor], None]]] = {}
    values = snapshot.graph.values
    for uses in find_uses(snapshot.structure).values():
        for use in uses:
            if use.parameter is None or use.activation is None or use.activation in found:
                continue
            id_, dim = use.activation
            size = values[id_].shape[dim]
            moments = found[use.activation] = Moments.of(size, products=products)
            wanted.setdefault(use.node.index, {})[id_] = _look(moments, dim - len(values[id_].shape))
    watch = Watch(snapshot.graph, snapshot.settings.detail(snapshot.model), wanted)
    to_inputs = sample_to_model_inputs or (lambda sample: model_inputs(snapshot.model, sample))
    for number, sample in enumerate(loader):
        if batches is not None and number >= batches:
            break
        watch.run(snapshot.model, *to_inputs(sample))
    if any(not moments.count for moments in found.values()):
        raise ScoreError("nothing can be compensated without a batch: the calibration data gave none")
    return found


def _look(moments: Moments, dim: int) -> Callable[[torch.Tensor], None]:
    return lambda tensor: moments.add(tensor, dim)
