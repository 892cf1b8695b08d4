"""Element-wise operators: the result has the broadcast dimensions of the operands."""

from __future__ import annotations

from typing import Any

from .._flow import Flow, Signal, add, keeps, loses, multiplies, multiply
from .._operator import Operand, Operator, operands_in
from .._table import aten, register_rule

Rows = list[Any]


@register_rule(
    *aten(
        "relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish",
        "tanh", "tan", "sin", "sinh", "asin", "asinh", "atan", "atanh", "erf", "erfinv", "expm1", "log1p",
        "neg", "abs", "sgn", "sign", "sqrt", "square", "floor", "ceil", "round", "trunc", "frac",
        "positive", "hardshrink", "softshrink", "nan_to_num", "deg2rad", "rad2deg",
        "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout",
        "clone", "detach", "alias", "contiguous", "lift_fresh", "lift", "resolve_conj", "resolve_neg",
        "conj", "conj_physical", "_conj", "to", "_to_copy", "type_as", "fix", "real", "imag", "angle",
        "cpu", "cuda", "_neg_view", "detach_copy", "pin_memory", "sinc",
    ),
    flow=keeps,
)  # fmt: skip
def unary(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    # native_dropout returns its mask as well; both are shaped like the operand.
    return list(self) if len(op.shapes) == 1 else [list(self)] * len(op.shapes)


@register_rule(
    *aten(
        "sigmoid", "hardsigmoid", "log_sigmoid", "softplus", "exp", "exp2", "log", "log2", "log10",
        "cos", "cosh", "acos", "acosh", "rsqrt", "reciprocal", "logit", "erfc", "lgamma", "digamma",
        "threshold", "isnan", "isinf", "isfinite", "logical_not", "bitwise_not", "signbit",
        "bernoulli", "uniform", "normal", "random", "exponential", "special_expit", "isneginf",
        "isposinf", "special_erfcx", "fill", "polygamma", "i0", "special_entr", "isreal", "log_normal",
        "cauchy", "geometric", "arcsin", "special_ndtr",
    ),
    flow=loses,
)  # fmt: skip
def unary_not_zero_at_zero(op: Operator, self: Operand, *args: Any, **kwargs: Any) -> Any:
    return list(self)


@register_rule(*aten("zero"), flow=lambda flow: Signal())
def zero(op: Operator, self: Operand) -> Any:
    return list(self)


def _clamps(flow: Flow) -> Signal:
    low, high = flow.arguments["min"], flow.arguments["max"]
    bounds = [b for b in (low, high) if b is not None]
    if any(isinstance(b, Operand) for b in bounds):
        return loses(flow)
    keeps_zero = (low is None or low <= 0) and (high is None or high >= 0)
    return keeps(flow) if keeps_zero else loses(flow)


@register_rule(*aten("clamp", "clip"), flow=_clamps)
def clamp(op: Operator, self: Operand, min: Any = None, max: Any = None) -> Any:
    return op.broadcast(*operands_in((self, min, max)))


@register_rule(*aten("clamp_min"), flow=_clamps)
def clamp_min(op: Operator, self: Operand, min: Any, max: Any = None) -> Any:
    return op.broadcast(*operands_in((self, min)))


@register_rule(*aten("clamp_max"), flow=_clamps)
def clamp_max(op: Operator, self: Operand, max: Any, min: Any = None) -> Any:
    return op.broadcast(*operands_in((self, max)))


@register_rule(
    *aten("hardtanh"),
    flow=lambda flow: keeps(flow) if flow.arguments["min_val"] <= 0 <= flow.arguments["max_val"] else loses(flow),
)
def hardtanh(op: Operator, self: Operand, min_val: float = -1, max_val: float = 1) -> Any:
    return list(self)


def _adds(flow: Flow) -> Signal:
    terms = [flow.arguments[name] for name in ("self", "other")]
    if any(isinstance(term, (int, float, complex)) and term != 0 for term in terms):
        return loses(flow)
    return add(*flow.tensors())


@register_rule(*aten("add", "sub", "rsub", "subtract", "maximum", "minimum", "fmax", "fmin", "hypot"), flow=_adds)
def addition(op: Operator, self: Any, other: Any, alpha: Any = 1, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


@register_rule(*aten("mul", "multiply", "logical_and", "bitwise_and"), flow=multiplies)
def multiplication(op: Operator, self: Any, other: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


def _divides(flow: Flow) -> Signal:
    above, below = flow["self"] or Signal(), flow["other"]
    if below is None:
        return above
    # Zero over zero is not a number: a divisor that is zero at masked positions makes them dirty.
    carried = above.carried | below.carried
    return Signal(carried, carried - (above.clean - below.clean))


@register_rule(
    *aten("div", "divide", "true_divide", "floor_divide", "remainder", "fmod", "atan2"), flow=_divides
)
def division(op: Operator, self: Any, other: Any, rounding_mode: Any = None) -> Any:
    return op.broadcast(*operands_in((self, other)))


def _powers(flow: Flow) -> Signal:
    exponent = flow.arguments["exponent"]
    return keeps(flow) if isinstance(exponent, (int, float)) and exponent > 0 else loses(flow)


@register_rule(*aten("pow", "float_power"), flow=_powers)
def power(op: Operator, self: Any, exponent: Any) -> Any:
    return op.broadcast(*operands_in((self, exponent)))


@register_rule(
    *aten(
        "eq", "ne", "lt", "le", "gt", "ge", "greater", "less", "greater_equal", "less_equal", "not_equal",
        "logical_or", "logical_xor", "bitwise_or", "bitwise_xor", "bitwise_left_shift",
        "bitwise_right_shift", "isclose", "logaddexp", "nextafter", "copysign", "__and__", "__or__",
        "__xor__", "__lshift__", "__rshift__", "xlogy", "heaviside", "special_xlog1py", "logaddexp2",
        "complex", "polar",
    ),
    flow=loses,
)  # fmt: skip
def comparison(op: Operator, self: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
    return op.broadcast(*operands_in((self, other)))


def _chooses(flow: Flow) -> Signal:
    choices = [flow.arguments[name] for name in ("self", "other")]
    if any(not isinstance(c, Operand) and c != 0 for c in choices):
        return loses(flow)
    return add(flow["self"], flow["other"])


@register_rule(*aten("where"), flow=_chooses)
def where(op: Operator, condition: Operand, self: Any = None, other: Any = None) -> Any:
    if self is None:
        raise NotImplementedError("where with a condition alone has a shape that depends on data")
    return op.broadcast(*operands_in((condition, self, other)))


def _fills(flow: Flow) -> Signal:
    value = flow.arguments["value"]
    return (flow["self"] or Signal()) if isinstance(value, (int, float)) and value == 0 else loses(flow)


@register_rule(*aten("masked_fill"), flow=_fills)
def masked_fill(op: Operator, self: Operand, mask: Operand, value: Any) -> Any:
    return op.broadcast(self, mask)


@register_rule(*aten("lerp"), flow=lambda flow: add(flow["self"], flow["end"]))
def lerp(op: Operator, self: Operand, end: Operand, weight: Any) -> Any:
    return op.broadcast(*operands_in((self, end, weight)))


@register_rule(
    *aten("addcmul"),
    flow=lambda flow: add(flow["self"], multiply(flow["tensor1"], flow["tensor2"])),
)
def addcmul(op: Operator, self: Operand, tensor1: Operand, tensor2: Operand, value: Any = 1) -> Any:
    return op.broadcast(self, tensor1, tensor2)


@register_rule(*aten("addcdiv"), flow=loses)
def addcdiv(op: Operator, self: Operand, tensor1: Operand, tensor2: Operand, value: Any = 1) -> Any:
    return op.broadcast(self, tensor1, tensor2)


@register_rule(*aten("prelu", "_prelu_kernel"), flow=lambda flow: flow["self"] or Signal())
def prelu(op: Operator, self: Operand, weight: Operand) -> Any:
    if weight.dims[0].size > 1 and len(weight) == 1:
        op.unify(self[1], weight[0])
    elif len(weight) > 1:
        op.broadcast(self, weight)
    return list(self)


@register_rule(*aten("copy_"), flow=lambda flow: flow["src"] or Signal())
def copy(op: Operator, self: Operand, src: Operand, non_blocking: bool = False) -> Any:
    op.broadcast(self, src)
    return list(self)


@register_rule(*aten("view_as_complex", "view_as_real"), flow=keeps)
def complex_pairs(op: Operator, self: Operand) -> Any:
    if len(op.shape) > len(self):
        return [*self, op.fixed(2, "it holds real and imaginary parts")]
    op.pin(self[-1], "it holds real and imaginary parts")
    return self[:-1]
