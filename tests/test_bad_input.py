"""What a user sees who asks for something that does not fit; and that nothing has been changed then."""

import copy

import pytest
import torch
from torch import nn

import secateur
from oracle import snapshot_of
from secateur import (
    CaptureError,
    Label,
    LabelError,
    PruningIR,
    UniformLabelSelector,
    UnsupportedModelError,
)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def model():
    """A model that is compared with what it was when the test is over."""
    made = perceptron()
    before = copy.deepcopy(made.state_dict())
    yield made
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert [tuple(p.shape) for p in made.parameters()] == [tuple(p.shape) for p in perceptron().parameters()]


@pytest.fixture
def ir(model: nn.Module) -> PruningIR:
    return snapshot_of(model, (torch.ones(1, 4),))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (Label("nowhere", 0), r"there is no group 'nowhere'\. ir\.groups\(\) lists all groups"),
        (Label("22", 0), r"there is no group '22'; did you mean '2'\?"),
        (Label("0", 8), "'0' has 8 labels; there is no label 8"),
        (Label("0", -1), "'0' has 8 labels; there is no label -1"),
        ("0", r"expected a Label, got '0'\. Labels come from ir\.groups\(\) or a selector"),
    ],
)
def test_a_label_that_is_not_there(ir: PruningIR, label: Label, message: str, inplace: bool) -> None:
    with pytest.raises(LabelError, match=message):
        ir.prune(labels=[label], inplace=inplace)


def test_labels_of_another_ir(ir: PruningIR) -> None:
    other = snapshot_of(nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2)), (torch.ones(1, 4),))
    labels = other.groups()[0].labels[:1]
    with pytest.raises(
        LabelError, match=r"was selected on another PruningIR .* Select labels again on the IR"
    ):
        ir.prune(labels=labels)


def test_labels_of_a_model_before_it_was_pruned(ir: PruningIR) -> None:
    labels = ir.groups()[0].labels[:2]
    small = ir.prune(labels=labels)
    with pytest.raises(LabelError, match="before it was pruned"):
        small.prune(labels=labels)


def test_labels_of_an_equal_ir_are_taken_on_request(ir: PruningIR) -> None:
    labels = snapshot_of(perceptron(), (torch.ones(1, 4),)).groups()[0].labels[:2]
    assert ir.prune(labels=labels, skip_label_checking=True).model[0].out_features == 6


def test_an_empty_list_gives_a_copy(ir: PruningIR) -> None:
    small = ir.prune(labels=[])
    assert small.model is not ir.model
    x = torch.randn(3, 4)
    assert torch.equal(small.model(x), ir.model(x))
    assert small.report is not None
    assert small.report.parameters[0] == small.report.parameters[1]


@pytest.mark.parametrize("inplace", [False, True])
def test_all_labels_of_a_group(ir: PruningIR, inplace: bool) -> None:
    with pytest.raises(
        LabelError, match=r"all 8 labels of group '0' .* a layer cannot be empty: leave at least one"
    ):
        ir.prune(labels=ir.groups()[0].labels, inplace=inplace)


def test_inputs_of_a_wrong_shape_are_shown_with_the_module_that_refused_them(model: nn.Module) -> None:
    wrong = snapshot_of(model, (torch.ones(1, 5),))
    with pytest.raises(
        CaptureError, match=r"(?s)in module '0': .*called with args\[0\]: \(1, 5\) torch\.float32"
    ):
        wrong.groups()


def test_a_keyword_that_forward_does_not_take(model: nn.Module) -> None:
    wrong = snapshot_of(model, (torch.ones(1, 4),), {"mask": None})
    with pytest.raises(CaptureError, match=r"unexpected keyword argument 'mask'"):
        wrong.groups()


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = perceptron()
        self.lookup = Lookup()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lookup(self.inner(x))


class Lookup(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {"known": x}["unknown"]


def test_a_model_that_raises_in_forward() -> None:
    model = Raising()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CaptureError, match="forward raised KeyError in module 'lookup': 'unknown'") as caught:
        snapshot_of(model, (torch.ones(1, 4),)).groups()
    assert isinstance(caught.value.__cause__, KeyError)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def test_weights_that_are_not_numbers() -> None:
    model = perceptron()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    ir = snapshot_of(model, (torch.ones(1, 4),))
    with pytest.raises(LabelError, match=r"parameter '2\.weight' holds NaN"):
        UniformLabelSelector(0.5).select(ir)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_cpu(dtype: torch.dtype) -> None:
    model = perceptron().to(dtype)
    ir = snapshot_of(model, (torch.ones(1, 4, dtype=dtype),))
    small = ir.prune(labels=UniformLabelSelector(0.5).select(ir))
    assert small.model(torch.ones(1, 4, dtype=dtype)).dtype == dtype
    assert small.report is not None
    assert small.report.verification is not None
    assert small.report.verification.passed


def test_a_frozen_model_stays_frozen() -> None:
    model = perceptron().requires_grad_(False)
    ir = snapshot_of(model, (torch.ones(1, 4),))
    small = ir.prune(labels=UniformLabelSelector(0.5).select(ir)).model
    assert small[0].out_features == 4
    assert not any(p.requires_grad for p in small.parameters())


def test_a_model_without_parameters() -> None:
    ir = snapshot_of(nn.Sequential(nn.ReLU(), nn.Flatten()), (torch.ones(1, 4, 2),))
    assert list(ir.groups()) == []
    assert list(ir.pinned()) == []
    assert ir.reach() == 0.0
    assert ir.prune(labels=UniformLabelSelector(0.5).select(ir)).report.parameters == (0, 0)


def test_things_that_are_no_module() -> None:
    with pytest.raises(UnsupportedModelError, match=r"expected an nn\.Module, got function"):
        PruningIR(lambda x: x)
    with pytest.raises(
        TypeError, match=r"args is the tuple of positional inputs, got Tensor: write args=\(x,\)"
    ):
        PruningIR(perceptron()).create_snapshot("main", torch.ones(1, 4))


def test_snapshots_by_unknown_names(ir: PruningIR) -> None:
    with pytest.raises(LabelError, match=r"no snapshot 'train' \(known: 'main'\).*create_snapshot\('train'"):
        ir.groups("train")
    with pytest.raises(LabelError, match="known: none yet"):
        PruningIR(ir.model).groups()


@pytest.mark.parametrize("ratio", [1.0, -0.1, "half", True, float("nan")])
def test_ratios_outside_of_their_range(ratio: object) -> None:
    with pytest.raises(LabelError, match="from 0 up to but not including 1, got "):
        UniformLabelSelector(ratio)


def test_names_to_ignore_that_are_not_there(ir: PruningIR) -> None:
    with pytest.raises(LabelError, match="there is no group or module 'head'"):
        UniformLabelSelector(0.5, ignore=["head"]).select(ir)
    pinned = PruningIR(ir.model, ignore=["head"])
    pinned.create_snapshot("main", (torch.ones(1, 4),))
    with pytest.raises(LabelError, match="no module or parameter 'head' in Sequential"):
        pinned.groups()


def test_options_that_do_not_exist(ir: PruningIR) -> None:
    with pytest.raises(LabelError, match="'heads', 'features' or 'both', got 'tails'"):
        PruningIR(ir.model, attention="tails")
    with pytest.raises(LabelError, match="output is 'module' or 'graph', got 'onnx'"):
        ir.prune(labels=[], output="onnx")


def test_every_error_is_the_builtin_that_a_caller_would_expect() -> None:
    expected = {
        "CaptureError": RuntimeError,
        "UnsupportedModelError": TypeError,
        "RuleError": ValueError,
        "LabelError": ValueError,
        "SurgeryError": RuntimeError,
        "VerificationError": RuntimeError,
    }
    for name, builtin in expected.items():
        error = getattr(secateur, name)
        assert issubclass(error, builtin), name
        assert issubclass(error, secateur.SecateurError), name
