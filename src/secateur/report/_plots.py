"""Pictures of a cut: widths before and after, how scores lie, accuracy against latency.

Each function gives a ``matplotlib`` figure that belongs to nobody else: no window opens, and no setting of
``matplotlib`` is changed. ``figure.savefig("cut.svg")`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from .._errors import DependencyError
from ._prune import PruneReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

BEFORE, AFTER = "#c9d1d9", "#2f855a"
ROW = 0.28
"""Inches that one group takes."""


def plot_widths(report: PruneReport, *, title: str = "") -> Figure:
    """Width of every group before and after a cut, as bars.

    Args:
        report: what :func:`secateur.prune` returned, or ``ir.report`` after ``ir.prune``.
        title: of the picture.

    Raises:
        DependencyError: if matplotlib is not installed.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> _, report = secateur.prune(model, (torch.ones(1, 4),), ratio=0.5)
        >>> [text.get_text() for text in plot_widths(report).axes[0].texts]
        ['4 of 8']
    """
    names = [group.name for group, _ in report.groups]
    sizes = [group.size for group, _ in report.groups]
    kept = [group.size - removed for group, removed in report.groups]
    figure, axes = _new(8.0, 1.0 + ROW * max(len(names), 1), title)
    # By number: two groups may be abbreviated to the same name.
    places = range(len(names))
    axes.barh(places, sizes, color=BEFORE, label="before")
    bars = axes.barh(places, kept, color=AFTER, label="after")
    axes.bar_label(bars, [f"{k} of {n}" for k, n in zip(kept, sizes, strict=True)], padding=3, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("labels")
    axes.set_xlim(0, 1.15 * max(sizes, default=1))
    _finish(axes, legend=bool(names))
    return figure


def plot_scores(scores: Mapping[str, torch.Tensor], *, log: bool = True, title: str = "") -> Figure:
    """Where the scores of every group lie: one row a group, one mark a label, and the median.

    Groups whose scores lie far apart are not comparable as they are: see
    :func:`secateur.criteria.normalize_scores`.

    Args:
        scores: by group name, as ``ir.scores()`` gives them.
        log: a logarithmic scale; scores that are not positive are left out there, and their number said.
        title: of the picture.

    Raises:
        DependencyError: if matplotlib is not installed.
    """
    figure, axes = _new(8.0, 1.0 + ROW * max(len(scores), 1), title)
    left_out = 0
    for row, values in enumerate(scores.values()):
        shown = values.detach().double().cpu().flatten()
        if log:
            left_out += int((shown <= 0).sum())
            shown = shown[shown > 0]
        if not len(shown):
            continue
        axes.plot(shown.numpy(), [row] * len(shown), "|", color=AFTER, alpha=0.6, markersize=9)
        axes.plot([float(shown.median())], [row], "o", color="#1a202c", markersize=4)
    axes.set_yticks(range(len(scores)), list(scores), fontsize=8)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    if log:
        axes.set_xscale("log")
    axes.set_xlabel("score" + (f" ({left_out} that are not positive are not shown)" if left_out else ""))
    _finish(axes)
    return figure


def plot_accuracy(
    curves: Mapping[str, Sequence[Point]],
    *,
    latency: str = "latency [ms]",
    accuracy: str = "accuracy",
    title: str = "",
) -> Figure:
    """Accuracy against latency, one line a method.

    Args:
        curves: by the name of a method, its points ``(latency, accuracy)``, in any order.
        latency: name of the horizontal axis; any cost will do.
        accuracy: name of the vertical axis.
        title: of the picture.

    Raises:
        DependencyError: if matplotlib is not installed.

    Example:
        >>> figure = plot_accuracy({"knapsack": [(9.0, 0.97), (5.0, 0.95)], "full": [(12.0, 0.98)]})
        >>> figure.axes[0].lines[0].get_xdata().tolist()
        [5.0, 9.0]
    """
    figure, axes = _new(6.0, 4.0, title)
    for name, points in curves.items():
        ordered = sorted(points)
        axes.plot([x for x, _ in ordered], [y for _, y in ordered], "o-", label=name, markersize=4)
    axes.set_xlabel(latency)
    axes.set_ylabel(accuracy)
    _finish(axes, legend=bool(curves))
    return figure


def _new(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise DependencyError(
            'pictures are drawn by matplotlib, which is not installed: pip install "secateur[report]"'
        ) from error
    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _finish(axes: Axes, *, legend: bool = False) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(frameon=False, fontsize=8)
