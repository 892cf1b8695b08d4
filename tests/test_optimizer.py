"""Carrying an optimizer: the small model steps as the masked one does, where that is kept."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

import secateur
from oracle import random_labels, randomise
from secateur import OptimizerError, PruningIR
from secateur._optimizer import DEGREES, SPECIAL_DEGREES
from secateur.surgery import scale_parts, slice_tensor


class Residual(nn.Module):
    """Two convolutions with batch norm around a residual, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Attention that scales by the width of its heads, so a cut folds a factor into the query."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.query, self.value = nn.Linear(6, 8), nn.Linear(6, 8)
        self.key = nn.Linear(6, 8, bias=False)  # softmax does not see a bias: gradients of noise
        self.out = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = (layer(x).unflatten(-1, (self.heads, -1)) for layer in self.layers())
        q, k, v = (t.transpose(1, 2) for t in split)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def layers(self) -> tuple[nn.Linear, ...]:
        return self.query, self.key, self.value


IMAGES = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()
TOKENS = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2)).double()

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1.0),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, 0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, 0.01),
}


def step(model: nn.Module, optimizer: Optimizer, x: torch.Tensor) -> None:
    """One step towards outputs that rise along the last dimension."""
    out = model.train()(x)
    optimizer.zero_grad()
    (out - torch.arange(out.shape[-1]).to(out)).square().mean().backward()
    optimizer.step()


def trained(model: nn.Module, make: Callable[..., Optimizer], x: torch.Tensor) -> Optimizer:
    """An optimizer with a history of three steps."""
    randomise(model.double())
    optimizer = make(model.parameters())
    for _ in range(3):
        step(model, optimizer, x)
    return optimizer


def masked_and_small(
    model: nn.Module, optimizer: Optimizer, make: Callable[..., Optimizer], x: torch.Tensor
) -> tuple[nn.Module, Optimizer, nn.Module, secateur.PruneReport]:
    """The masked model with a copy of the optimizer, and the small one with the optimizer."""
    ir = PruningIR(model)
    ir.create_snapshot("main", (x,))
    labels = random_labels(ir.groups(), seed=0)
    masked = ir.masked(labels=labels)
    twin = make(masked.parameters())
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    small = ir.prune(labels=labels)
    assert small.report is not None
    secateur.carry_optimizer(optimizer, small.report)
    return masked, twin, small.model, small.report


def pairs(model: nn.Module, masked: nn.Module, report: secateur.PruneReport) -> Iterator[Any]:
    """(name, cut, parameter of the masked model) for every parameter of the original."""
    wide = dict(masked.named_parameters())
    for name, parameter in model.named_parameters():
        yield name, report.parameter_map[parameter], wide[name]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_of_the_small_model_is_a_step_of_the_masked_one(name: str) -> None:
    model, make = Residual(), OPTIMIZERS[name]
    optimizer = trained(model, make, IMAGES)
    masked, twin, small, report = masked_and_small(model, optimizer, make, IMAGES)
    before = [parameter.detach().clone() for parameter in small.parameters()]
    step(masked, twin, IMAGES)
    step(small, optimizer, IMAGES)
    assert report.parameters[1] < report.parameters[0] / 2
    assert all(map(lambda a, b: bool((a != b).any()), before, small.parameters()))
    for path, cut, wide in pairs(model, masked, report):
        assert cut.parameter is small.get_parameter(path)
        want = slice_tensor(wide, cut.positions)
        torch.testing.assert_close(cut.parameter.detach(), want, rtol=1e-7, atol=1e-10)


def test_the_oracle_fails_for_an_optimizer_that_forgot_its_momentum() -> None:
    model, make = Residual(), OPTIMIZERS["SGD"]
    optimizer = trained(model, make, IMAGES)
    masked, twin, small, report = masked_and_small(model, optimizer, make, IMAGES)
    optimizer.state.clear()
    step(masked, twin, IMAGES)
    step(small, optimizer, IMAGES)
    _, cut, wide = next(pairs(model, masked, report))
    assert not torch.allclose(cut.parameter, slice_tensor(wide, cut.positions), rtol=1e-3)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop", "Adadelta", "Adamax"])
def test_moments_follow_a_factor_that_a_parameter_took_in(name: str) -> None:
    # A scaled query has other gradients, so parameters part ways in the step; what the optimizer
    # remembers of them must stay what it would be, had the query always been scaled.
    model, make = Attention(), OPTIMIZERS[name]
    optimizer = trained(model, make, TOKENS)
    # Weight decay pulls at the parameter, not by its gradient; eps does not follow any factor.
    optimizer.param_groups[0] |= {"weight_decay": 0.0, "eps": 0.0}
    masked, twin, small, report = masked_and_small(model, optimizer, make, TOKENS)
    assert any(cut.scales for cut in report.parameter_map.values())
    step(masked, twin, TOKENS)
    step(small, optimizer, TOKENS)
    degrees = DEGREES | SPECIAL_DEGREES.get(type(optimizer), {})
    for _, cut, wide in pairs(model, masked, report):
        for key, value in optimizer.state[cut.parameter].items():
            want = twin.state[wide][key]
            if isinstance(want, torch.Tensor) and want.dim():
                want = slice_tensor(want, cut.positions).clone()
                want = scale_parts(want, cut.scales, degrees[key])
            torch.testing.assert_close(value, want, rtol=1e-8, atol=1e-20)


def test_gradients_follow_a_factor_that_a_parameter_took_in() -> None:
    model = Attention()
    trained(model, OPTIMIZERS["SGD"], TOKENS)
    small, report = secateur.prune(model, (TOKENS,), attention="features", ratio=0.5)
    (_, rows, factor), *_ = report.parameter_map[model.query.weight].scales
    old, new = model.query.weight.grad, small.get_parameter("query.weight").grad
    assert old is not None and new is not None and factor == pytest.approx(0.5**0.5)
    kept = slice_tensor(old, report.parameter_map[model.query.weight].positions)
    torch.testing.assert_close(new[torch.from_numpy(rows)], kept[torch.from_numpy(rows)] / factor)


def test_groups_options_and_frozen_parameters_stay() -> None:
    model = Residual().double()
    model.stem.weight.requires_grad_(False)
    head = {"params": list(model.head.parameters()), "lr": 0.5, "note": "mine"}
    rest = {"params": [p for n, p in model.named_parameters() if not n.startswith("head")]}
    optimizer = torch.optim.SGD([head, rest], lr=0.1, momentum=0.9)
    groups = list(optimizer.param_groups)
    small, report = secateur.prune(model, (IMAGES,))
    secateur.carry_optimizer(optimizer, report)
    assert all(map(lambda a, b: a is b, groups, optimizer.param_groups))
    assert groups[0]["lr"] == 0.5 and groups[0]["note"] == "mine" and groups[1]["lr"] == 0.1
    assert groups[0]["params"] == list(small.get_submodule("head").parameters())
    held = {p for group in groups for p in group["params"]}
    assert held == set(small.parameters())
    assert not small.get_parameter("stem.weight").requires_grad


@pytest.mark.parametrize("inplace", [False, True])
def test_a_scheduler_keeps_working_and_several_prunings_follow_each_other(inplace: bool) -> None:
    model: nn.Module = Residual()
    optimizer = trained(model, OPTIMIZERS["Adam"], IMAGES)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for _ in range(2):
        model, report = secateur.prune(model, (IMAGES,), ratio=0.3, inplace=inplace)
        secateur.carry_optimizer(optimizer, report)
        step(model, optimizer, IMAGES)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 4)
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
        assert float(optimizer.state[parameter]["step"]) == 5
    assert len(optimizer.state) == len(list(model.parameters()))


def test_parameters_of_another_module_stay_in_the_optimizer() -> None:
    model, loss = Residual().double(), nn.Linear(5, 1).double()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.1, momentum=0.9)
    loss(model(IMAGES)).sum().backward()
    optimizer.step()
    small, report = secateur.prune(model, (IMAGES,))
    momentum = optimizer.state[loss.weight]["momentum_buffer"]
    secateur.carry_optimizer(optimizer, report)
    assert set(optimizer.param_groups[0]["params"]) == {*small.parameters(), *loss.parameters()}
    assert optimizer.state[loss.weight]["momentum_buffer"] is momentum


def test_one_row_for_all_others_is_sliced_along_its_own_dimension() -> None:
    model = Residual()
    optimizer = trained(model, torch.optim.Adafactor, IMAGES)
    rows = optimizer.state[model.head.weight]["row_var"]
    columns = optimizer.state[model.head.weight]["col_var"]
    small, report = secateur.prune(model, (IMAGES,))
    secateur.carry_optimizer(optimizer, report)
    state = optimizer.state[small.get_parameter("head.weight")]
    stay = report.parameter_map[model.head.weight].positions[1]
    assert torch.equal(state["row_var"], rows)
    assert torch.equal(state["col_var"], columns[:, stay])
    step(small, optimizer, IMAGES)


def test_lbfgs_starts_over_with_the_small_model() -> None:
    model = randomise(Residual().double())
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure_of(network: nn.Module) -> Callable[[], torch.Tensor]:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = network(IMAGES).square().mean()
            loss.backward()
            return loss.detach()

        return closure

    optimizer.step(closure_of(model))
    small, report = secateur.prune(model, (IMAGES,))
    secateur.carry_optimizer(optimizer, report)
    first = float(optimizer.step(closure_of(small)))
    assert float(closure_of(small)()) < first


def test_an_optimizer_that_does_not_fit_says_why() -> None:
    model = Residual().double()
    _, report = secateur.prune(model, (IMAGES,))
    with pytest.raises(OptimizerError, match="none of the parameters that the report is about"):
        secateur.carry_optimizer(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1), report)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    secateur.carry_optimizer(optimizer, report)
    with pytest.raises(OptimizerError, match="was carried over before"):
        secateur.carry_optimizer(optimizer, report)


def test_state_of_an_unknown_shape_leaves_the_optimizer_untouched() -> None:
    model = Residual()
    optimizer = trained(model, OPTIMIZERS["Adam"], IMAGES)
    optimizer.state[model.head.weight]["odd"] = torch.zeros(3, 3)
    before = {p: dict(entries) for p, entries in optimizer.state.items()}
    _, report = secateur.prune(model, (IMAGES,))
    with pytest.raises(OptimizerError, match=r"keeps 'odd' of shape \(3, 3\) .* shape \(5, 8\)"):
        secateur.carry_optimizer(optimizer, report)
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    assert {p: dict(entries) for p, entries in optimizer.state.items()} == before


def test_single_numbers_are_counters_whatever_their_shape() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
            self.scale = nn.Parameter(torch.full((1,), 0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x) * self.scale)

    model, x = Gate(), torch.ones(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer, x)
    small, report = secateur.prune(model, (x,))
    secateur.carry_optimizer(optimizer, report)
    step(small, optimizer, x)
    assert float(optimizer.state[small.get_parameter("scale")]["step"]) == 2
