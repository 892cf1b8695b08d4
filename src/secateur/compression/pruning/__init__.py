"""Pruners: masks that are simulated while a model is trained (NNI's names).

Every pruner is a small piece of one pipeline: collect, measure, allocate, mask.
"""

from ._activations import ActivationAPoZRankPruner as ActivationAPoZRankPruner
from ._activations import ActivationMeanRankPruner as ActivationMeanRankPruner
from ._admm import ADMMPruner as ADMMPruner
from ._agent import AgentSettings as AgentSettings
from ._amc import AMCPruner as AMCPruner
from ._annealing import SimulatedAnnealingPruner as SimulatedAnnealingPruner
from ._driving import Round as Round
from ._movement import MovementPruner as MovementPruner
from ._norms import FPGMPruner as FPGMPruner
from ._norms import L1NormPruner as L1NormPruner
from ._norms import L2NormPruner as L2NormPruner
from ._norms import LevelPruner as LevelPruner
from ._pruner import Pruner as Pruner
from ._rounds import AutoCompressPruner as AutoCompressPruner
from ._rounds import LotteryTicketPruner as LotteryTicketPruner
from ._schedule import AGPPruner as AGPPruner
from ._schedule import LinearPruner as LinearPruner
from ._slim import SlimPruner as SlimPruner
from ._taylor import TaylorFOWeightPruner as TaylorFOWeightPruner
from ._taylor import TaylorPruner as TaylorPruner
