"""Selectors: which labels to remove, from their scores."""

from ._uniform import UniformLabelSelector as UniformLabelSelector
from ._uniform import removed_count as removed_count
