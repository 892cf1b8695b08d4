"""Reports: what was done, as values that print as tables."""

from ._explain import explain_structure as explain_structure
from ._plots import plot_accuracy as plot_accuracy
from ._plots import plot_scores as plot_scores
from ._plots import plot_widths as plot_widths
from ._prune import PruneReport as PruneReport
from ._tables import Table as Table
from ._tables import render as render
