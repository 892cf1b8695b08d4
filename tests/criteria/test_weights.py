"""Scores from parameters, on tensors whose answer is worked out by hand."""

import pytest
import torch
from torch import nn

from secateur import LabelError, PruningIR, ScoreError, UniformLabelSelector
from secateur.criteria import (
    Members,
    geometric_median_distance,
    l1_norm,
    l2_norm,
    lamp,
    lp_norm,
    magnitude_scores,
    normalize_scores,
    random_scores,
    score_weights,
    weight_scores,
)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(80, 2),
    )  # fmt: skip


@pytest.fixture
def ir() -> PruningIR:
    model = net()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.normal_(module.bias)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(torch.randn(2, 3, 6, 6),))
    return ir


def test_makers_and_readers_of_a_group(ir):
    first, second = ir.model[0].weight, ir.model[3].weight
    makers = score_weights(ir, measure=l1_norm, members="makers")["0"]
    bn = ir.model[1]
    expected = first.abs().sum((1, 2, 3)) + bn.weight.abs() + bn.bias.abs()
    torch.testing.assert_close(makers, expected.double())
    readers = score_weights(ir, measure=l2_norm, members="readers")["0"]
    torch.testing.assert_close(readers, torch.linalg.vector_norm(second, dim=(0, 2, 3)).double())


def test_the_labels_of_a_flattened_axis_gather_all_their_positions(ir):
    scores = score_weights(ir, measure=l1_norm, members="readers")["3"]
    weight = ir.model[5].weight.reshape(2, 5, 16)
    torch.testing.assert_close(scores, weight.abs().sum((0, 2)).double())


@pytest.mark.parametrize(
    ("reduce", "combine"),
    [
        ("sum", lambda stack: stack.sum(0)),
        ("mean", lambda stack: stack.mean(0)),
        ("max", lambda stack: stack.amax(0)),
        ("first", lambda stack: stack[0]),
    ],
)
def test_reduce_combines_the_parameters_of_a_group(ir, reduce, combine):
    scores = score_weights(ir, measure=l2_norm, reduce=reduce)["0"]
    conv, bn, reader = ir.model[0], ir.model[1], ir.model[3]
    norm = torch.linalg.vector_norm
    parts = [
        norm(conv.weight, dim=(1, 2, 3)),
        bn.weight.abs(),
        bn.bias.abs(),
        norm(reader.weight, dim=(0, 2, 3)),
    ]
    torch.testing.assert_close(scores, combine(torch.stack(parts)).double())


def test_network_slimming_scores_groups_with_batch_norm_only(ir):
    scores = score_weights(ir, measure=l1_norm, members="norms")
    assert set(scores) == {"0"}
    torch.testing.assert_close(scores["0"], ir.model[1].weight.abs().double())
    assert {label.group for label in UniformLabelSelector(0.5).select(ir)} == {"0"}


def test_scores_go_into_the_snapshot(ir):
    scores = score_weights(ir, measure=lamp, normalize="max")
    torch.testing.assert_close(ir.scores()["3"], scores["3"])
    assert float(scores["0"].max()) == 1.0


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, float("inf")])
def test_norms_of_any_order(p):
    rows = torch.randn(4, 9)
    torch.testing.assert_close(lp_norm(p)(rows), torch.linalg.vector_norm(rows, p, dim=1))


def test_a_norm_has_a_positive_order():
    with pytest.raises(ScoreError, match="the order of a norm is positive, got 0"):
        lp_norm(0)


def test_the_geometric_median_goes_first():
    rows = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [3.0, 3.0]])
    assert int(geometric_median_distance(rows).argmin()) == 3


def test_lamp_gives_the_largest_one_and_keeps_the_order():
    rows = torch.randn(7, 5)
    scores = lamp(rows)
    assert float(scores.max()) == pytest.approx(1.0)
    assert torch.equal(scores.argsort(), rows.norm(dim=1).argsort())
    assert torch.equal(lamp(torch.zeros(3, 2)), torch.zeros(3))


def test_magnitude_is_the_norm_over_the_whole_group(ir):
    structure = ir.snapshot().structure
    squares = weight_scores(structure, ir.model, lambda rows: rows.square().sum(1))
    for name, score in magnitude_scores(structure, ir.model).items():
        torch.testing.assert_close(score.square(), squares[name], rtol=1e-5, atol=0)


def test_random_scores_are_the_same_for_the_same_seed(ir):
    structure = ir.snapshot().structure
    assert torch.equal(random_scores(structure, 1)["0"], random_scores(structure, 1)["0"])
    assert not torch.equal(random_scores(structure, 1)["0"], random_scores(structure, 2)["0"])


def test_nan_is_named(ir):
    with torch.no_grad():
        ir.model[3].weight[0, 2] = float("nan")
    with pytest.raises(ScoreError, match=r"parameter '3.weight' of group '0' holds NaN"):
        score_weights(ir)
    with pytest.raises(LabelError, match=r"parameter '3.weight' holds NaN"):
        magnitude_scores(ir.snapshot().structure, ir.model)


@pytest.mark.parametrize("option", ["reduce", "members", "normalize"])
def test_unknown_options_are_refused(ir, option):
    with pytest.raises(ScoreError, match=f"{option} is one of"):
        score_weights(ir, **{option: "nothing"})


# -- normalisation ---------------------------------------------------------------------------------


SCORES = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 30.0])}


@pytest.mark.parametrize(
    ("way", "a", "b"),
    [
        ("none", [1.0, 2.0, 3.0], [10.0, 30.0]),
        ("mean", [0.5, 1.0, 1.5], [0.5, 1.5]),
        ("max", [1 / 3, 2 / 3, 1.0], [1 / 3, 1.0]),
        ("standard", [-(1.5**0.5), 0.0, 1.5**0.5], [-1.0, 1.0]),
        ("macs", [0.1, 0.2, 0.3], [10.0, 30.0]),
    ],
)
def test_normalisations(way, a, b):
    scores = normalize_scores(SCORES, way, savings={"a": 10.0, "b": 1.0})
    torch.testing.assert_close(scores["a"], torch.tensor(a, dtype=torch.float64))
    torch.testing.assert_close(scores["b"], torch.tensor(b, dtype=torch.float64))


def test_constant_scores_stay_finite():
    for way in ("mean", "max", "standard"):
        assert torch.isfinite(normalize_scores({"a": torch.zeros(3)}, way)["a"]).all()


def test_macs_need_savings():
    with pytest.raises(ScoreError, match="needs what a label of each group saves"):
        normalize_scores(SCORES, "macs")


def test_macs_saved_by_a_label(ir):
    raw, divided = score_weights(ir)["0"], score_weights(ir, normalize="macs")["0"]
    # Per output position (16 of them, two images): 27 weights of its own and 5 that read it.
    torch.testing.assert_close(raw / divided, torch.full((4,), 2 * 16 * (27 + 5), dtype=torch.float64))


def test_members_is_an_enum():
    assert Members("all") is Members.ALL
