"""Calibration: what a few batches can make good after a cut."""

from ..criteria import Moments as Moments
from ._apply import compensated as compensated
from ._apply import compensation_for as compensation_for
from ._apply import create_biases as create_biases
from ._batch_norm import recalibrate_batchnorm as recalibrate_batchnorm
from ._compensate import Compensate as Compensate
from ._compensate import Compensated as Compensated
from ._compensate import compensations as compensations
from ._measured import Sensitivity as Sensitivity
from ._measured import fit_scores as fit_scores
from ._measured import measure_scores as measure_scores
from ._moments import collect_moments as collect_moments
