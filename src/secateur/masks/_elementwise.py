"""Transfers of element-wise operators: the operator itself, run on the constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..capture import Ref, map_tree
from ._known import EXACTLY, LARGEST, Known, compress, constant, spread
from ._transfer import Results, Step, functional, transfers

# Adding a parameter that happens to be zero, or choosing it, hides nothing; multiplying by it does.
_HARMLESS = {"add", "sub", "rsub", "subtract", "where", "masked_fill"}


@transfers(
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "tanh",
    "tan", "sin", "sinh", "asin", "asinh", "atan", "atanh", "erf", "expm1", "log1p", "neg", "abs", "sgn",
    "sign", "sqrt", "square", "floor", "ceil", "round", "trunc", "frac", "hardshrink",
    "softshrink", "sigmoid", "hardsigmoid", "log_sigmoid", "softplus", "exp", "exp2", "log", "log2",
    "log10", "cos", "cosh", "acos", "rsqrt", "reciprocal", "erfc", "threshold", "clamp", "clip",
    "clamp_min", "clamp_max", "hardtanh", "nan_to_num", "logical_not", "bitwise_not", "add", "sub",
    "rsub", "subtract", "maximum", "minimum", "fmax", "fmin", "pow", "float_power", "floor_divide",
    "remainder", "fmod", "atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_xor", "where", "masked_fill", "lerp",
)  # fmt: skip
def pointwise(step: Step) -> Results:
    """f(constant) is constant."""
    return compute(step, _schema_name(step) not in _HARMLESS)


@transfers("mul", "multiply")
def product(step: Step) -> Results:
    """Zero times anything is zero."""
    return _with_zeros(step, compute(step, True), step.refs())


@transfers("div", "divide", "true_divide")
def quotient(step: Step) -> Results:
    """Zero over anything is zero, but for zero over zero."""
    above, *below = step.refs()
    if not isinstance(step.arguments.get("self"), Ref):
        return compute(step, True)
    return _with_zeros(step, compute(step, True), [above], unless=below)


@transfers("addcmul")
def sum_with_product(step: Step) -> Results:
    """The product first, then the sum."""
    factors = _with_zeros(
        step,
        _of_product(step, step.operand("tensor1"), step.operand("tensor2")),
        [step.arguments["tensor1"], step.arguments["tensor2"]],
    )
    scaled = Known(factors.numbers().value * step.arguments.get("value", 1), factors.state)
    return _sum(step, step.operand("self"), scaled)


def _of_product(step: Step, first: Known, second: Known) -> Known:
    values = [k.without_chance().numbers() for k in (first, second)]
    value, state = values[0].value * values[1].value, torch.minimum(values[0].state, values[1].state)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


def _sum(step: Step, first: Known, second: Known) -> Known:
    value = first.numbers().value + second.value
    state = torch.minimum(first.state, second.state)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


@transfers(
    "dropout", "feature_dropout", "alpha_dropout", "clone", "detach", "alias", "contiguous", "lift_fresh",
    "lift", "to", "_to_copy", "type_as", "cpu", "cuda", "detach_copy", "positive",
)  # fmt: skip
def same(step: Step) -> Results:
    """The same numbers; in eval mode dropout does nothing."""
    source = step.refs()[0]
    if not step.dtypes[0].is_floating_point:
        return step.nothing  # rounded on the way
    if source.id in step.normalised:
        step.normalised.update(step.node.outputs)
    return step.known_of(source.id)


@transfers("copy")
def copied(step: Step) -> Results:
    """The numbers of another tensor, stretched."""
    source = step.operand("src")
    return Known(*(spread(t, step.shapes[0]) for t in source.tensors))


@transfers("fill")
def filled(step: Step) -> Results:
    """One number everywhere."""
    value = step.arguments.get("value")
    return constant(float(value), step.shapes[0]) if isinstance(value, (int, float)) else None


@transfers("zero", "zeros", "zeros_like", "new_zeros")
def zeros(step: Step) -> Results:
    """Zero everywhere."""
    return constant(0.0, step.shapes[0])


@transfers("ones", "ones_like", "new_ones")
def ones(step: Step) -> Results:
    """One everywhere."""
    return constant(1.0, step.shapes[0])


@transfers("full", "full_like", "new_full")
def full(step: Step) -> Results:
    """One number everywhere."""
    value = step.arguments.get("fill_value")
    return constant(float(value), step.shapes[0]) if isinstance(value, (int, float)) else None


def compute(step: Step, chance: bool) -> Known:
    """The operator run on the constants; known where all operands are.

    ``chance`` says whether a parameter that happens to be zero is to be taken for unknown.
    """
    operator = functional(step.node.op)
    kept: list[Tensor] = []

    def constants(ref: Ref) -> Tensor:
        known = step.known_of(ref.id)
        value, state = compress(*(known.without_chance() if chance else known).numbers().tensors[:2])
        kept.append(state)
        return value

    args, kwargs = map_tree((step.node.args, step.node.kwargs), Ref, constants)
    kwargs = {name: value for name, value in kwargs.items() if name not in ("dtype", "device")}
    shape = torch.broadcast_shapes(*(t.shape for t in kept))
    if operator is None or _count(shape) > LARGEST or not any(bool(s.any()) for s in kept):
        return step.nothing
    state = torch.stack([spread(s, shape) for s in kept]).amin(0)
    value = operator(*args, **kwargs)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


def _with_zeros(step: Step, result: Known, factors: list[Ref], unless: Sequence[Ref] = ()) -> Known:
    """``result``, and zero wherever one of the factors is, ``unless`` one of these is as well."""
    shape, refs = step.shapes[0], [*factors, *unless]
    zeros = [spread(step.known_of(ref.id).zeros().cpu(), shape) for ref in refs]
    value, state, *zeros = compress(result.value, result.state, *zeros)
    absorbed = torch.stack(zeros[: len(factors)]).any(0)
    for zero in zeros[len(factors) :]:
        absorbed &= ~zero
    if not bool(absorbed.any()):
        return result
    state = torch.where(absorbed, EXACTLY, state).to(torch.uint8)
    return Known(spread(value.masked_fill(absorbed, 0), shape), spread(state, shape))


def _schema_name(step: Step) -> str:
    return step.node.op._schema.name.removeprefix("aten::").rstrip("_")


def _count(shape: Any) -> int:
    return int(torch.Size(shape).numel())
