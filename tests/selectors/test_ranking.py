"""Uniform, global, isomorphic and threshold selection on groups whose answer is known."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur import (
    ChannelsConstraint,
    GlobalScoreLabelSelector,
    IsomorphicLabelSelector,
    LabelError,
    PruningIR,
    ScoreError,
    ThresholdLabelSelector,
    UniformLabelSelector,
)
from secateur.cost import settled_widths


def chain(*widths: int) -> PruningIR:
    """Linear layers; the groups are "0", "1", ... with the widths between the ends."""
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    ir = PruningIR(nn.Sequential(*layers))
    ir.create_snapshot("main", args=(torch.ones(1, widths[0]),))
    return ir


def scored(scores: dict[str, list[float]], *, last: int = 1) -> PruningIR:
    ir = chain(2, *(len(values) for values in scores.values()), last)
    ir.snapshot().scores = {name: torch.tensor(values) for name, values in scores.items()}
    return ir


def counts(labels: list[secateur.Label]) -> dict[str, int]:
    return dict(Counter(label.group for label in labels))


def indices(labels: list[secateur.Label], group: str) -> list[int]:
    return [label.index for label in labels if label.group == group]


# -- constraints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "size", "widths"),
    [
        (ChannelsConstraint(), 3, [1, 2, 3]),
        (ChannelsConstraint(minimum=16, step=8), 40, [16, 24, 32, 40]),
        (ChannelsConstraint(minimum=16, step=8), 12, [12]),
        (ChannelsConstraint(step=8), 20, [8, 16, 20]),
        (ChannelsConstraint(maximum=10, step=4), 20, [4, 8]),
        (ChannelsConstraint(minimum=0.3, maximum=0.6), 10, [3, 4, 5, 6]),
    ],
)
def test_constraints_say_which_widths(constraint, size, widths):
    assert constraint.widths(size) == widths


@pytest.mark.parametrize("arguments", [{"step": 0}, {"minimum": -1}, {"maximum": 0}, {"minimum": 1.5}])
def test_impossible_constraints_are_refused(arguments):
    with pytest.raises(LabelError):
        ChannelsConstraint(**arguments)


def test_a_minimum_above_the_maximum_is_refused():
    with pytest.raises(LabelError, match="leaves no width for a group of 9 labels"):
        ChannelsConstraint(minimum=5, maximum=0.3).widths(9)
    for limits in ((5, 3), (0.6, 0.5)):
        with pytest.raises(LabelError, match="the minimum is above the maximum"):
            ChannelsConstraint(*limits)


def test_a_maximum_forces_a_cut():
    labels = UniformLabelSelector(0.0, channels_constraint=ChannelsConstraint(maximum=3)).select(
        chain(2, 5, 1)
    )
    assert counts(labels) == {"0": 2}


# -- uniform ---------------------------------------------------------------------------------------


def test_uniform_takes_a_share_of_each_group_and_the_lowest_scores():
    ir = scored({"0": [4.0, 1.0, 3.0, 2.0], "1": [1.0, 9.0, 8.0, 1.0, 7.0]})
    labels = UniformLabelSelector(0.5).select(ir)
    assert indices(labels, "0") == [1, 3]
    assert indices(labels, "1") == [0, 3]


def test_uniform_ratios_by_pattern():
    ir = chain(2, 10, 10, 10, 1)
    labels = UniformLabelSelector({"1": 0.2, "[02]": 0.5}).select(ir)
    assert counts(labels) == {"0": 5, "1": 2, "2": 5}
    assert counts(UniformLabelSelector({"1": 0.2}).select(ir)) == {"1": 2}


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(LabelError, match="pruning_ratio: no group matches 'layer9"):
        UniformLabelSelector({"layer9.*": 0.5}).select(chain(2, 4, 1))
    with pytest.raises(LabelError, match="channels_constraint: no group matches 'x'"):
        UniformLabelSelector(0.5, channels_constraint={"x": ChannelsConstraint()}).select(chain(2, 4, 1))


def test_round_to_keeps_more():
    assert counts(UniformLabelSelector(0.5, round_to=8).select(chain(2, 100, 1))) == {"0": 44}
    with pytest.raises(LabelError, match="say the same"):
        UniformLabelSelector(0.5, round_to=8, channels_constraint=ChannelsConstraint())


def test_constraints_by_pattern_fall_back_to_none():
    labels = UniformLabelSelector(0.5, channels_constraint={"0": ChannelsConstraint(step=4)}).select(
        chain(2, 10, 10, 1)
    )
    assert counts(labels) == {"0": 2, "1": 5}


@pytest.mark.parametrize("ratio", [1, 1.0, -0.1, float("nan"), True, "0.5"])
def test_ratios_out_of_range_are_refused(ratio):
    with pytest.raises(LabelError, match="from 0 up to but not including 1"):
        UniformLabelSelector(ratio)


# -- global ----------------------------------------------------------------------------------------


def test_global_takes_the_lowest_anywhere():
    ir = scored({"0": [1.0, 5.0, 6.0], "1": [2.0, 3.0, 9.0, 8.0]})
    labels = GlobalScoreLabelSelector(3).select(ir)
    assert indices(labels, "0") == [0]
    assert indices(labels, "1") == [0, 1]


def test_one_and_one_point_zero_are_one_label():
    ir = scored({"0": [1.0, 5.0, 6.0], "1": [2.0, 3.0]})
    assert GlobalScoreLabelSelector(1).select(ir) == GlobalScoreLabelSelector(1.0).select(ir)
    assert len(GlobalScoreLabelSelector(1).select(ir)) == 1


def test_below_one_is_a_share_of_all_prunable_labels():
    ir = scored({"0": [1.0] * 30, "1": [2.0] * 70})
    assert counts(GlobalScoreLabelSelector(0.5).select(ir)) == {"0": 29, "1": 21}
    assert GlobalScoreLabelSelector(0).select(ir) == []


def test_a_shared_label_counts_once():
    model = torchvision.models.resnet18(weights=None)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(torch.zeros(1, 3, 32, 32),))
    total = sum(group.size for group in ir.groups())
    assert len(GlobalScoreLabelSelector(0.25).select(ir)) == total // 4


@pytest.mark.parametrize("bad", [-1, -0.5, 2.5, float("nan"), True, "1"])
def test_bad_amounts_are_refused(bad):
    with pytest.raises(LabelError, match="n_or_ratio is a share"):
        GlobalScoreLabelSelector(bad)


def test_more_labels_than_can_go_are_refused():
    with pytest.raises(LabelError, match="9 labels were asked for, and 8 of the 10 prunable ones can go"):
        GlobalScoreLabelSelector(9).select(chain(2, 5, 5, 1))


def test_global_respects_steps_and_minima():
    ir = scored({"0": [float(i) for i in range(32)], "1": [100.0 + i for i in range(32)]})
    constraint = ChannelsConstraint(minimum=16, step=8)
    assert counts(GlobalScoreLabelSelector(27, channels_constraint=constraint).select(ir)) == {
        "0": 16,
        "1": 8,
    }


@given(
    st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=7), min_size=1, max_size=4),
    st.floats(0, 0.99),
)
def test_global_removes_what_a_sort_of_all_labels_would(groups, ratio):
    ir = scored({str(i): [float(v) for v in values] for i, values in enumerate(groups)})
    labels = GlobalScoreLabelSelector(ratio).select(ir)
    gone = {(label.group, label.index) for label in labels}
    scores = {(name, i): float(s) for name, t in ir.scores().items() for i, s in enumerate(t)}
    assert len(gone) <= int(len(scores) * ratio + 1e-9)
    # Nothing that stays is lower than what goes, but where a group is down to its last label.
    highest = max((scores[key] for key in gone), default=-1.0)
    for name in ir.scores():
        kept = [i for i in range(len(ir.scores()[name])) if (name, i) not in gone]
        assert kept
        assert len(kept) == 1 or all(scores[name, i] >= highest for i in kept)


# -- isomorphic and threshold ----------------------------------------------------------------------


def test_isomorphic_groups_compete_among_themselves_only():
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(2)
            )
            self.head = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = x + block(x)
            return self.head(x)

    ir = PruningIR(Blocks(), ignore=["blocks.0.2"])
    ir.create_snapshot("main", args=(torch.ones(1, 6),))
    low, high = torch.arange(8.0), torch.arange(8.0) + 100
    ir.snapshot().scores = {"blocks.0.0": low, "blocks.1.0": high, "head.0": torch.arange(4.0) + 1000}
    labels = IsomorphicLabelSelector(0.5, ignore=[]).select(ir)
    assert counts(labels) == {"blocks.0.0": 7, "head.0": 2, "blocks.1.0": 1}


def test_threshold_removes_what_is_below_it_and_leaves_one():
    ir = scored({"0": [1.0, 4.0, 2.0], "1": [0.0, 0.0, 0.5]})
    labels = ThresholdLabelSelector(2.5).select(ir)
    assert indices(labels, "0") == [0, 2]
    assert indices(labels, "1") == [0, 1]


def test_threshold_with_steps_takes_only_whole_steps():
    ir = scored({"0": [1.0, 1.0, 1.0, 5.0, 5.0, 5.0]})
    constraint = ChannelsConstraint(step=2)
    assert indices(ThresholdLabelSelector(2.0, channels_constraint=constraint).select(ir), "0") == [0, 1]


# -- what all share --------------------------------------------------------------------------------


def test_ignored_groups_stay():
    ir = chain(2, 4, 4, 1)
    assert counts(UniformLabelSelector(0.5, ignore=["0"]).select(ir)) == {"1": 2}
    assert counts(GlobalScoreLabelSelector(0.5, ignore=[ir.model[1]]).select(ir)) == {"0": 2}
    with pytest.raises(LabelError, match="no group or module 'nothing'"):
        UniformLabelSelector(0.5, ignore=["nothing"]).select(ir)


def test_groups_without_scores_stay():
    ir = chain(2, 4, 4, 1)
    ir.snapshot().scores = {"1": torch.arange(4.0)}
    assert counts(UniformLabelSelector(0.5).select(ir)) == {"1": 2}


def test_scores_that_are_nan_are_refused():
    ir = scored({"0": [1.0, float("nan")]})
    with pytest.raises(ScoreError, match="scores of group '0' hold NaN"):
        UniformLabelSelector(0.5).select(ir)


def test_the_same_input_gives_the_same_labels():
    ir = scored({"0": [1.0] * 9, "1": [1.0] * 9})
    for selector in (UniformLabelSelector(0.5), GlobalScoreLabelSelector(0.4), ThresholdLabelSelector(2.0)):
        assert selector.select(ir) == selector.select(ir)


class Halves(nn.Module):
    """Two halves that the code wants equal."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.left, self.right = nn.Linear(3, 12), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.up(x).chunk(2, -1)
        return self.left(torch.relu(a)) + self.right(torch.relu(b))


@pytest.mark.parametrize(
    "selector",
    [
        UniformLabelSelector(0.5),
        GlobalScoreLabelSelector(5),
        GlobalScoreLabelSelector(0.6),
        ThresholdLabelSelector(0.6),
        IsomorphicLabelSelector(0.3),
    ],
    ids=lambda s: f"{type(s).__name__} {vars(s)}"[:40],
)
def test_selected_labels_all_go_even_where_sizes_must_stay_equal(selector):
    ir = PruningIR(Halves())
    ir.create_snapshot("main", args=(torch.randn(2, 3),))
    ir.snapshot().scores = {g.name: torch.rand(g.size) for g in ir.groups()}
    labels = selector.select(ir)
    small = ir.prune(labels=labels)
    assert labels
    assert not small.report.zeroed
    widths = {g.name: g.size - counts(labels).get(g.name, 0) for g in ir.groups()}
    assert settled_widths(ir.snapshot().structure, widths) == widths


def test_a_width_that_is_heads_times_features_is_cut_in_step():
    class Windowed(nn.Module):
        """Derives the width of a head from that of its input, as Swin does."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.qkv, self.out = nn.Linear(3, 12), nn.Linear(12, 36), nn.Linear(12, 2)
            self.heads = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            x = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(x.transpose(1, 2).reshape(b, n, c))

    ir = PruningIR(Windowed())
    ir.create_snapshot("main", args=(torch.randn(2, 5, 3),))
    labels = GlobalScoreLabelSelector(0.6).select(ir)
    small = ir.prune(labels=labels)
    assert not small.report.zeroed
    width = small.model.embed.out_features
    assert width < 12
    assert width % small.model.heads == 0
