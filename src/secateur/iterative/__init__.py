"""Iterative pruning: score, cut a little, fine-tune, and again."""

from ._history import History as History
from ._history import Step as Step
from ._history import load_best as load_best
from ._loop import Iterative as Iterative
from ._loop import prune_iteratively as prune_iteratively
from ._schedule import Schedule as Schedule
from ._schedule import shares_left as shares_left
