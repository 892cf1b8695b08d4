"""Measured scores: against masked and cut models, independent of the scale that was there, no trace left."""

import pytest
import torch
from torch import nn

from secateur import KnapsackLabelSelector, Label, PruningIR, ScoreError
from secateur.calibration import fit_scores, measure_scores
from secateur.cost import Macs


def mean_square(output: torch.Tensor, sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (output - sample[1]).square().mean()


def dense() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 12, bias=False), nn.ReLU(), nn.Linear(12, 3)
    )


def conv(*, norm: bool) -> nn.Sequential:
    second = nn.BatchNorm2d(6) if norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(5, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), second, nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    ).eval()  # fmt: skip


def recorded(model: nn.Module, *shape: int, batches: int = 4) -> tuple[PruningIR, list]:
    """An IR with magnitude scores, and samples with targets that are not the model's answers."""
    draw = torch.Generator().manual_seed(1)
    samples = [
        (torch.randn(20, *shape, generator=draw), torch.randn(20, 3, generator=draw)) for _ in range(batches)
    ]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(samples[0][0],))
    return ir, samples


def lowest(ir: PruningIR, name: str, count: int) -> list[Label]:
    (labels,) = (group.labels for group in ir.groups() if group.name == name)
    order = torch.argsort(ir.snapshot().current_scores()[name], stable=True)[:count]
    return [labels[index] for index in order.tolist()]


def loss_of(model: nn.Module, samples: list) -> float:
    with torch.no_grad():
        return sum(float(mean_square(model(x), (x, y))) for x, y in samples) / len(samples)


def test_without_compensation_a_rise_is_that_of_the_masked_model():
    model = dense()
    ir, samples = recorded(model, 5)
    cuts = (("0", 2), ("0", 4), ("2", 3), ("2", 6))
    marked = {cut: ir.masked(labels=lowest(ir, *cut)) for cut in cuts}
    found = measure_scores(ir, samples, mean_square, parts=(0.25, 0.5), compensate=None)
    assert found.base == pytest.approx(loss_of(model, samples))
    for (name, count), masked in marked.items():
        assert dict(found.losses[name])[count] == pytest.approx(
            loss_of(masked, samples) - found.base, abs=1e-6
        )


@pytest.mark.parametrize("how", ["mean", "least_squares"])
@pytest.mark.parametrize(("model", "shape"), [
    (dense(), (5,)), (conv(norm=True), (5, 4, 4)), (conv(norm=False), (5, 4, 4)),
])  # fmt: skip
def test_each_fold_is_judged_by_what_the_others_gave(model, shape, how):
    ir, samples = recorded(model, *shape, batches=2)
    halves = {group.name: group.size // 2 for group in ir.groups()}
    expected = {}
    for name, count in halves.items():
        labels = lowest(ir, name, count)
        cuts = [ir.prune(labels=labels, compensate=how, calibration=[sample]).model for sample in samples]
        expected[name] = (loss_of(cuts[1], samples[:1]) + loss_of(cuts[0], samples[1:])) / 2
    found = measure_scores(ir, samples, mean_square, parts=(0.5,), folds=2, compensate=how)
    assert set(expected) == {"0", "2"}
    for name, loss in expected.items():
        assert found.losses[name] == [(halves[name], pytest.approx(loss - found.base, rel=1e-3, abs=1e-5))]


def test_what_is_fitted_does_not_judge_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 40), nn.Identity(), nn.Linear(40, 3))
    batches = torch.randn(3, 10, 60)  # 30 examples explain 40 labels by any half of them
    with torch.no_grad():
        samples = [(x, model(x)) for x in batches]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(batches[0],))
    flattered = ir.prune(labels=lowest(ir, "0", 20), compensate="least_squares", calibration=batches)
    rise = dict(measure_scores(ir, samples, mean_square, parts=(0.5,)).losses["0"])[20]
    assert rise > 3 * loss_of(flattered.model, samples)


def test_the_scale_of_a_group_is_measured_not_believed():
    ir, samples = recorded(dense(), 5)
    given = ir.snapshot().current_scores()
    fitted = []
    for factor in (1.0, 1000.0):
        ir.snapshot().scores = {**given, "0": given["0"] * factor}
        fitted.append(measure_scores(ir, samples, mean_square).scores)
        assert torch.equal(ir.scores()["0"], fitted[-1]["0"])
    for name in ("0", "2"):
        torch.testing.assert_close(fitted[0][name], fitted[1][name])
        assert torch.equal(fitted[0][name].argsort(stable=True), given[name].argsort(stable=True))


def test_a_knapsack_spares_the_group_that_turns_out_dear():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Identity(), nn.Linear(16, 16), nn.Identity(), nn.Linear(16, 4))
    with torch.no_grad():
        model[2].weight[:, 8:] *= 1e-4  # half of the first group is hardly read, for all its magnitude
        model[0].weight[8:] *= 10
    batches = torch.randn(3, 50, 8)
    with torch.no_grad():
        samples = [(x, model(x)) for x in batches]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(batches[0][:1],))
    ir.snapshot().scores = {"0": torch.arange(16.0).flip(0) * 100 + 100, "2": torch.arange(16.0) + 1}
    selector = KnapsackLabelSelector(350, Macs(), verbose=False)
    assert {label.group for label in selector.select(ir)} == {"2"}
    measure_scores(ir, samples, mean_square)
    assert {label.group for label in selector.select(ir)} == {"0"}


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails):
    model = conv(norm=True).train()
    ir, samples = recorded(model, 5, 4, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, calls = torch.random.get_rng_state(), []

    def loss(output, sample):
        calls.append(output.requires_grad)
        if fails and len(calls) == 7:
            raise RuntimeError("stop")
        return mean_square(output + 0 * torch.rand(1), sample)

    if fails:
        with pytest.raises(RuntimeError, match="stop"):
            measure_scores(ir, samples, loss)
        assert not ir.snapshot().scores
    else:
        measure_scores(ir, samples, loss)
    assert not any(calls)
    assert model.training
    assert model[2].bias is None
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fitted_scores_add_up_and_never_fall():
    scores = torch.tensor([0.5, 3.0, 0.0, 1.0, 2.0, 4.0])
    fitted = fit_scores(scores, [(2, 0.1), (4, 0.9)])
    order = scores.argsort(stable=True)
    sums = fitted[order].cumsum(0)
    assert float(sums[1]) == pytest.approx(0.1)
    assert float(sums[3]) == pytest.approx(0.9)
    assert torch.equal(fitted.argsort(stable=True), order)
    slower = fit_scores(scores, [(2, 0.9), (4, 1.0)])
    assert bool((slower[order].diff() >= 0).all())
    falling = fit_scores(scores, [(2, -0.3), (4, -0.1)])
    assert torch.equal(falling.argsort(stable=True), order)
    assert 0 < float(falling.min()) < float(falling[order][3]) < 1e-6
    assert fit_scores(torch.zeros(3), [(1, 0.5)]).tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_mistakes_are_named():
    ir, samples = recorded(dense(), 5)
    with pytest.raises(ScoreError, match=r"at least 2 samples are needed .* this one has 1"):
        measure_scores(ir, samples[:1], mean_square)
    with pytest.raises(ScoreError, match="between 0 and 1"):
        measure_scores(ir, samples, mean_square, parts=(0.5, 1.0))
    with pytest.raises(ScoreError, match="folds is at least 2"):
        measure_scores(ir, samples, mean_square, folds=1)
    with pytest.raises(ScoreError, match=r"the loss is nan with 1 labels of .0. masked"):
        measure_scores(ir, samples, lambda output, sample: output.mean() * float("nan"))
    assert not ir.snapshot().scores
