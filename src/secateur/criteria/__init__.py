"""Criteria: a score for every label; the lowest are the first to go."""

from ._collector import ScoreCollector as ScoreCollector
from ._gates import Gate as Gate
from ._gates import find_gates as find_gates
from ._loss_aware import FisherCriterion as FisherCriterion
from ._loss_aware import LossAwareCriterion as LossAwareCriterion
from ._loss_aware import Spread as Spread
from ._magnitude import magnitude_scores as magnitude_scores
from ._normalize import Normalize as Normalize
from ._normalize import Scores as Scores
from ._normalize import normalize_scores as normalize_scores
