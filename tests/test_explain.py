"""Why a model cannot be cut further: the operator, the module, the line, and a rule to begin with."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from oracle import randomise, snapshot_of


@torch.library.custom_op("secateur_explain::mix", mutates_args=())
def mix(tensors: list[torch.Tensor], gate: torch.Tensor, scale: float = 2.0) -> list[torch.Tensor]:
    return [tensors[0] * gate * scale, tensors[1].clone()]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = mix([self.left(x), self.right(x)], x[:, :1])
        return self.head(a + b)


class Holder(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), Mixed())


@pytest.fixture
def unregistered() -> Iterator[None]:
    yield
    secateur.axes.unregister_rule(torch.ops.secateur_explain.mix)


def explained() -> tuple[secateur.PruningIR, str]:
    ir = snapshot_of(Holder(), (torch.ones(3, 4),))
    return ir, ir.explain()


def test_the_table_names_operator_module_and_line() -> None:
    ir, text = explained()
    pin = next(pin for pin in ir.pinned() if pin.name == "1.left.weight[0]")
    line = Mixed.forward.__code__.co_firstlineno + 1
    assert pin.reason == "no rule for secateur_explain.mix.default"
    assert (pin.operator, pin.module) == ("secateur_explain.mix.default", "1")
    assert pin.site.endswith(f"test_explain.py:{line} in forward")
    assert all(part in text for part in (pin.name, pin.operator, f"test_explain.py:{line}"))


@pytest.mark.usefixtures("unregistered")
def test_the_skeleton_runs_as_it_is_pasted() -> None:
    _, text = explained()
    skeleton = text[text.index("# no rule for secateur_explain.mix") :]
    assert "scale=2.0" in skeleton
    exec(skeleton, {"secateur": secateur, "torch": torch})  # as a user would paste it
    ir, text = explained()
    assert not ir.snapshot().analysis.opaque
    assert {pin.reason for pin in ir.pinned() if pin.name.endswith("left.weight[0]")} == {"not stated yet"}
    assert "Operators without a rule" not in text


@pytest.mark.usefixtures("unregistered")
def test_the_skeleton_of_a_rule_that_does_not_fit_takes_it_out_first() -> None:
    @secateur.register_rule(torch.ops.secateur_explain.mix)
    def too_little(op: Any, tensors: Any, gate: Any) -> Any:
        return [list(tensors[0])]

    _, text = explained()
    skeleton = text[text.index("# the rule for secateur_explain.mix") :]
    exec(skeleton, {"secateur": secateur, "torch": torch})
    ir, _ = explained()
    assert not ir.snapshot().analysis.opaque


@pytest.mark.parametrize(("label", "left"), [(3, False), (2, True)])
def test_labels_chosen_by_hand_in_a_model_with_nan(label: int, left: bool) -> None:
    """A row of NaN can be taken off; where it stays, both models put out NaN at the same places."""
    model = randomise(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    with torch.no_grad():
        model[0].weight[3, 1] = float("nan")
    x = torch.randn(3, 4)
    ir = snapshot_of(model, (x,))
    small = ir.prune(labels=[secateur.Label("0", label)])
    assert small.report is not None
    assert small.report.verification is not None
    assert small.report.verification.passed
    assert bool(small.model(x).isnan().any()) is left
