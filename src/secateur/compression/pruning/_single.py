"""Pruners that make masks once, by the names that others call them by."""

from __future__ import annotations

from collections.abc import Callable

from ..._errors import PruningError
from ._activations import ActivationAPoZRankPruner, ActivationMeanRankPruner
from ._admm import ADMMPruner
from ._norms import FPGMPruner, L1NormPruner, L2NormPruner, LevelPruner
from ._pruner import Pruner
from ._slim import SlimPruner
from ._taylor import TaylorFOWeightPruner

ALGORITHMS: dict[str, Callable[..., Pruner]] = {
    "level": LevelPruner,
    "l1": L1NormPruner,
    "l2": L2NormPruner,
    "fpgm": FPGMPruner,
    "slim": SlimPruner,
    "taylorfo": TaylorFOWeightPruner,
    "apoz": ActivationAPoZRankPruner,
    "mean_activation": ActivationMeanRankPruner,
    "admm": ADMMPruner,
}


def algorithm(name: str) -> Callable[..., Pruner]:
    """The pruner of that name.

    Raises:
        PruningError: if there is none.
    """
    if name not in ALGORITHMS:
        raise PruningError(f"pruning_algorithm is one of {sorted(ALGORITHMS)}, got {name!r}")
    return ALGORITHMS[name]
