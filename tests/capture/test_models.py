"""Every kind of model that can be recorded, and clear words for the kinds that cannot."""

import os
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from oracle import check_cut, random_labels, randomise, snapshot_of
from secateur import CaptureError, PruningIR, UnsupportedModelError

X = torch.randn(2, 4)


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def check(model: nn.Module, args: tuple[Any, ...] = (X,), least: int = 1) -> PruningIR:
    """The oracle on ``model``, which has to have at least so many groups."""
    ir = snapshot_of(randomise(model), args)
    assert len(ir.groups()) >= least, str(ir.pinned())
    check_cut(ir, random_labels([g for g in ir.groups() if g.exact], 0), args, exact=True)
    return ir


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        return self.leave(self.inner(self.inner(x).relu()) + x)


def test_a_module_called_twice_has_one_group_for_both_calls() -> None:
    ir = check(CalledTwice())
    assert [group.size for group in ir.groups()] == [8]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(self.embed(ids)))


def test_tied_parameters_stay_tied() -> None:
    ids = torch.randint(0, 9, (2, 3))
    ir = check(Tied(), (ids,))
    small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    assert small.head.weight is small.embed.weight
    assert small.head.weight.shape == (9, 4)


class Deciding(nn.Module):
    """Control flow that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        if x.sum() > 0:
            h = self.b(h).relu()
        for _ in range(int(x.abs().max().clamp(max=3).item())):
            h = h.tanh()
        return self.c(h)


@pytest.mark.parametrize("sign", [1, -1])
def test_control_flow_on_data_takes_the_path_of_the_inputs(sign: int) -> None:
    ir = check(Deciding(), (sign * X.abs(),))
    linear = [node for node in ir.snapshot().graph.nodes if "linear" in str(node.op)]
    assert len(linear) == (3 if sign > 0 else 2)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)  # the model's own business: its inputs are copies
        h = self.a(x)
        h[:, 1:].add_(1).relu_()
        h.view(-1)[0] = 0
        return self.b(h)


def test_inputs_that_a_model_writes_into_are_left_alone() -> None:
    x = X.clone()
    check(InPlace(), (x,), least=0)
    assert torch.equal(x, X)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


class Regions(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "checkpoint":
            return self.b(checkpoint(lambda t: self.a(t).relu(), x, use_reentrant=False))
        if self.how == "checkpoint_reentrant":
            return self.b(checkpoint(self.a, x, use_reentrant=True).relu())
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                h = self.a(x)
            return self.b(h.float())
        if self.how == "function":
            return self.b(Doubled.apply(self.a(x)))
        if self.how == "no_grad":
            with torch.no_grad():
                return self.b(self.a(x))
        if self.how == "inference":
            with torch.inference_mode():
                h = self.a(x)
            return self.b(h.clone())
        with torch.enable_grad():
            h = self.a(x)
        return self.b(h)


@pytest.mark.parametrize("how", ["checkpoint", "autocast", "function", "no_grad", "enable_grad", "inference"])
def test_regions_of_code(how: str) -> None:
    with warnings.catch_warnings():
        # Reentrant and plain checkpoints warn where no input requires a gradient.
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        ir = snapshot_of(randomise(Regions(how)), (X,))
        assert [group.size for group in ir.groups()] == [8]
        small = ir.prune(labels=random_labels(ir.groups(), 0), verify=how != "autocast").model
    assert small.a.out_features == 4


def test_a_model_on_meta_has_the_same_groups() -> None:
    real = snapshot_of(CalledTwice(), (X,))
    with torch.device("meta"):
        shapes = snapshot_of(CalledTwice(), (torch.empty(2, 4),))
    assert [(g.name, g.parameters) for g in shapes.groups()] == [
        (g.name, g.parameters) for g in real.groups()
    ]
    small = shapes.prune(labels=random_labels(shapes.groups(), 0), verify=False).model
    assert small.enter.weight.device.type == "meta"
    assert small.enter.weight.shape == (4, 4)


# -- what is kept whole, and what cannot be followed -------------------------------------------------


@pytest.mark.parametrize("leaf", ["2", nn.Sequential, "module"])
def test_leaf_modules_are_kept_whole(leaf: Any) -> None:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 3)
    )
    ir = PruningIR(model, leaf_modules=[model[2] if leaf == "module" else leaf])
    ir.create_snapshot("main", (X,))
    if leaf is nn.Sequential:  # the model itself is one
        assert not ir.groups()
        return
    assert [group.name for group in ir.groups()] == ["0"]
    assert any("leaf_modules" in pin.reason for pin in ir.pinned())


@torch.library.custom_op("secateur_tests::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halved.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(halved(self.a(x))))


def test_an_operator_without_a_rule_is_pinned_and_listed() -> None:
    ir = check(Foreign())
    assert [group.name for group in ir.groups()] == ["b"]
    assert any("halved" in pin.reason for pin in ir.pinned())


def test_without_soft_tracing_it_raises_and_names_the_operator() -> None:
    ir = PruningIR(Foreign(), soft_tracing=False)
    ir.create_snapshot("main", (X,))
    with pytest.raises(
        CaptureError, match=r"(?s)cannot be followed.*secateur_tests\.halved.*test_models\.py"
    ):
        ir.groups()


# -- wrappers and other ways in ----------------------------------------------------------------------


def test_data_parallel_is_looked_through() -> None:
    model = perceptron()
    assert PruningIR(nn.DataParallel(model)).model is model


def test_distributed_data_parallel_is_looked_through(tmp_path: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{os.fspath(tmp_path)}/store", rank=0, world_size=1
    )
    try:
        model = perceptron()
        wrapped = nn.parallel.DistributedDataParallel(model)
        ir = snapshot_of(wrapped, (X,))
        assert ir.model is model
        assert ir.prune(labels=random_labels(ir.groups(), 0)).model[0].out_features == 4
    finally:
        torch.distributed.destroy_process_group()


def test_a_compiled_model_is_looked_through() -> None:
    model = perceptron()
    assert PruningIR(torch.compile(model)).model is model


def test_torchscript_is_refused_with_the_way_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole
        scripted = torch.jit.trace(perceptron(), X)
    with pytest.raises(UnsupportedModelError, match=r"the model is a TorchScript module.*Prune the original"):
        PruningIR(scripted)
    with pytest.raises(UnsupportedModelError, match="its submodule '0' is a TorchScript module"):
        PruningIR(nn.Sequential(scripted))


def test_an_exported_program_and_a_graph_module_are_ways_in() -> None:
    for model in (torch.fx.symbolic_trace(perceptron()), torch.export.export(perceptron(), (X,))):
        ir = snapshot_of(model, (X,))
        assert [group.size for group in ir.groups()] == [8]
        small = ir.prune(labels=random_labels(ir.groups(), 0)).model
        assert sum(p.numel() for p in small.parameters()) == 4 * 4 + 4 + 3 * 4 + 3


def test_functional_calls_of_a_parameter_view() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 8, 4))
            self.out = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(F.linear(x, self.weight[0]) + F.linear(x, self.weight[1]))

    assert [group.size for group in check(Viewed()).groups()] == [8]
