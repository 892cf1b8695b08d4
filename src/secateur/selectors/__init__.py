"""Selectors: which labels to remove, from their scores."""

from ._base import LabelSelector as LabelSelector
from ._constraint import ChannelsConstraint as ChannelsConstraint
from ._ranking import GlobalScoreLabelSelector as GlobalScoreLabelSelector
from ._ranking import IsomorphicLabelSelector as IsomorphicLabelSelector
from ._ranking import ThresholdLabelSelector as ThresholdLabelSelector
from ._uniform import UniformLabelSelector as UniformLabelSelector
from ._uniform import removed_count as removed_count
