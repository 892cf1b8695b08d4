"""Secateur: structured pruning of PyTorch models, proved cut by cut."""

from . import axes as axes
from . import calibration as calibration
from . import cost as cost
from . import criteria as criteria
from ._errors import CaptureError as CaptureError
from ._errors import LabelError as LabelError
from ._errors import MaskError as MaskError
from ._errors import MeasurementError as MeasurementError
from ._errors import OptimizerError as OptimizerError
from ._errors import PersistenceError as PersistenceError
from ._errors import RuleError as RuleError
from ._errors import ScoreError as ScoreError
from ._errors import SecateurError as SecateurError
from ._errors import SurgeryError as SurgeryError
from ._errors import TargetError as TargetError
from ._errors import UnsupportedModelError as UnsupportedModelError
from ._errors import VerificationError as VerificationError
from ._ir import PruningIR as PruningIR
from ._optimizer import carry_optimizer as carry_optimizer
from ._prune import prune as prune
from .axes import Group as Group
from .axes import Label as Label
from .axes import register_rule as register_rule
from .calibration import recalibrate_batchnorm as recalibrate_batchnorm
from .cost import measure_latency as measure_latency
from .criteria import FisherCriterion as FisherCriterion
from .criteria import LossAwareCriterion as LossAwareCriterion
from .criteria import ReconstructionCriterion as ReconstructionCriterion
from .persistence import load as load
from .persistence import save as save
from .report import PruneReport as PruneReport
from .selectors import BinarySearchLatencyLabelSelector as BinarySearchLatencyLabelSelector
from .selectors import ChannelsConstraint as ChannelsConstraint
from .selectors import GlobalScoreLabelSelector as GlobalScoreLabelSelector
from .selectors import IsomorphicLabelSelector as IsomorphicLabelSelector
from .selectors import KnapsackLabelSelector as KnapsackLabelSelector
from .selectors import ThresholdLabelSelector as ThresholdLabelSelector
from .selectors import UniformLabelSelector as UniformLabelSelector
from .speedups import ModelSpeedup as ModelSpeedup
from .speedups import SpeedupReport as SpeedupReport
from .speedups import speedup as speedup
from .verification import verify as verify

__version__ = "0.1.0"
