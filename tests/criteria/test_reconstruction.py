"""Elimination against the residual covariance, and the criterion against both."""

import pytest
import torch
from torch import nn

from secateur import (
    BinarySearchLatencyLabelSelector,
    GlobalScoreLabelSelector,
    KnapsackLabelSelector,
    PruningIR,
    ReconstructionCriterion,
    ScoreError,
    UniformLabelSelector,
)
from secateur.cost import Macs
from secateur.criteria._elimination import Layer, eliminate
from secateur.selectors import IsomorphicLabelSelector, LabelSelector, ThresholdLabelSelector


def covariance(size: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    factors = torch.randn(size, size // 2 + 1, generator=draw, dtype=torch.float64)
    return factors @ factors.t() + 0.05 * torch.eye(size, dtype=torch.float64)


def error(c: torch.Tensor, gram: torch.Tensor, gone: torch.Tensor) -> float:
    """Trace of the weights' inner products with the covariance that those that stay cannot explain."""
    stay = torch.ones(len(c), dtype=torch.bool)
    stay[gone] = False
    here = torch.nonzero(stay).flatten()
    explained = c[gone][:, here] @ torch.linalg.solve(c[here][:, here], c[here][:, gone])
    return float((gram[gone][:, gone] * (c[gone][:, gone] - explained)).sum())


def singles(size: int) -> list[torch.Tensor]:
    return list(torch.arange(size).split(1))


def random_layer(
    size: int, seed: int, positions: list[torch.Tensor]
) -> tuple[Layer, torch.Tensor, torch.Tensor]:
    c = covariance(size, seed)
    weights = torch.randn(size, 7, generator=torch.Generator().manual_seed(seed + 50), dtype=torch.float64)
    gram = weights @ weights.t()
    return Layer(torch.linalg.inv(c), gram.clone(), positions), c, gram


@pytest.mark.parametrize("each", [1, 3])
def test_sums_of_the_lowest_scores_are_the_error_without_them(each):
    positions = list(torch.arange(24).split(each))
    layer, c, gram = random_layer(24, 1, positions)
    scores = eliminate([layer], len(positions))
    order = scores.argsort(stable=True)
    for count in range(1, len(positions) - 1):
        gone = torch.cat([positions[label] for label in order[:count]])
        # Scores never fall, so where a later label would have been cheaper they are above the error.
        assert float(scores[order[:count]].sum()) >= error(c, gram, gone) * (1 - 1e-6)
    one = torch.cat([positions[int(order[0])]])
    assert float(scores[order[0]]) == pytest.approx(error(c, gram, one))


def test_the_first_to_go_is_the_cheapest_alone():
    layer, c, gram = random_layer(20, 2, singles(20))
    scores = eliminate([layer], 20)
    alone = [error(c, gram, torch.tensor([i])) for i in range(20)]
    assert int(scores.argmin()) == min(range(20), key=alone.__getitem__)


def test_inputs_of_other_labels_can_make_good_but_do_not_go():
    positions = singles(12)[:6]
    layer, c, gram = random_layer(12, 3, positions)
    scores = eliminate([layer], 6)
    assert float(scores.max()) < 1e6
    last = int(scores.argmax())
    gone = torch.tensor([i for i in range(6)])
    assert float(scores.sum()) >= error(c, gram, gone) * (1 - 1e-6)
    assert 0 <= last < 6


def test_errors_of_several_layers_add_up():
    first, second = (random_layer(10, seed, singles(10)) for seed in (4, 5))
    scores = eliminate([first[0], second[0]], 10)
    lowest = torch.tensor([int(scores.argmin())])
    expected = sum(error(c, gram, lowest) for _, c, gram in (first, second))
    assert float(scores.min()) == pytest.approx(expected)


def test_many_labels_are_taken_in_steps_with_nearly_the_same_result(monkeypatch):
    whole, c, gram = random_layer(200, 6, singles(200))
    stepped, _, _ = random_layer(200, 6, singles(200))
    in_steps = eliminate([stepped], 200)
    monkeypatch.setattr("secateur.criteria._elimination.ONE_BY_ONE", 1000)
    exact = eliminate([whole], 200)
    for count in (50, 100, 150):
        errors = [error(c, gram, scores.argsort(stable=True)[:count]) for scores in (in_steps, exact)]
        assert errors[0] <= 1.05 * errors[1] + 1e-9


# -- the criterion ---------------------------------------------------------------------------------


def scores_of(model: nn.Module, batches: list[torch.Tensor], **settings: object) -> ReconstructionCriterion:
    with ReconstructionCriterion(PruningIR(model), **settings) as collect:
        for batch in batches:
            collect(batch).square().mean().backward()
    return collect


def shrunk(x: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """Ledoit and Wolf's covariance of rows ``x``; how they differ is told by ``around`` some mean."""
    c = torch.cov(x.t(), correction=0)
    target = c.diagonal().mean() * torch.eye(len(c)).double()
    own = torch.stack([(torch.outer(row, row)).square().sum() for row in around])
    share = (own.mean() - c.square().sum()) / len(x) / (c - target).square().sum()
    return (1 - share) * c + share * target


def test_scores_follow_from_covariances_and_output_gradients():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 5))
    batches = [torch.randn(16, 4) for _ in range(4)]
    found = scores_of(model, batches, damping=1e-3).scores["0"]
    inputs = torch.cat([model[:2](batch) for batch in batches]).double().detach()
    c = shrunk(inputs, inputs - inputs[:16].mean(0))
    c += 1e-3 * c.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    gradients = []
    for batch in batches:
        out = model(batch).detach().requires_grad_()
        (grad,) = torch.autograd.grad(out.square().mean(), out)
        gradients.append(grad * len(batch))
    matter = torch.cat(gradients).double().square().mean(0)
    weight = model[2].weight.detach().double()
    gram = weight.t() @ (matter[:, None] * weight)
    expected = eliminate([Layer(torch.linalg.inv(c), gram, singles(9))], 9)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-12)


def test_among_few_examples_features_do_not_seem_redundant():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 5))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(30))
    many, few = (scores_of(model, [torch.randn(count, 30)], damping=1e-3).scores["0"] for count in (2000, 20))
    # Any 10 of the 30 features are combinations of the others on 20 examples, and on no others.
    assert float(few.sort().values[:10].sum()) > 0.3 * float(many.sort().values[:10].sum())


def test_a_label_that_repeats_another_is_free_while_the_other_stays():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = model[0].weight[1], model[0].bias[1]
        model[2].weight[:, [1, 4]] *= 5
    found = scores_of(model, [torch.randn(64, 4) for _ in range(3)], damping=1e-4).scores["0"]
    first, second = sorted((float(found[1]), float(found[4])))
    assert first < 0.02 * second


def test_kernels_groups_and_streams():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.left, self.right = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 6, 3)
            self.head = nn.Linear(6 * 4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.depth(torch.relu(self.stem(x))))
            return self.head(torch.relu(self.left(x) + self.right(x)).flatten(1))

    model = Net()
    ir = PruningIR(model)
    with ReconstructionCriterion(ir) as collect:
        for batch in torch.randn(3, 5, 3, 4, 4):
            collect(batch).square().mean().backward()
    assert not collect.missing
    assert {g.name: g.size for g in ir.groups()} == {n: len(s) for n, s in collect.scores.items()}
    assert all((s >= 0).all() and torch.isfinite(s).all() for s in collect.scores.values())


def test_what_no_layer_reads_is_listed():
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    collect = scores_of(model, [torch.randn(3, 5, 16)])
    assert set(collect.scores) == {"linear1"}
    assert all(name.startswith("self_attn") for name in collect.missing)


def test_heads_of_attention_have_scores():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_size=12, num_attention_heads=3, intermediate_size=20, vocab_size=30
    )
    ir = PruningIR(transformers.BertModel(config, add_pooling_layer=False).eval())
    with ReconstructionCriterion(ir) as collect:
        collect({"input_ids": torch.randint(0, 30, (4, 5))})[0].square().mean().backward()
    heads = next(g for g in ir.groups() if g.role == "heads")
    assert collect.scores[heads.name].shape == (3,)


def test_it_cuts_with_less_loss_than_magnitude():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(600, 6)
    wanted = model(x).detach()
    errors = []
    for own in (True, False):
        ir = PruningIR(model)
        ir.create_snapshot("main", args=(x[:8],))
        if own:
            with ReconstructionCriterion(ir) as collect:
                for batch in x.split(100):
                    collect(batch).square().mean().backward()
        labels = UniformLabelSelector(0.5).select(ir)
        small = ir.prune(labels=labels, compensate="least_squares", calibration=x.split(100)).model
        errors.append(float((small(x).detach() - wanted).square().mean()))
    assert errors[0] < 0.8 * errors[1]


def weighted_time(model: nn.Module) -> float:
    """Stands for a latency that is measured on the cut model."""
    return 1e-9 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "selector",
    [
        UniformLabelSelector(0.5),
        GlobalScoreLabelSelector(0.5),
        IsomorphicLabelSelector(0.5),
        ThresholdLabelSelector(1e-6),
        KnapsackLabelSelector(60_000, Macs(), verbose=False),
        KnapsackLabelSelector(1200e-9, weighted_time, verbose=False),
        BinarySearchLatencyLabelSelector(1200e-9, weighted_time, verbose=False),
    ],
    ids=lambda selector: type(selector).__name__,
)
def test_every_selector_takes_redundant_labels_first(selector: LabelSelector):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():  # the second half of the first hidden layer repeats the first half
        model[0].weight[16:], model[0].bias[16:] = model[0].weight[:16], model[0].bias[:16]
    ir = PruningIR(model)
    with ReconstructionCriterion(ir) as collect:
        for x in torch.randn(8, 64, 16):
            collect(x).square().mean().backward()
    gone = {label.index % 16 for label in selector.select(ir) if label.group == "0"}
    count = sum(label.group == "0" for label in selector.select(ir))
    assert count >= 1
    assert len(gone) == min(count, 16), "no pair goes as long as one of its kind stays elsewhere"


def test_nothing_is_left_behind():
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 5))
    scores_of(model, [torch.randn(3, 4)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_errors_are_named():
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 5))
    with pytest.raises(ScoreError, match="damping is a positive share"):
        ReconstructionCriterion(PruningIR(model), damping=0)
    message = r"no gradient reached any layer in batch 1: call backward\(\)"
    with pytest.raises(ScoreError, match=message), ReconstructionCriterion(PruningIR(model)) as collect:
        collect(torch.ones(2, 4))
    message = "the gradient at the output of 2 is not finite in batch 1"
    with pytest.raises(ScoreError, match=message), ReconstructionCriterion(PruningIR(model)) as collect:
        (collect(torch.ones(2, 4)).sum() * float("nan")).backward()
