"""The judge finds wrong rules: each test registers one that is wrong in one way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur
from secateur import RuleError
from secateur.axes import TABLE, Operand, Operator, Rule, flow
from secateur.testing import Kind, check_rule, judge_rule

aten = torch.ops.aten


def t(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Replace the rule of an operator for the length of a test."""

    def replace(operator: Any, function: Callable[..., Any], flow: Any = None) -> None:
        right = TABLE[operator]
        import inspect

        wrong = Rule(function, flow or right.flow, signature=inspect.signature(function))
        monkeypatch.setitem(TABLE, operator, wrong)

    return replace


def found(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    verdicts = judge_rule(function, *args, **kwargs)
    return [v.detail for v in verdicts if v.kind is Kind.INCORRECT]


def test_a_right_rule_passes() -> None:
    verdicts = check_rule(F.linear, t(2, 3, 4), t(5, 4), t(5))
    assert {v.kind for v in verdicts} == {Kind.OK}
    assert [v.axis for v in verdicts] == ["args[0][0]", "args[0][1]", "args[0][2]", "args[1][0]"]


def test_forgotten_unify(instead: Any) -> None:
    def linear(op: Operator, input: Operand, weight: Operand, bias: Any = None) -> Any:
        op.sum_over(input[-1], input)
        op.sum_over(weight[1], weight)
        return [*input[:-1], weight[0]]

    instead(aten.linear.default, linear)
    assert any("refuses" in text for text in found(F.linear, t(3, 4), t(5, 4)))


def test_wrong_unify(instead: Any) -> None:
    def linear(op: Operator, input: Operand, weight: Operand, bias: Any = None) -> Any:
        op.sum_over(op.unify(input[-1], weight[1]), input, weight)
        return [*input[:-1], op.unify(weight[1], op.new(4))]  # the contracted axis, not weight[0]

    instead(aten.linear.default, linear)
    assert found(F.linear, t(3, 4), t(4, 4))


def test_wrong_offset_of_a_cut(instead: Any) -> None:
    def slice_(op: Operator, self: Operand, dim: int, start: int, end: int) -> Any:
        before, middle, _ = op.cut(self[dim], [start + 1, end - start, self[dim].size - end - 1])
        op.number("start", before)
        return op.replace(self, dim, middle)

    instead(aten.slice.Tensor, slice_)
    assert found(lambda x: x[:, 2:5], t(3, 8))


def test_number_that_is_no_size(instead: Any) -> None:
    def view(op: Operator, self: Operand, size: Any) -> Any:
        dims = op.regroup(self.dims, op.shape)
        op.number("size", dims[2], 1)
        return dims

    instead(aten.view.default, view)
    assert any("for the rule a size of" in text for text in found(t(3, 8).view, 3, 2, 4))


def test_forgotten_number(instead: Any) -> None:
    instead(aten.view.default, lambda op, self, size: op.regroup(self.dims, op.shape))
    assert any("refuses" in text for text in found(lambda x: x.view(3, 2, 4), t(3, 8)))


def test_wrong_flow(instead: Any) -> None:
    instead(aten.sigmoid.default, lambda op, self: list(self), flow.keeps)
    assert any("the flow says" in text for text in found(torch.sigmoid, t(3, 4)))


def test_flow_that_takes_a_sum_for_a_product(instead: Any) -> None:
    instead(aten.add.Tensor, lambda op, self, other: op.broadcast(self, other), flow.multiplies)
    assert any("args[0] zeroed" in text for text in found(torch.add, t(3, 4), t(3, 4)))


def test_sum_that_needs_zeros_on_both_sides(instead: Any) -> None:
    def cdist(op: Operator, x1: Operand, x2: Operand, p: float = 2, mode: Any = None) -> Any:
        op.sum_over(op.unify(x1[-1], x2[-1]), x1, x2)  # as if they were multiplied
        return [x1[-2], x2[-2]]

    instead(aten.cdist.default, cdist)
    assert any("is not the result" in text for text in found(torch.cdist, t(3, 5), t(4, 5)))


def test_forgotten_sum(instead: Any) -> None:
    instead(aten.sum.dim_IntList, lambda op, self, dim, keepdim=False: [self[0]])
    assert any("nothing zeroed" in text for text in found(torch.sum, t(3, 4), 1))


def test_swapped_order_of_a_product(instead: Any) -> None:
    def shuffle(op: Operator, self: Operand, groups: int) -> Any:
        outer, inner = op.split(self[1], groups, self[1].size // groups)
        op.number("groups", outer)
        return op.replace(self, 1, op.product(outer, inner))

    instead(aten.channel_shuffle.default, shuffle)
    assert any("is not the result" in text for text in found(F.channel_shuffle, t(2, 12, 3), 3))


def test_unpinned_softmax(instead: Any) -> None:
    instead(aten.softmax.int, lambda op, self, dim, dtype=None: list(self))
    assert any("is not the result" in text for text in found(torch.softmax, t(3, 4), 1))


def test_flip_taken_for_element_wise(instead: Any) -> None:
    # What Torch-Pruning does to every operator it does not know.
    instead(aten.flip.default, lambda op, self, dims: list(self))
    assert any("is not the result" in text for text in found(torch.flip, t(3, 4), (1,)))


def test_missing_balance(instead: Any) -> None:
    def chunk(op: Operator, self: Operand, chunks: int, dim: int = 0) -> Any:
        pieces = op.cut(self[dim], [shape[dim] for shape in op.shapes])
        return [op.replace(self, dim, piece) for piece in pieces]

    instead(aten.chunk.default, chunk)
    assert found(torch.chunk, t(3, 8), 2, 1)


def test_wrong_power_of_a_rescale(instead: Any) -> None:
    right = TABLE[aten.scaled_dot_product_attention.default].function

    def attention(op: Operator, query: Operand, key: Operand, value: Operand) -> Any:
        result = right(op, query, key, value)
        op.rescales[0].power = 0.5
        return result

    instead(aten.scaled_dot_product_attention.default, attention)
    q, k, v = t(2, 4, 5, 6), t(2, 4, 7, 6), t(2, 4, 7, 3)
    assert any("is not the result" in text for text in found(F.scaled_dot_product_attention, q, k, v))


def test_needless_pin_is_missing_and_no_error(instead: Any) -> None:
    def relu(op: Operator, self: Operand) -> Any:
        op.pin(self, "just in case")
        return list(self)

    instead(aten.relu.default, relu)
    verdicts = check_rule(torch.relu, t(3, 4))
    assert [str(v) for v in verdicts] == [
        "missing: aten.relu.default axis args[0][0] of 3: pinned: just in case",
        "missing: aten.relu.default axis args[0][1] of 4: pinned: just in case",
    ]


def test_needless_inexactness_is_missing(instead: Any) -> None:
    def total(op: Operator, self: Operand, dim: Any, keepdim: bool = False) -> Any:
        op.inexact(self[1], "who knows")
        return [self[0]]

    instead(aten.sum.dim_IntList, total)
    assert [v.kind for v in judge_rule(torch.sum, t(3, 4), 1)] == [Kind.OK, Kind.MISSING]


def test_error_names_operator_axis_and_labels(instead: Any) -> None:
    instead(aten.softmax.int, lambda op, self, dim, dtype=None: list(self))
    message = (
        r"incorrect: aten.softmax.int axis args\[0\]\[1\] of 4: keeping \[1, 2, 3\] of 4, nothing "
        r"zeroed at what goes: what remains of the result is not the result of what remains"
    )
    with pytest.raises(RuleError, match=message):
        check_rule(torch.softmax, t(3, 4), 1)


def test_operator_without_a_rule() -> None:
    with pytest.raises(RuleError, match=r"opaque: aten.special_airy_ai.default: no rule"):
        check_rule(torch.special.airy_ai, t(4, 3))


def test_rule_that_does_not_fit_its_call(instead: Any) -> None:
    instead(aten.relu.default, lambda op, self: [self[0]])
    with pytest.raises(RuleError, match=r"does not fit this call \(ValueError: shape \(3,\)"):
        check_rule(torch.relu, t(3, 4))


def test_custom_operator_and_its_samples() -> None:
    @torch.library.custom_op("secateur_judge::gate", mutates_args=())
    def gate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y.sigmoid()

    @secateur.register_rule(torch.ops.secateur_judge.gate, flow=lambda flow: flow["x"])
    def _(op: Operator, x: Operand, y: Operand) -> Any:
        return op.broadcast(x, y)

    assert {v.kind for v in check_rule(gate, t(3, 4), t(4))} == {Kind.OK}
    secateur.axes.unregister_rule(torch.ops.secateur_judge.gate)


def test_samples_that_a_rule_is_registered_with() -> None:
    @torch.library.custom_op("secateur_judge::scan", mutates_args=())
    def scan(x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.cumprod(dim)

    @secateur.register_rule(torch.ops.secateur_judge.scan, samples=lambda: [(t(3, 4), 0), (t(3, 4), 1)])
    def _(op: Operator, x: Operand, dim: int) -> Any:
        op.pin(x[1], "the rule forgets that dim may be another")
        return list(x)

    operator = torch.ops.secateur_judge.scan
    try:
        with pytest.raises(RuleError, match=r"scan.default axis args\[0\]\[0\] of 3"):
            check_rule(operator)
    finally:
        secateur.axes.unregister_rule(operator)


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(t(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * F.linear(x, self.weight)


def test_module_with_a_rule() -> None:
    @secateur.register_rule(_Scaled, flow=lambda flow: flow.signal_of(flow.arguments["module"]["weight"].id))
    def _(op: Operator, x: Operand, *, module: dict[str, Operand]) -> Any:
        weight = module["weight"]
        op.sum_over(op.unify(x[-1], weight[1]), x, weight)
        return [*x[:-1], weight[0]]

    try:
        verdicts = check_rule(_Scaled(), t(3, 4))
        assert [(v.kind, v.axis) for v in verdicts] == [
            (Kind.OK, "args[0][0]"), (Kind.OK, "args[0][1]"), (Kind.OK, "weight[0]"),
        ]  # fmt: skip
    finally:
        secateur.axes.unregister_rule(_Scaled)


def test_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    values = t(3, 4)
    torch.set_rng_state(state)
    check_rule(torch.dropout, values, 0.5, True)
    assert torch.equal(torch.get_rng_state(), state)
