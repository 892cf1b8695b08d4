"""The collector: the user's code runs, in every way of training, and nothing is left behind."""

import pickle

import dill
import pytest
import torch
from torch import nn

import secateur
from scored import Residual, collected, image_net, mlp, squared
from secateur import LossAwareCriterion, PruningIR, ScoreError, UniformLabelSelector

# -- the seed's code -----------------------------------------------------------------------------


def test_seed_code_runs():
    model = image_net().eval()
    train_loader = [(torch.randn(4, 3, 6, 6), torch.randint(0, 5, (4,))) for _ in range(3)]

    def loss_function(model_output, sample):
        return nn.functional.cross_entropy(model_output, sample[1])

    ir = PruningIR(model)

    with LossAwareCriterion(ir) as score_collector:
        for sample in train_loader:
            model_output = score_collector(sample)
            loss = loss_function(model_output, sample)
            loss.backward()

    label_selector = UniformLabelSelector(pruning_ratio=0.5)
    labels = label_selector.select(ir)
    ir = ir.prune(labels=labels)
    pruned_model = ir.model
    assert [m.out_channels for m in pruned_model if isinstance(m, nn.Conv2d)] == [4, 4, 5]
    assert pruned_model(train_loader[0][0]).shape == (4, 5)


def test_a_cut_follows_every_snapshot_that_the_loop_and_the_user_recorded():
    ir = PruningIR(image_net().eval())
    ir.create_snapshot("large", args=(torch.randn(2, 3, 9, 9),))
    with LossAwareCriterion(ir) as score_collector:
        for images in torch.randn(2, 4, 3, 6, 6):
            squared(score_collector(images)).backward()
    assert ir.snapshot_names == ["large", "main"]
    small = ir.prune(labels=UniformLabelSelector(pruning_ratio=0.5).select(ir))
    assert small.snapshot_names == ["large", "main"]
    assert len(small.report.verification.comparisons) >= 2
    assert small.model(torch.randn(1, 3, 9, 9)).shape == (1, 5)


def test_a_collector_says_what_it_has_seen():
    collect = LossAwareCriterion(PruningIR(mlp()))
    assert repr(collect) == "LossAwareCriterion(0 examples in 0 batches, 0 groups scored)"
    with collect:
        for count in (3, 5):
            squared(collect(torch.randn(count, 4))).backward()
    groups = len(collect.scores)
    assert groups
    assert repr(collect) == f"LossAwareCriterion(8 examples in 2 batches, {groups} groups scored)"


def test_select_takes_the_ir_or_a_snapshot():
    ir = PruningIR(mlp())
    with LossAwareCriterion(ir, snapshot_name="other") as collect:
        squared(collect(torch.randn(3, 4))).backward()
    selector = UniformLabelSelector(0.5)
    assert ir.snapshot_names == ["other"]
    assert selector.select(ir.snapshot("other")) == selector.select(ir, "other")
    assert selector.select(ir, snapshot_name="other") == selector.select(ir, "other")


def test_snapshots_keep_scores_of_their_own():
    ir = PruningIR(mlp())
    for name, scale in (("main", 1.0), ("large", 10.0)):
        with LossAwareCriterion(ir, name) as collect:
            (squared(collect(torch.ones(3, 4))) * scale).backward()
    small, large = ir.scores("main")["0"], ir.scores("large")["0"]
    torch.testing.assert_close(small * 100, large)


def test_no_labels_give_a_copy():
    ir = PruningIR(mlp())
    ir.create_snapshot("main", args=(torch.ones(1, 4),))
    copy = ir.prune(labels=[])
    assert copy.model is not ir.model
    assert all(a is not b for a, b in zip(copy.model.parameters(), ir.model.parameters(), strict=True))
    torch.testing.assert_close(copy.model(torch.ones(1, 4)), ir.model(torch.ones(1, 4)))


def test_labels_of_an_equal_model_pass_only_unchecked():
    one, two = PruningIR(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))), PruningIR(mlp())
    for ir, width in ((one, 2), (two, 4)):
        ir.create_snapshot("main", args=(torch.ones(1, width),))
    foreign = UniformLabelSelector(0.5).select(one)
    with pytest.raises(secateur.LabelError, match="another PruningIR"):
        two.prune(labels=foreign)
    assert two.prune(labels=foreign, skip_label_checking=True).model[0].out_features == 6


def test_an_ir_survives_torch_save_with_dill(tmp_path):
    ir = PruningIR(image_net().eval())
    with LossAwareCriterion(ir) as collect:
        squared(collect(torch.randn(2, 3, 6, 6))).backward()
    labels = UniformLabelSelector(0.5).select(ir)
    torch.save(ir, tmp_path / "ir.pt", pickle_module=dill)
    back = torch.load(tmp_path / "ir.pt", pickle_module=dill, weights_only=False)
    assert back.snapshot_names == ["main"]
    assert UniformLabelSelector(0.5).select(back) == labels
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(back.prune(labels=labels).model(x), ir.prune(labels=labels).model(x))
    assert pickle.loads(pickle.dumps(ir.snapshot())).scores.keys() == collect.scores.keys()


# -- samples ---------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.left(a) + self.right(b)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, b, torch.zeros(2)],
        lambda a, b: {"b": b, "a": a, "labels": torch.zeros(2)},
    ],
    ids=["tuple", "list with labels", "dict with labels"],
)
def test_samples_call_the_model_as_models_are_called(wrap):
    torch.manual_seed(1)
    model = TwoInputs()
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    ir = PruningIR(model)
    with LossAwareCriterion(ir) as collect:
        out = collect(wrap(a, b))
        squared(out).backward()
    torch.testing.assert_close(out, model(a, b))
    assert len(ir.groups()) == 1


def test_a_function_can_say_what_a_sample_means():
    ir = PruningIR(mlp())
    settings = {"sample_to_model_inputs": lambda sample: ((sample["x"],), {})}
    with LossAwareCriterion(ir, **settings) as collect:
        squared(collect({"x": torch.ones(2, 4)})).backward()
    assert collect.batches == 1
    assert collect.examples == 2


# -- ways of training ------------------------------------------------------------------------------


def test_unequal_batches_count_by_their_examples():
    model = mlp()
    large, small = torch.randn(6, 4), torch.randn(2, 4)
    both = collected(model, [large, small])["0"]
    one, two = collected(model, [large])["0"], collected(model, [small])["0"]
    torch.testing.assert_close(both, (6 * one + 2 * two) / 8)


def test_several_losses_of_one_sample_add_up():
    model, batch = mlp(), torch.randn(5, 4)
    ir = PruningIR(model)
    with LossAwareCriterion(ir) as collect:
        out = collect(batch)
        (squared(out) / 2).backward(retain_graph=True)
        (squared(out) / 2).backward()
    torch.testing.assert_close(collect.scores["0"], collected(model, [batch])["0"])


def test_zero_grad_inside_the_loop_changes_nothing():
    model, batches = mlp(), [torch.randn(5, 4) for _ in range(3)]
    with LossAwareCriterion(PruningIR(model)) as collect:
        for batch in batches:
            squared(collect(batch)).backward()
            model.zero_grad()
    torch.testing.assert_close(collect.scores["0"], collected(model, batches)["0"])


def test_gradients_flags_and_hooks_come_back():
    model = Residual()
    model.down.weight.requires_grad_(False)
    squared(model(torch.randint(0, 11, (2, 3)))).backward()
    before = {name: (p.grad, p.requires_grad) for name, p in model.named_parameters()}
    kept = {name: None if g is None else g.clone() for name, (g, _) in before.items()}
    with LossAwareCriterion(PruningIR(model)) as collect:
        squared(collect(torch.randint(0, 11, (2, 3)))).backward()
    for name, p in model.named_parameters():
        assert p.grad is before[name][0]
        assert p.requires_grad == before[name][1]
        assert p.grad is None or torch.equal(p.grad, kept[name])
        assert not p._backward_hooks
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_nothing_is_left_when_the_users_code_raises():
    model = mlp()
    model[2].weight.requires_grad_(False)
    with pytest.raises(KeyError), LossAwareCriterion(PruningIR(model)) as collect:
        squared(collect(torch.ones(1, 4))).backward()
        raise KeyError
    assert not model[2].weight.requires_grad
    assert all(p.grad is None and not p._backward_hooks for p in model.parameters())


def test_frozen_parameters_are_scored_like_others():
    batch = torch.randn(5, 4)
    model = mlp()
    free = collected(model, [batch])
    model.requires_grad_(False)
    frozen = collected(model, [batch])
    for name in free:
        torch.testing.assert_close(free[name], frozen[name])


def test_autocast_gives_nearly_the_same():
    model, batch = mlp(), torch.randn(64, 4)
    with LossAwareCriterion(PruningIR(model)) as collect:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = squared(collect(batch))
        loss.backward()
    torch.testing.assert_close(collect.scores["0"], collected(model, [batch])["0"], rtol=0.2, atol=1e-6)


class Scaler:
    """Scales a loss, as ``torch.amp.GradScaler`` does on a device that has one."""

    def __init__(self, scales: list[float]) -> None:
        self.scales = iter(scales)
        self.now = 1.0

    def get_scale(self) -> float:
        self.now = next(self.scales)
        return self.now


def test_a_scaled_loss_is_scaled_back_and_overflows_are_skipped():
    model, batch = mlp(), torch.randn(8, 4)
    scaler = Scaler([128.0, float("inf"), 64.0])
    with LossAwareCriterion(PruningIR(model), grad_scaler=scaler) as collect:
        for _ in range(3):
            out = collect(batch)
            (squared(out) * scaler.now).backward()
    assert collect.skipped == 1
    torch.testing.assert_close(collect.scores["0"], collected(model, [batch])["0"])


def test_a_real_grad_scaler_changes_nothing():
    model, batch = mlp(), torch.randn(8, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with LossAwareCriterion(PruningIR(model), grad_scaler=scaler) as collect:
        for _ in range(2):
            scaler.scale(squared(collect(batch))).backward()
    torch.testing.assert_close(collect.scores["0"], collected(model, [batch])["0"])


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_loss_that_is_nan_is_named():
    with (
        pytest.raises(ScoreError, match=r"gradient of .*weight\[1\].* is not finite in batch 2"),
        LossAwareCriterion(PruningIR(mlp())) as collect,
    ):
        for value in (1.0, float("nan"), 1.0):
            (squared(collect(torch.randn(3, 4))) * value).backward()


def test_a_group_without_gradient_is_named():
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = mlp(), mlp()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.used(x), self.unused(x)

    ir = PruningIR(TwoHeads())
    message = r"'unused.0', 'unused.2' \(looked for at unused.2.weight\[1\]\)"
    with pytest.raises(ScoreError, match=message), LossAwareCriterion(ir) as collect:
        squared(collect(torch.ones(2, 4))[0]).backward()
    assert not ir.snapshot().scores


def test_a_loop_without_a_batch_is_said():
    message = "LossAwareCriterion got no batch"
    with pytest.raises(ScoreError, match=message), LossAwareCriterion(PruningIR(mlp())):
        pass


def test_a_sample_without_backward_is_said():
    message = r"no gradient reached any group in batch 1: call backward\(\)"
    with pytest.raises(ScoreError, match=message), LossAwareCriterion(PruningIR(mlp())) as collect:
        collect(torch.ones(2, 4))


def test_the_collector_works_only_in_its_context():
    criterion = LossAwareCriterion(PruningIR(mlp()))
    with pytest.raises(ScoreError, match=r"with LossAwareCriterion\(ir\) as collect"):
        criterion(torch.ones(2, 4))


@pytest.mark.parametrize("name", ["spread", "normalize"])
def test_unknown_options_are_refused(name):
    with pytest.raises(ScoreError, match=f"{name} is one of"):
        LossAwareCriterion(PruningIR(mlp()), **{name: "sqaure"})
