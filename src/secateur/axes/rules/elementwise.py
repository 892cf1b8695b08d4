"""Element-wise operators: the result has the broadcast dimensions of the operands.

What tells them apart is what they make of zeros.
"""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

import operator
from typing import Any

from .._flow import Flow, Signal, add, adds, keeps, loses, multiplies, multiply, zeros
from .._operator import Operand, Operator, operands_in
from .._table import aten, register_rule


@register_rule(
    *aten(
        "relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish",
        "hardshrink", "softshrink", "tanh", "tan", "sin", "sinh", "asin", "asinh", "atan", "atanh", "erf",
        "erfinv", "expm1", "log1p", "special_i1", "special_i1e", "special_bessel_j1", "neg", "abs", "sgn",
        "sign", "sqrt", "square", "floor", "ceil", "round", "trunc", "frac", "nan_to_num", "deg2rad",
        "rad2deg", "real", "imag", "angle", "dropout", "feature_dropout",
        # Copies, and views that differ in nothing but the type or place of their values.
        "clone", "detach", "detach_copy", "alias", "alias_copy", "contiguous", "lift", "lift_fresh",
        "lift_fresh_copy", "resolve_conj", "resolve_neg", "_conj", "_conj_copy", "_conj_physical",
        "conj_physical", "_neg_view", "_neg_view_copy", "to", "_to_copy",
    ),
    flow=adds("self"),
)  # fmt: skip
def zero_at_zero(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(
    *aten(
        "sigmoid", "hardsigmoid", "log_sigmoid", "softplus", "exp", "exp2", "log", "log2", "log10", "cos",
        "cosh", "acos", "acosh", "rsqrt", "reciprocal", "logit", "erfc", "lgamma", "digamma", "sinc", "isnan",
        "isinf", "isneginf", "isposinf", "isfinite", "isreal", "signbit", "logical_not", "bitwise_not", "i0",
        "polygamma", "mvlgamma", "special_entr", "special_erfcx", "special_ndtri", "special_log_ndtr",
        "special_bessel_j0", "special_i0e", "special_modified_bessel_i0", "special_modified_bessel_i1",
        "special_modified_bessel_k0", "special_modified_bessel_k1", "bernoulli", "uniform", "normal_",
        "normal_functional", "random", "exponential", "log_normal", "cauchy", "geometric", "poisson",
    ),
    flow=loses,
)  # fmt: skip
def unary(op: Operator, self: Any, *args: Any, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, *args)))


def _drops(flow: Flow) -> Signal:
    return loses(flow) if flow.arguments["train"] else keeps(flow)


@register_rule(*aten("alpha_dropout", "feature_alpha_dropout"), flow=_drops)
def alpha_dropout(op: Operator, input: Operand, p: float, train: bool) -> Any:
    return list(input)


@register_rule(*aten("fill"), flow=adds("value"))
def fill(op: Operator, self: Operand, value: Any) -> Any:
    return list(self)


@register_rule(*aten("zero"), flow=zeros)
def zero(op: Operator, self: Operand) -> Any:
    return list(self)


@register_rule(*aten("type_as"), flow=adds("self"))
def type_as(op: Operator, self: Operand, other: Operand) -> Any:
    return list(self)


def _with_companion(op: Operator, input: Operand) -> Any:
    """A mask, a buffer, an exponent: not zero where the operand is."""
    for dim in input if op.shapes[1] == op.shapes[0] else ():
        op.inexact_if_used(1, dim, "zeros are something else in the second result")
    same = op.shapes[1] == op.shapes[0]
    return [list(input), list(input) if same else [op.fixed(n, "unused") for n in op.shapes[1]]]


@register_rule(*aten("native_dropout", "frexp"), flow=adds("input"))
def native_dropout(op: Operator, input: Operand, *args: Any) -> Any:
    return _with_companion(op, input)


@register_rule(*aten("log_sigmoid_forward"), flow=loses)
def log_sigmoid_forward(op: Operator, self: Operand) -> Any:
    return _with_companion(op, self)


def _clamps(flow: Flow) -> Signal:
    low, high = flow.arguments["min"], flow.arguments["max"]
    if isinstance(low, Operand) or isinstance(high, Operand):
        return loses(flow)
    return keeps(flow) if (low or 0) <= 0 <= (high or 0) else loses(flow)


@register_rule(*aten("clamp", "clip"), flow=_clamps)
def clamp(op: Operator, self: Operand, min: Any = None, max: Any = None) -> Any:
    return op.broadcast(*operands_in((self, min, max)))


@register_rule(*aten("clamp_min"), flow=_clamps)
def clamp_min(op: Operator, self: Operand, min: Any, max: Any = None) -> Any:
    return op.broadcast(*operands_in((self, min)))


@register_rule(*aten("clamp_max"), flow=_clamps)
def clamp_max(op: Operator, self: Operand, max: Any, min: Any = None) -> Any:
    return op.broadcast(*operands_in((self, max)))


@register_rule(*aten("hardtanh"), flow=_clamps)
def hardtanh(op: Operator, self: Operand, min: float = -1, max: float = 1) -> Any:
    return list(self)


@register_rule(
    *aten(
        "add", "sub", "rsub", "maximum", "minimum", "fmax", "fmin", "hypot", "logical_or", "logical_xor",
        "bitwise_or", "bitwise_xor", "__or__", "__xor__", "__ior__", "__ixor__", "gcd", "complex",
    ),
    flow=adds("self", "other"),
)  # fmt: skip
def addition(op: Operator, self: Any, other: Any, alpha: Any = 1, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


@register_rule(
    *aten("mul", "multiply", "logical_and", "bitwise_and", "__and__", "__iand__", "lcm"),
    flow=multiplies,
)
def multiplication(op: Operator, self: Any, other: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


def divide(above: Signal | None, below: Signal | None) -> Signal:
    """Zero over zero is not a number: a divisor that is zero at masked positions makes them dirty."""
    above, below = above or Signal(), below or Signal()
    carried = above.carried | below.carried
    return Signal(carried, carried - (above.clean - below.clean))


def _divides(flow: Flow) -> Signal:
    return divide(flow["self"], flow["other"])


@register_rule(*aten("div", "divide", "true_divide", "floor_divide", "remainder", "fmod"), flow=_divides)
def division(op: Operator, self: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


def _powers(flow: Flow) -> Signal:
    exponent = flow.arguments["exponent"]
    return keeps(flow) if isinstance(exponent, (int, float)) and exponent > 0 else loses(flow)


@register_rule(*aten("pow", "float_power"), flow=_powers)
def power(op: Operator, self: Any, exponent: Any) -> Any:
    return op.broadcast(*operands_in((self, exponent)))


@register_rule(
    *aten(
        "bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__", "__ilshift__", "__irshift__",
        "copysign", "ldexp",
    ),
    flow=adds("self"),
)  # fmt: skip
def scaling(op: Operator, self: Any, other: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


@register_rule(
    *aten(
        "isclose", "logaddexp", "logaddexp2", "nextafter", "xlogy", "special_xlog1py", "special_zeta",
        "heaviside", "polar", "atan2", "igamma", "igammac",
    ),
    flow=loses,
)  # fmt: skip
def binary(op: Operator, self: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


def _register_comparisons(*names: str) -> None:
    for name in names:
        compare = getattr(operator, name)

        def flow(flow: Flow, compare: Any = compare) -> Signal:
            other = flow.arguments["other"]
            known = isinstance(other, (int, float)) and not compare(0, other)
            return keeps(flow) if known else loses(flow)

        register_rule(*aten(name), flow=flow)(comparison)


def comparison(op: Operator, self: Operand, other: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


_register_comparisons("eq", "ne", "lt", "le", "gt", "ge")


def _thresholds(flow: Flow) -> Signal:
    stays = flow.arguments["threshold"] < 0 or flow.arguments["value"] == 0
    return keeps(flow) if stays else loses(flow)


@register_rule(*aten("threshold"), flow=_thresholds)
def threshold(op: Operator, self: Operand, threshold: float, value: float) -> Any:
    return list(self)


@register_rule(
    *(overload for packet in aten("where") for overload in (
        packet.self, packet.ScalarOther, packet.ScalarSelf, packet.Scalar)),
    flow=adds("self", "other"),
)  # fmt: skip
def where(op: Operator, condition: Operand, self: Any, other: Any) -> Any:
    return op.broadcast(*operands_in((condition, self, other)))


def _fills(flow: Flow) -> Signal:
    return (flow["self"] or Signal()) if flow.arguments["value"] == 0 else loses(flow)


@register_rule(*aten("masked_fill"), flow=_fills)
def masked_fill(op: Operator, self: Operand, mask: Operand, value: Any) -> Any:
    return op.broadcast(self, mask)


@register_rule(*aten("lerp"), flow=adds("self", "end"))
def lerp(op: Operator, self: Operand, end: Operand, weight: Any) -> Any:
    return op.broadcast(*operands_in((self, end, weight)))


def _adds_product(flow: Flow) -> Signal:
    return add(flow["self"], multiply(flow["tensor1"], flow["tensor2"]))


@register_rule(*aten("addcmul"), flow=_adds_product)
def addcmul(op: Operator, self: Operand, tensor1: Operand, tensor2: Operand, value: Any = 1) -> Any:
    return op.broadcast(self, tensor1, tensor2)


def _adds_quotient(flow: Flow) -> Signal:
    return add(flow["self"], divide(flow["tensor1"], flow["tensor2"]))


@register_rule(*aten("addcdiv"), flow=_adds_quotient)
def addcdiv(op: Operator, self: Operand, tensor1: Operand, tensor2: Operand, value: Any = 1) -> Any:
    return op.broadcast(self, tensor1, tensor2)


@register_rule(*aten("prelu", "_prelu_kernel"), flow=adds("self"))
def prelu(op: Operator, self: Operand, weight: Operand) -> Any:
    if len(weight) == 1 and weight[0].size > 1:
        op.unify(self[1], weight[0])
    elif len(weight) > 1:
        op.broadcast(self, weight)
    return list(self)


@register_rule(*aten("copy"), flow=adds("src"))
def copy(op: Operator, self: Operand, src: Operand, non_blocking: bool = False) -> Any:
    op.broadcast(self, src)
    return list(self)


@register_rule(*aten("view_as_complex", "view_as_complex_copy"), flow=keeps)
def view_as_complex(op: Operator, self: Operand) -> Any:
    op.pin(self[-1], "it holds real and imaginary parts")
    return self[:-1]


@register_rule(*aten("view_as_real", "view_as_real_copy"), flow=keeps)
def view_as_real(op: Operator, self: Operand) -> Any:
    return [*self, op.fixed(2, "it holds real and imaginary parts")]


@register_rule(*aten("bucketize", "isin"), flow=loses)
def looked_up(op: Operator, self: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(table, Operand):
        op.pin(table, "values are looked up in it")
    return list(self) if isinstance(self, Operand) else []


def _reduces(op: Operator, dims: list[Any], reduction: int) -> list[Any]:
    # 0 keeps every element, 1 is the mean of all, 2 their sum.
    if reduction == 0:
        return dims
    for dim in dims:
        op.inexact(dim, "a loss is taken over it")
    return []


@register_rule(
    *aten("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy"),
    flow=loses,
)
def loss(op: Operator, self: Operand, target: Operand, *args: Any, **kwargs: Any) -> Any:
    reduction = next((a for a in args if isinstance(a, int)), 1)
    weight = args[0] if args and isinstance(args[0], Operand) else []
    return _reduces(op, op.broadcast(self, target, weight), reduction)


@register_rule(*aten("binary_cross_entropy_with_logits"), flow=loses)
def loss_of_logits(
    op: Operator, self: Operand, target: Operand, weight: Operand | None = None,
    pos_weight: Operand | None = None, reduction: int = 1,
) -> Any:  # fmt: skip
    return _reduces(op, op.broadcast(self, target, *operands_in((weight, pos_weight))), reduction)
