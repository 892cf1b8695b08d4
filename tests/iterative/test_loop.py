"""The loop of scoring, cutting and fine-tuning, its stop rule, and its checkpoints."""

import json

import pytest
import torch
from torch import nn

import secateur
from secateur import MeasurementError, PersistenceError, PruningIR, TargetError
from secateur.iterative import History, Step, load_best, prune_iteratively


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def recorded(model: nn.Module | None = None) -> PruningIR:
    ir = PruningIR(model or build())
    ir.create_snapshot("main", args=(torch.ones(2, 6),))
    return ir


def run(ir=None, **settings):
    settings = {"target": 0.4, "steps": 4, "verbose": False} | settings
    return prune_iteratively(ir or recorded(), **settings)


def test_every_step_reaches_its_share_of_the_cost():
    result = run(schedule="linear")
    shares = [step.share for step in result.history.steps]
    assert shares[0] == 1.0
    for share, wanted in zip(shares[1:], [0.85, 0.7, 0.55, 0.4], strict=True):
        assert wanted - 0.05 < share <= wanted
    assert result.best.number == 4  # no metric: the last
    assert result.best.macs == secateur.cost.Macs().bind(result.ir.snapshot())({})
    assert result.best.parameters == sum(p.numel() for p in result.model.parameters())


def test_score_cut_and_tune_alternate_on_the_model_of_the_step():
    calls: list[tuple[str, int]] = []

    def width(model):
        return model[0].out_features + model[2].out_features

    def score(ir):
        calls.append(("score", width(ir.model)))
        with secateur.LossAwareCriterion(ir) as collect:
            collect(torch.randn(4, 6)).square().mean().backward()

    ir = PruningIR(build())  # recorded by the first sample that is scored
    result = run(ir, steps=2, score=score, finetune=lambda model: calls.append(("tune", width(model))))
    assert [name for name, _ in calls] == ["score", "tune", "score", "tune"]
    assert calls[0][1] == 48
    assert calls[1][1] == calls[2][1] < 48
    assert calls[3][1] == width(result.model) < calls[2][1]


def test_scores_decide_what_goes():
    def score(ir):
        ir.snapshot().scores = {g.name: torch.arange(g.size, dtype=torch.float64) for g in ir.groups()}

    model = build()
    result = run(recorded(model), steps=1, score=score)
    kept = result.model[0].out_features
    assert kept < 32
    assert torch.equal(result.model[0].weight, model[0].weight[32 - kept :])


def test_fine_tuning_changes_what_the_next_step_starts_from():
    def finetune(model):
        with torch.no_grad():
            model[4].bias += 1

    model = build()
    result = run(recorded(model), steps=3, finetune=finetune)
    assert torch.allclose(result.model[4].bias, model[4].bias + 3)
    assert torch.equal(model[4].bias, build()[4].bias)  # what was given stays as it is


def test_the_limit_ends_the_loop_and_the_cheapest_within_is_the_best():
    metrics = iter([0.9, 0.5, 0.88, 0.4, 0.86, 0.3, 0.7])  # at first, then after each cut and tuning
    result = run(finetune=lambda model: None, evaluate=lambda model: next(metrics), limit=0.85, steps=5)
    assert [step.metric for step in result.history.steps] == [0.9, 0.88, 0.86, 0.7]
    assert [step.cut for step in result.history.steps[1:]] == [0.5, 0.4, 0.3]
    assert result.best.number == 2
    assert result.best.parameters == sum(p.numel() for p in result.model.parameters())


def test_a_metric_that_is_to_be_low_has_its_limit_above():
    metrics = iter([1.0, 1.1, 1.3])
    result = run(evaluate=lambda model: next(metrics), limit=1.2, higher_is_better=False)
    assert [step.number for step in result.history.steps] == [0, 1, 2]
    assert result.best.number == 1


def test_without_a_limit_the_best_metric_counts():
    metrics = iter([0.8, 0.9, 0.95, 0.95, 0.7])
    result = run(evaluate=lambda model: next(metrics))
    assert len(result.history.steps) == 5
    assert result.best.number == 3  # as good as step 2, and cheaper


def test_the_model_as_given_is_the_best_if_nothing_is_within_the_limit():
    ir = recorded()
    metrics = iter([0.9, 0.5])
    result = run(ir, evaluate=lambda model: next(metrics), limit=0.8)
    assert result.best.number == 0
    assert result.ir is ir


def test_the_best_checkpoint_comes_back(tmp_path):
    metrics = iter([0.9, 0.88, 0.87, 0.5])
    result = run(evaluate=lambda model: next(metrics), limit=0.85, checkpoints=tmp_path / "new" / "run")
    again, history = load_best(build, tmp_path / "new" / "run")
    x = torch.randn(5, 6)
    assert torch.equal(again.eval()(x), result.model(x))
    assert history == result.history
    assert history.best.number == 2
    assert len(list((tmp_path / "new" / "run").glob("step-*.safetensors"))) == 4


def test_an_interrupted_run_leaves_its_finished_steps(tmp_path):
    calls = iter([None, None, KeyboardInterrupt()])

    def finetune(model):
        error = next(calls)
        if error:
            raise error

    with pytest.raises(KeyboardInterrupt):
        run(finetune=finetune, checkpoints=tmp_path)
    model, history = load_best(build, tmp_path)
    assert [step.number for step in history.steps] == [0, 1, 2]
    assert sum(p.numel() for p in model.parameters()) == history.steps[2].parameters


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"format": 9}', '{"format": 1, "steps": []}'])
def test_a_file_that_is_no_history_is_refused(tmp_path, content):
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(PersistenceError, match=r"history\.json is no history of prune_iteratively"):
        load_best(build, tmp_path)


def test_a_folder_without_a_history_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"history\.json"):
        load_best(build, tmp_path)


def test_the_history_is_readable_json(tmp_path):
    run(steps=1, checkpoints=tmp_path)
    content = json.loads((tmp_path / "history.json").read_text())
    assert content["best"] == 1
    assert content["steps"][1]["share"] <= 0.4


def test_another_cost_selector_and_cut():
    asked: list[float] = []

    def selector(most):
        asked.append(most)
        return secateur.UniformLabelSelector(0.25)

    def cut(ir, labels):
        return ir.prune(labels=labels, compensate="mean")

    ir = recorded()
    full = sum(p.numel() for p in ir.model.parameters())
    cost = secateur.cost.Parameters()
    result = run(ir, steps=2, schedule="linear", cost=cost, selector=selector, cut=cut)
    assert asked == pytest.approx([0.7 * full, 0.4 * full])
    assert [result.model[0].out_features, result.model[2].out_features] == [18, 9]
    plain = recorded()
    for _ in range(2):
        plain = plain.prune(labels=secateur.UniformLabelSelector(0.25).select(plain))
    assert not torch.allclose(result.model[4].bias, plain.model[4].bias)  # compensated


def test_progress_is_shown(capsys):
    run(steps=1, evaluate=lambda model: 0.5, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 0: 100.0% of the cost left, 803 parameters, metric 0.5")
    assert lines[1].startswith("step 1: ")


def test_a_metric_that_is_nan_and_a_target_out_of_reach_are_said():
    with pytest.raises(MeasurementError, match="evaluate gave NaN"):
        run(evaluate=lambda model: float("nan"))
    with pytest.raises(TargetError, match="cannot be met"):
        run(target=0.001, steps=1)


def test_a_history_prints_its_steps_and_the_best():
    history = History([Step(0, 1.0, 10, 10), Step(1, 0.5, 5, 5)])
    assert str(history).splitlines()[-1] == "best: step 1"


@pytest.mark.parametrize("way", ["path", "module", "parameter"])
def test_what_is_ignored_stays_ignored_in_every_step(way):
    model = build()
    ignored = {"path": "2", "module": model[2], "parameter": model[2].weight}[way]
    ir = PruningIR(model, ignore=[ignored])
    ir.create_snapshot("main", args=(torch.ones(2, 6),))
    result = run(ir, steps=2, target=0.6)
    assert result.model[0].out_features < 32
    assert result.model[2].out_features == 16
