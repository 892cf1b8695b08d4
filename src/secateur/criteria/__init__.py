"""Criteria: a score for every label; the lowest are the first to go."""

from ._magnitude import Scores as Scores
from ._magnitude import magnitude_scores as magnitude_scores
