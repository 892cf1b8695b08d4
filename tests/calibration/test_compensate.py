"""Compensation: exact where what is removed is constant or a combination, nearer everywhere else."""

import pytest
import torch
from torch import nn

import secateur
from secateur import LabelError, PruningIR, ScoreError, UniformLabelSelector
from secateur.calibration import compensation_for


def labels(ir: PruningIR, group: str, *indices: int) -> list[secateur.Label]:
    return [ir.groups()[[g.name for g in ir.groups()].index(group)].labels[i] for i in indices]


def error(small: nn.Module, model: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((small(x) - model(x)).norm() / model(x).norm())


def conv_net(*, bias: bool, norm: bool = False) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=bias),
        nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Flatten(), nn.Linear(6 * 9, 4),
    )  # fmt: skip
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
    return model.eval()


@pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_label_that_is_constant_is_folded_exactly(bias, norm, inplace):
    model = conv_net(bias=bias, norm=norm)
    with torch.no_grad():
        for index in (2, 5):
            model[0].weight[index] = 0
            model[0].bias[index] = 1.0 + index
    x = torch.randn(4, 3, 7, 7)
    expected = model(x).detach()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(x,))
    small = ir.prune(labels=labels(ir, "0", 2, 5), compensate="mean", inplace=inplace)
    assert small.report.verification.passed
    torch.testing.assert_close(small.model(x), expected)
    assert (small.model is model) == inplace
    assert (small.model[2].bias is not None) == (not norm)


def test_a_combination_of_other_labels_is_replaced_exactly():
    model = nn.Sequential(nn.Linear(5, 6), nn.Identity(), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 2))
    with torch.no_grad():
        model[0].weight[3] = 2 * model[0].weight[0] - model[0].weight[5]
        model[0].bias[3] = 0.7
    x = torch.randn(400, 5)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(x[:4],))
    gone = labels(ir, "0", 3)
    nearest = ir.prune(labels=gone, compensate="least_squares", calibration=x.split(50))
    assert error(nearest.model, model, x) < 0.02  # but for the damping
    assert error(ir.prune(labels=gone, compensate="mean", calibration=[x]).model, model, x) > 0.05


@pytest.mark.parametrize("build", [lambda: conv_net(bias=True), lambda: conv_net(bias=False, norm=True)])
def test_each_way_is_nearer_than_the_one_before(build):
    torch.manual_seed(2)
    model = build()
    x = torch.randn(256, 3, 7, 7) + 0.5
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(x[:8],))
    gone = UniformLabelSelector(0.5, ignore=["2"]).select(ir)
    errors = [
        error(ir.prune(labels=gone, compensate=how, calibration=x.split(64)).model, model, x)
        for how in (None, "mean", "least_squares")
    ]
    assert errors[0] > errors[1] > errors[2]


def test_every_reader_of_a_stream_is_compensated():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 8)
            self.left, self.right = nn.Linear(8, 3, bias=False), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.left(x) + self.right(torch.relu(x))

    model = Branches()
    with torch.no_grad():
        model.stem.weight[1] = 0
        model.stem.bias[1] = 3.0
    x = torch.randn(6, 4)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(x,))
    small = ir.prune(labels=labels(ir, "stem", 1), compensate="mean").model
    torch.testing.assert_close(small(x), model(x))
    assert model.left.bias is None
    assert small.left.bias is not None


def test_attention_and_residual_streams_of_a_transformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=24, num_attention_heads=4, intermediate_size=48, vocab_size=50
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    tokens = torch.randint(0, 50, (32, 9))
    ir = PruningIR(model)
    ir.create_snapshot("main", kwargs={"input_ids": tokens})
    gone = [
        label
        for label in UniformLabelSelector(0.25).select(ir)
        if "intermediate" in label.group or "value" in label.group
    ]

    def distance(how: str | None) -> float:
        small = ir.prune(labels=gone, compensate=how).model
        with torch.no_grad():
            return float((small(tokens)[0] - model(tokens)[0]).norm())

    none, mean, nearest = map(distance, (None, "mean", "least_squares"))
    assert none > mean > nearest


def test_the_model_is_as_it_was_afterwards():
    model = conv_net(bias=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 3, 7, 7)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(x,))
    ir.prune(labels=labels(ir, "0", 2, 5), compensate="least_squares")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_failed_cut_in_place_takes_it_back(monkeypatch):
    model = conv_net(bias=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(torch.randn(4, 3, 7, 7),))
    chosen = labels(ir, "0", 2)

    def fail(*args: object) -> None:
        raise secateur.VerificationError("no")

    monkeypatch.setattr("secateur._cutting._judge", fail)
    with pytest.raises(secateur.VerificationError):
        ir.prune(labels=chosen, compensate="mean", inplace=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_cannot_be_compensated_is_listed():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.again = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(torch.relu(self.again(torch.relu(self.up(x))))).sum(1)

    ir = PruningIR(Shared())
    snapshot = ir.create_snapshot("main", args=(torch.randn(3, 4),))
    group = snapshot.structure.groups[0]
    change = compensation_for(snapshot, group.labels[:1], "mean")
    assert "again.weight" in change.skipped
    assert "is read by aten.linear.default in again as well" in change.skipped["again.weight"]


def test_unknown_ways_and_empty_data_are_refused():
    ir = PruningIR(conv_net(bias=True))
    ir.create_snapshot("main", args=(torch.randn(4, 3, 7, 7),))
    gone = labels(ir, "0", 2)
    with pytest.raises(LabelError, match="compensate is None or one of"):
        ir.prune(labels=gone, compensate="median")
    with pytest.raises(ScoreError, match="the calibration data gave none"):
        ir.prune(labels=gone, compensate="mean", calibration=[])
