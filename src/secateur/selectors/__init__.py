"""Selectors: which labels to remove, from their scores."""

from ._base import LabelSelector as LabelSelector
from ._binary_search import BinarySearchLatencyLabelSelector as BinarySearchLatencyLabelSelector
from ._constraint import ChannelsConstraint as ChannelsConstraint
from ._knapsack import KnapsackLabelSelector as KnapsackLabelSelector
from ._ranking import GlobalScoreLabelSelector as GlobalScoreLabelSelector
from ._ranking import IsomorphicLabelSelector as IsomorphicLabelSelector
from ._ranking import ThresholdLabelSelector as ThresholdLabelSelector
from ._solver import Choice as Choice
from ._solver import choose as choose
from ._solver import relaxed_bound as relaxed_bound
from ._target import Infeasible as Infeasible
from ._target import LatencyLabelSelector as LatencyLabelSelector
from ._target import Round as Round
from ._uniform import UniformLabelSelector as UniformLabelSelector
from ._uniform import removed_count as removed_count
