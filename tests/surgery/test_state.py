"""State is kept: of the model that was looked at, of the small one, and of everything global."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import secateur
from oracle import check_cut, difference, outputs, random_labels, randomise, snapshot_of
from secateur import PruningIR, SurgeryError, VerificationError

X = torch.randn(2, 3, 8, 8)


class Small(nn.Module):
    """Convolutions, norms and a state of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.cache: dict[str, Any] = {}
        self.seen: list[int] = []
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.cache["shape"] = tuple(x.shape)
        self.last = self.second(self.bn(self.conv(x)).relu())
        return self.head(self.last.mean((2, 3)))


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that a user could see change: values, identities, flags, hooks, attributes."""
    seen: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    seen[f"{path}.{name}.{key}"] = None if tensor is None else (
                        id(tensor), tensor.detach().clone(), tensor.requires_grad, tensor._version,
                        None if tensor.grad is None else tensor.grad.clone(),
                    )  # fmt: skip
            elif isinstance(value, dict):
                seen[f"{path}.{name}"] = (id(value), {k: id(v) for k, v in value.items()})
            elif isinstance(value, (list, int, float, str, bool, tuple)):
                seen[f"{path}.{name}"] = copy.copy(value) if isinstance(value, list) else value
            else:
                seen[f"{path}.{name}"] = id(value)
        seen[f"{path}.class"] = type(module)
    return seen


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def assert_untouched(before: dict[str, Any], model: nn.Module, *, versions: bool = True) -> None:
    after = fingerprint(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        other = after[key]
        if not versions and isinstance(value, tuple) and len(value) == 5:
            value, other = (*value[:3], value[4]), (*other[:3], other[4])
        assert same(value, other), key


def prepared() -> Small:
    """A model in the middle of training: gradients, mixed flags, a frozen layer."""
    model = randomise(Small())
    model(X).sum().backward()
    model.bn.eval()
    model.second.requires_grad_(False)
    return model


def test_looking_masking_and_pruning_leave_the_model_alone() -> None:
    model = prepared()
    before = fingerprint(model)
    ir = snapshot_of(model, (X,))
    labels = random_labels(ir.groups(), 0)
    ir.pinned()
    ir.masked(labels=labels)
    ir.prune(labels=labels)
    # The recorder writes values back that forward changed in place, which counts a version.
    assert_untouched(before, model, versions=False)


def test_flags_gradients_and_memory_format_are_carried_over() -> None:
    model = prepared().to(memory_format=torch.channels_last)
    ir = snapshot_of(model, (X,))
    labels = random_labels(ir.groups(), 0)
    small = ir.prune(labels=labels).model
    assert small.training
    assert not small.bn.training
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert small.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, parameter in small.named_parameters():
        grad = model.get_parameter(name).grad
        assert (parameter.grad is None) == (grad is None), name
        assert grad is None or parameter.grad.shape == parameter.shape, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    model = randomise(Small()).to(dtype)
    ir = snapshot_of(model, (X.to(dtype),))
    small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    assert {p.dtype for p in small.parameters()} == {dtype}


def test_the_random_state_is_not_used() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    ir = snapshot_of(model, (torch.randn(1, 4, generator=torch.Generator()),))
    ir.prune(labels=random_labels(ir.groups(), 0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert random.getstate() == states[1]


def test_hooks_of_the_user_are_kept_and_called() -> None:
    calls: list[str] = []
    model = randomise(Small())
    model.conv.register_forward_hook(lambda module, args, out: calls.append("after"))
    model.conv.register_forward_pre_hook(lambda module, args: calls.append("before"))
    ir = snapshot_of(model, (X,))
    small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    for kept in (model, small):
        calls.clear()
        kept(X)
        assert calls == ["before", "after"]


@pytest.mark.parametrize("inplace", [False, True])
def test_two_prunings_in_a_row(inplace: bool) -> None:
    ir = snapshot_of(randomise(Small()), (X,))
    for seed in range(2):
        ir = ir.prune(labels=random_labels(ir.groups(), seed), inplace=inplace)
    assert ir.model.conv.out_channels == 2
    assert ir.model.head.in_features == 2
    check_cut(ir, random_labels(ir.groups(), 2), (X,), exact=True)


def test_inplace_and_copy_give_the_same() -> None:
    model = randomise(Small())
    ir = snapshot_of(model, (X,))
    labels = random_labels(ir.groups(), 0)
    small = ir.prune(labels=labels).model
    cut = ir.prune(labels=labels, inplace=True).model
    assert cut is model
    assert difference(outputs(small, (X,), {}), outputs(cut, (X,), {})) == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_any_gradient_mode_parameters_stay_trainable(mode: Callable[[], Any]) -> None:
    model = randomise(Small())
    with mode():
        ir = snapshot_of(model, (X,))
        small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    small.train()(X).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("inplace", [False, True])
def test_parametrized_layers_stay_parametrized(wrap: Callable[..., nn.Module], inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(5, 8), wrap(nn.Linear(8, 6)), nn.Linear(6, 2)).double().train()
    args = (torch.randn(3, 5, dtype=torch.float64),)
    ir = snapshot_of(randomise(model), args)
    labels = random_labels(ir.groups(), 0)
    masked = outputs(ir.masked(labels=labels), args, {})
    small = ir.prune(labels=labels, inplace=inplace).model
    assert difference(masked, outputs(small, args, {})) < 1e-9
    assert torch.nn.utils.parametrize.is_parametrized(small[1])
    assert small[1].in_features == 4


# -- failures leave everything as it was ---------------------------------------------------------------


@torch.library.custom_op("secateur_tests::reversed_channels", mutates_args=())
def reversed_channels(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1)


@reversed_channels.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture
def wrong_rule():
    """A rule that calls an operator element-wise that is not."""

    @secateur.register_rule(torch.ops.secateur_tests.reversed_channels, flow=secateur.axes.flow.keeps)
    def _(op: Any, x: Any) -> Any:
        return list(x)

    yield
    secateur.axes.unregister_rule(torch.ops.secateur_tests.reversed_channels)


class Reversing(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(reversed_channels(self.second(self.bn(self.conv(x)).relu())).mean((2, 3)))


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize("inplace", [False, True])
def test_a_failed_verification_gives_the_model_back(inplace: bool) -> None:
    model = randomise(Reversing())
    ir = snapshot_of(model, (X,))
    labels = [label for g in ir.groups() if g.name == "second" for label in g.labels[:2]]
    labels += random_labels([g for g in ir.groups() if g.name != "second"], 0)
    before = fingerprint(model)
    with pytest.raises(VerificationError, match=r"differs from the masked model .* The model is as it was"):
        ir.prune(labels=labels, inplace=inplace)
    assert_untouched(before, model, versions=False)
    assert model.second.out_channels == 6
    assert model.head.in_features == 6


class Locked:
    """An attribute that refuses to be copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a lock cannot be copied")


def test_a_model_that_cannot_be_copied_is_named_and_left_alone() -> None:
    model = randomise(Small())
    ir = snapshot_of(model, (X,))
    labels = random_labels(ir.groups(), 0)
    model.lock = Locked()
    before = fingerprint(model)
    with pytest.raises(SurgeryError, match=r"cannot be copied \(TypeError: a lock cannot be copied\)"):
        ir.prune(labels=labels)
    assert_untouched(before, model)


class Failing(Small):
    """Raises in the run of the small model only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if type(self.conv.weight) is nn.Parameter and self.conv.weight.shape[0] < 8:
            raise ValueError("too narrow")
        return super().forward(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_small_model_that_raises_gives_the_model_back(inplace: bool) -> None:
    model = randomise(Failing())
    ir = snapshot_of(model, (X,))
    labels = random_labels(ir.groups(), 0)
    before = fingerprint(model)
    with pytest.raises((ValueError, RuntimeError), match="too narrow"):
        ir.prune(labels=labels, inplace=inplace)
    assert_untouched(before, model)


def test_a_forward_that_raises_halfway_leaves_no_trace() -> None:
    class Halfway(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise ValueError("halfway")

    model = randomise(Halfway())
    before = fingerprint(model)
    ir = PruningIR(model)
    ir.create_snapshot("main", (X,))
    with pytest.raises(secateur.CaptureError, match="halfway"):
        ir.groups()
    assert_untouched(before, model, versions=False)
