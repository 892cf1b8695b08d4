"""Pictures show the numbers that they are made of."""

import sys

import pytest
import torch
from torch import nn

import secateur
from secateur import DependencyError
from secateur.report import plot_accuracy, plot_scores, plot_widths


@pytest.fixture(scope="module")
def cut():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", args=(torch.ones(1, 4),))
    selector = secateur.UniformLabelSelector(0.5, ignore=["2"])
    return ir, ir.prune(labels=selector.select(ir)).report


def test_widths_before_and_after_of_every_group(cut):
    axes = plot_widths(cut[1], title="half").axes[0]
    before, after = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert before == [12, 6]
    assert after == [6, 6]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2"]
    assert [text.get_text() for text in axes.texts] == ["6 of 12", "6 of 6"]
    assert axes.get_title() == "half"


def test_every_score_is_a_mark_in_the_row_of_its_group(cut):
    scores = cut[0].scores()
    axes = plot_scores(scores).axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "|"]
    for row, (line, values) in enumerate(zip(marks, scores.values(), strict=True)):
        assert sorted(line.get_xdata()) == pytest.approx(sorted(values.tolist()))
        assert set(line.get_ydata()) == {row}
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert medians == pytest.approx([float(values.median()) for values in scores.values()])


def test_scores_without_a_logarithm_are_counted():
    scores = {"a": torch.tensor([0.0, -1.0, 2.0]), "b": torch.tensor([0.0])}
    axes = plot_scores(scores).axes[0]
    assert "3 that are not positive" in axes.get_xlabel()
    assert axes.get_xscale() == "log"
    linear = plot_scores(scores, log=False).axes[0]
    assert sorted(linear.lines[0].get_xdata()) == [-1.0, 0.0, 2.0]
    assert linear.get_xlabel() == "score"


def test_accuracy_is_drawn_in_the_order_of_latency():
    axes = plot_accuracy({"a": [(3.0, 0.9), (1.0, 0.7)], "b": [(2.0, 0.8)]}, latency="seconds").axes[0]
    assert list(axes.lines[0].get_xdata()) == [1.0, 3.0]
    assert list(axes.lines[0].get_ydata()) == [0.7, 0.9]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds", "accuracy")


def test_pictures_are_written_and_nothing_global_is_left(cut, tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for name, figure in {
        "widths": plot_widths(cut[1]),
        "scores": plot_scores(cut[0].scores()),
        "accuracy": plot_accuracy({}),
    }.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_the_extra_is_named(cut, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r'pip install "secateur\[report\]"'):
        plot_widths(cut[1])
