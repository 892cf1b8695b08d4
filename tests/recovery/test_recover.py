"""Recovery on whole models: what is redundant comes back, and nothing else is touched."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from secateur import PruningIR, Recovery, RecoveryError, UniformLabelSelector


class Residual(nn.Module):
    """A convolutional network with what recovery has a case for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.mixed = nn.Conv2d(12, 12, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.norm(self.mixed(F.relu(self.depthwise(self.grouped(x)))))
        return self.head(F.relu(self.up(x)).mean((2, 3)))


class Sequence(nn.Module):
    """A transformer block with separate projections, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        n = self.norm(x)
        q, k, v = (f(n).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        heads = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(self.lstm(x)[0][:, -1])


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind().eval()
    for name, tensor in model.named_buffers():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    return model


def images(count: int = 6, size: int = 16) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 8, 8, generator=draw) for _ in range(count)]


def steps(count: int = 6, size: int = 32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(size, 7, 6, generator=draw) for _ in range(count)]


CASES = [(Residual, images), (Sequence, steps)]


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_outputs_come_closer_to_the_original(kind: type[nn.Module], data) -> None:
    model, loader = seeded(kind), data()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=UniformLabelSelector(0.4).select(ir))
    fresh = data(7)[-1]  # a batch that recovery does not see
    with torch.no_grad():
        wanted = model(fresh)
        before = float((small.model(fresh) - wanted).norm() / wanted.norm())
        report = small.recover(loader)
        after = float((small.model(fresh) - wanted).norm() / wanted.norm())
    assert after < 0.6 * before
    assert report.after < report.before
    assert report.kept
    assert small.report is not None
    assert small.report.recovery is report
    assert "relative error of the outputs" in str(report)


def test_every_kind_of_layer_is_solved() -> None:
    model, loader = seeded(Residual), images()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = UniformLabelSelector(0.34).select(ir)
    report = ir.prune(labels=labels, recover=loader).report
    assert report is not None
    assert report.recovery is not None
    done = {stage.layer: stage.what for stage in report.recovery.stages}
    for layer in ("depthwise", "grouped", "mixed", "up", "head"):
        assert done[layer] == "solved", report.recovery
    assert not report.recovery.skipped


def test_the_projections_of_attention_and_lstm_are_solved() -> None:
    model, loader = seeded(Sequence), steps()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=UniformLabelSelector(0.4).select(ir)).recover(loader)
    solved = {stage.layer for stage in report.stages if stage.what == "solved"}
    assert {"q", "k", "v", "out", "up", "down", "lstm.weight_ih_l0", "head"} <= solved


def test_the_bias_of_a_recurrent_layer_is_solved_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.LSTM(12, 6, batch_first=True))
    loader = [torch.randn(32, 7, 5) for _ in range(4)]
    with torch.no_grad():
        model[0].weight[8:], model[0].bias[8:] = 0.0, 2.0  # constants, which only a bias can stand in for
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=ir.groups()[0].labels[8:])
    before = small.model[1].bias_ih_l0.detach().clone()
    report = small.recover(loader)
    assert report.after < 1e-3 < report.before
    assert not torch.equal(small.model[1].bias_ih_l0, before)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_output_projection_of_an_attention_that_is_recorded_whole(batch_first: bool) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=batch_first).eval()
    loader = [torch.randn(16, 6, 16) for _ in range(4)]
    if not batch_first:
        loader = [batch.transpose(0, 1) for batch in loader]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    (heads,) = (group for group in ir.groups() if group.role == "heads")
    report = ir.prune(labels=heads.labels[:2]).recover(loader)
    stage = next(stage for stage in report.stages if stage.layer == "self_attn.out_proj")
    assert stage.what == "solved"
    assert stage.after < 0.95 * stage.before
    assert report.after < report.before


def test_positions_that_are_cut_too_are_left_out_of_the_original() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.up, self.down = nn.Linear(5, 12), nn.Linear(7, 16), nn.Linear(16, 7)
            self.head = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(self.into(x))
            x = x + self.down(torch.relu(self.up(x.transpose(1, 2)))).transpose(1, 2)
            return self.head(x)

    torch.manual_seed(0)
    model, loader = Mixer(), [torch.randn(32, 7, 5) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=UniformLabelSelector(0.4).select(ir)).recover(loader)
    assert {stage.layer for stage in report.stages if stage.what == "solved"} >= {"down", "head"}
    assert not report.skipped
    assert report.after < 0.8 * report.before


def redundant() -> tuple[nn.Module, PruningIR, list, list[torch.Tensor]]:
    """A network whose hidden units 4 to 7 are combinations of the units 0 to 3."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).double()
    with torch.no_grad():
        first = model[0]
        mix = torch.randn(4, 4, dtype=torch.float64)
        first.weight[4:] = mix @ first.weight[:4]
        first.bias[4:] = mix @ first.bias[:4] + 0.7
    loader = [torch.randn(64, 6, dtype=torch.float64) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    group = ir.groups()[0]
    return model, ir, group.labels[4:], loader


def test_what_is_redundant_comes_back_whole() -> None:
    model, ir, labels, loader = redundant()
    small = ir.prune(labels=labels)
    x = torch.randn(50, 6, dtype=torch.float64)
    with torch.no_grad():
        assert (small.model(x) - model(x)).norm() > 0.1 * model(x).norm()
        small.recover(loader)
        assert (small.model(x) - model(x)).norm() < 1e-3 * model(x).norm()


def test_errors_upstream_are_corrected_downstream() -> None:
    # The stream is wrong in front of the second block; that block's last layer can put it right.
    torch.manual_seed(0)

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 6)
            self.c, self.d = nn.Linear(6, 40), nn.Linear(40, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.b(F.relu(self.a(x)))
            return x + self.d(F.relu(self.c(x)))

    model = Stream()
    loader = [torch.randn(128, 6) for _ in range(6)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    groups = {group.name: group for group in ir.groups()}
    labels = groups["a"].labels[:8] + groups["c"].labels[:4]
    report = ir.prune(labels=labels).recover(loader)
    last = next(stage for stage in report.stages if stage.layer == "d")
    # Its error has the stream's in it, of which it takes off a good part.
    assert last.before > 0.05
    assert last.after < 0.7 * last.before


def test_nothing_of_the_original_changes() -> None:
    model, loader = seeded(Residual), images()
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=UniformLabelSelector(0.34).select(ir))
    small_flags = [module.training for module in small.model.modules()]
    parameters = list(small.model.parameters())
    state = torch.get_rng_state()
    small.recover(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert [module.training for module in small.model.modules()] == small_flags
    assert all(a is b for a, b in zip(small.model.parameters(), parameters, strict=True))
    assert all(p.requires_grad and p.grad is None for p in parameters)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in small.model.modules())


class Interrupting(nn.ReLU):
    """Raises in the run that it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left: list[int] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.calls_left:
            self.calls_left[0] -= 1
            if not self.calls_left[0]:
                raise KeyboardInterrupt
        return super().forward(input)


def test_an_interrupt_leaves_the_cut_model_as_it_was() -> None:
    torch.manual_seed(0)
    stop = Interrupting()
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), stop, nn.Linear(8, 2))
    loader = [torch.randn(32, 4) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=UniformLabelSelector(0.5).select(ir))
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    # Four runs of the judged and watched passes go by; then the first layer has been solved.
    small.model[3].calls_left = [3]
    with pytest.raises(KeyboardInterrupt):
        small.recover(loader)
    assert small.model[3].calls_left == [0]
    assert all(torch.equal(value, before[name]) for name, value in small.model.state_dict().items())


def test_in_place_is_the_same_as_a_copy() -> None:
    model, loader = seeded(Residual), images()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = UniformLabelSelector(0.34).select(ir)
    wanted = ir.prune(labels=labels, recover=loader).model
    found = ir.prune(labels=labels, recover=loader, inplace=True)
    assert found.model is model
    assert found.report is not None
    assert found.report.recovery is not None
    for name, value in wanted.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_one_line_recovers_too() -> None:
    model, loader = seeded(Residual), images()
    small, report = secateur.prune(model, (loader[0],), ratio=0.34, recover=Recovery(loader, batches=4))
    assert report.recovery is not None
    assert report.recovery.after < report.recovery.before
    assert small.stem[0].out_channels < 12


def test_no_data_is_told_before_anything_changes() -> None:
    model, loader = seeded(Residual), images()
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = UniformLabelSelector(0.34).select(ir)
    with pytest.raises(RecoveryError, match="the calibration data gave none"):
        ir.prune(labels=labels, recover=[], inplace=True)
    assert model.stem[0].out_channels == 12


def test_without_its_original_a_model_says_what_to_do() -> None:
    model, loader = seeded(Residual), images(1)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    ir = ir.prune(labels=UniformLabelSelector(0.34).select(ir))
    gc.collect()
    with pytest.raises(RecoveryError, match=r"ir.prune\(labels=..., recover=loader\)"):
        ir.recover(loader)


def test_less_memory_is_fewer_batches_in_front() -> None:
    model, loader = seeded(Residual), images(8)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = UniformLabelSelector(0.34).select(ir)
    rows = {}
    for memory in (2**17, 2**30):
        report = ir.prune(labels=labels, recover=Recovery(loader, max_memory=memory)).report
        assert report is not None
        assert report.recovery is not None
        rows[memory] = {stage.layer: stage.rows for stage in report.recovery.stages}
        assert report.recovery.after < report.recovery.before
    assert rows[2**17]["depthwise"] < rows[2**30]["depthwise"]


def test_half_precision_models() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).bfloat16()
    loader = [torch.randn(64, 6, dtype=torch.bfloat16) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    report = ir.prune(labels=UniformLabelSelector(0.5).select(ir)).recover(loader)
    assert report.after < report.before


def test_a_model_that_takes_keyword_inputs_of_several_sizes() -> None:
    torch.manual_seed(0)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            x = F.relu(self.up(self.embed(ids)))
            return {"out": self.down(x if mask is None else x * mask[..., None])}

    sizes = [(4, 7), (9, 5), (3, 11), (8, 7)]
    loader = [{"ids": torch.randint(0, 11, size), "mask": torch.ones(size)} for size in sizes]
    ir = PruningIR(Named())
    ir.create_snapshot("main", kwargs=loader[0])
    report = ir.prune(labels=UniformLabelSelector(0.5).select(ir)).recover(loader)
    assert report.after < report.before


def test_a_recovered_model_is_saved_and_pickled() -> None:
    model, loader = seeded(Residual), images(2)
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    small = ir.prune(labels=UniformLabelSelector(0.34).select(ir), recover=loader)
    again = copy.deepcopy(small)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(loader[0]), small.model.eval()(loader[0]))
