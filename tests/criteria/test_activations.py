"""Scores from activations, against the same statistics taken with hooks."""

import pytest
import torch
from torch import nn

from secateur import CaptureError, PruningIR, ScoreError, UniformLabelSelector
from secateur.criteria import APoZCriterion, MeanActivationCriterion, WandaCriterion


class Branches(nn.Module):
    """A stream that two layers read, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.left(x) + self.right(x))
        return self.head(x.mean((2, 3)))


def inputs_of(module: nn.Module, model: nn.Module, batches: list[torch.Tensor]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    for batch in batches:
        model(batch)
    handle.remove()
    return torch.cat(seen)


def scores(criterion, model, batches):
    with criterion(PruningIR(model)) as collect:
        for batch in batches:
            out = collect(batch)
            assert not out.requires_grad
    return collect


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return [torch.randn(n, 3, 7, 7) for n in (4, 2, 3)]


def test_mean_activation_is_added_over_the_readers(batches):
    model = Branches()
    collect = scores(MeanActivationCriterion, model, batches)
    stream = inputs_of(model.left, model, batches)
    torch.testing.assert_close(collect.scores["stem"].float(), 2 * stream.abs().mean((0, 2, 3)))
    hidden = inputs_of(model.head, model, batches)
    torch.testing.assert_close(collect.scores["left"].float(), hidden.abs().mean(0))


def test_apoz_is_the_share_that_is_not_zero(batches):
    model = Branches()
    with torch.no_grad():
        model.stem.bias[2] = -100.0
    collect = scores(APoZCriterion, model, batches)
    share = (inputs_of(model.left, model, batches) != 0).float().mean((0, 2, 3))
    torch.testing.assert_close(collect.scores["stem"].float(), 2 * share)
    assert float(collect.scores["stem"][2]) == 0.0


def test_wanda_multiplies_norms_and_weights(batches):
    model = Branches()
    collect = scores(WandaCriterion, model, batches)
    stream = inputs_of(model.left, model, batches)
    norm = stream.square().mean((0, 2, 3)).sqrt()
    weights = sum(layer.weight.abs().sum((0, 2, 3)) for layer in (model.left, model.right))
    torch.testing.assert_close(collect.scores["stem"].float(), norm * weights)


def test_labels_of_a_flattened_axis_take_all_their_positions():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(100, 2))
    batch = torch.randn(2, 3, 7, 7)
    collect = scores(MeanActivationCriterion, model, [batch])
    torch.testing.assert_close(collect.scores["0"].float(), model[0](batch).abs().mean((0, 2, 3)))


def test_heads_and_features_of_attention_are_seen():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_size=12, num_attention_heads=3, intermediate_size=20, vocab_size=30
    )
    model = transformers.BertModel(config).eval()
    ir = PruningIR(model)
    with MeanActivationCriterion(ir) as collect:
        collect({"input_ids": torch.randint(0, 30, (2, 5)), "labels": torch.zeros(2)})
    assert not collect.missing
    assert {g.name for g in ir.groups()} == set(collect.scores)


def test_what_a_whole_module_hides_is_listed():
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    ir = PruningIR(model)
    with MeanActivationCriterion(ir) as collect:
        collect(torch.randn(2, 5, 16))
    hidden = {g.name for g in ir.groups()} - set(collect.scores)
    assert hidden == set(collect.missing)
    assert all(name.startswith("self_attn") for name in hidden)
    assert "linear1" in collect.scores
    assert {label.group for label in UniformLabelSelector(0.5).select(ir)} == set(collect.scores)


def test_nothing_is_left_behind(batches):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).train()
    mean = model[1].running_mean.clone()
    scores(APoZCriterion, model, batches)
    assert model.training
    assert torch.equal(model[1].running_mean, mean)
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())


def test_another_path_through_the_code_is_said():
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(x)
            return self.down(torch.relu(x) if len(x) > 1 else torch.tanh(x))

    with pytest.raises(
        CaptureError, match=r"aten.tanh.default where aten.relu.default in the model was recorded"
    ):
        scores(MeanActivationCriterion, Choosing(), [torch.ones(2, 2), torch.ones(1, 2)])


def test_no_batch_is_said():
    with pytest.raises(ScoreError, match="APoZCriterion got no batch"):
        scores(APoZCriterion, Branches(), [])
