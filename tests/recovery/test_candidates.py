"""Which layers are solved for. The others are left, or get a bias, and the report says why."""

import torch
from torch import nn
from torch.nn import functional as F

from secateur import PruningIR, UniformLabelSelector


def test_what_is_inside_of_a_whole_attention_and_cannot_be_solved_is_listed() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 16), layer, nn.Linear(16, 3)).eval()
    loader = [torch.randn(16, 6, 5) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=UniformLabelSelector(0.3).select(ir)).recover(loader)
    assert report.skipped == {"1.self_attn.in_proj": "it is inside a module that is recorded whole"}
    assert {"1.self_attn.out_proj", "1.linear1", "1.linear2", "2"} <= {s.layer for s in report.stages}


def test_of_weights_that_are_computed_from_others_the_mean_is_put_right() -> None:
    torch.manual_seed(0)
    last = nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), last)
    loader = [torch.randn(64, 6) + 1 for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=ir.groups()[0].labels[:8]).recover(loader)
    assert [stage.what for stage in report.stages] == ["bias"]
    assert list(report.skipped.values()) == [
        "its weights are computed from others, only its mean was put right"
    ]
    assert report.after < report.before


def test_shared_weights_are_left_and_listed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.first(x))
            return self.head(self.shared(F.relu(self.shared(x))))

    torch.manual_seed(0)
    model, loader = Twice(), [torch.randn(64, 4) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=UniformLabelSelector(0.4).select(ir)).recover(loader)
    assert report.skipped == {"shared": "its weights are used 2 times"}


def test_projections_of_a_recurrent_layer_that_are_not_solved_are_listed() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 12)
            self.lstm = nn.LSTM(12, 6, bidirectional=True, batch_first=True)
            self.head = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(torch.tanh(self.embed(x)))[0])

    torch.manual_seed(0)
    model, loader = Tagger(), [torch.randn(32, 7, 5) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    groups = {group.name: group for group in ir.groups()}
    report = ir.prune(labels=groups["embed"].labels[:4]).recover(loader)
    assert {stage.layer for stage in report.stages} == {"lstm.weight_ih_l0", "head"}
    assert report.skipped == {
        "lstm.weight_ih_l0_reverse": "of a recurrent layer only the first projection is solved for"
    }
    assert report.after < report.before


def test_a_sum_that_is_scaled_on_the_way_is_left_and_listed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.last.bias, torch.tanh(self.first(x)), self.last.weight.t(), alpha=0.5)

    torch.manual_seed(0)
    model, loader = Scaled(), [torch.randn(64, 4) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=ir.groups()[0].labels[:3])
    before = small.model.last.weight.detach().clone()
    report = small.recover(loader)
    assert not report.stages
    assert report.skipped == {"last": "aten.addmm.default is not solved for"}
    assert torch.equal(small.model.last.weight, before)


def test_layers_that_read_what_is_not_cut_but_wrong_are_solved_too() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 6)
            self.c, self.d = nn.Linear(6, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(x + self.b(F.relu(self.a(x))))
            return self.d(F.relu(self.c(x)))

    torch.manual_seed(0)
    model, loader = Stream(), [torch.randn(128, 6) for _ in range(6)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    groups = {group.name: group for group in ir.groups()}
    report = ir.prune(labels=groups["a"].labels[:12]).recover(loader)
    stages = {stage.layer: stage for stage in report.stages}
    assert list(stages) == ["b", "c", "d"]  # and not a, which reads the input
    assert stages["c"].what == "solved"
    assert stages["c"].after < stages["c"].before
    assert report.after < report.before
