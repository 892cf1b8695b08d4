"""Transfers of element-wise operators: the operator itself, run on the constants."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..capture import Ref, map_tree
from ._known import EXACTLY, LARGEST, Known, compress, constant, spread
from ._transfer import Results, Step, functional, transfers

# Adding a parameter that happens to be zero, or choosing it, hides nothing; multiplying by it does.
_HARMLESS = {"sub", "rsub", "subtract", "where", "masked_fill"}


@transfers(
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "tanh",
    "tan", "sin", "sinh", "asin", "asinh", "atan", "atanh", "erf", "expm1", "log1p", "neg", "abs", "sgn",
    "sign", "sqrt", "square", "floor", "ceil", "round", "trunc", "frac", "hardshrink",
    "softshrink", "sigmoid", "hardsigmoid", "log_sigmoid", "softplus", "exp", "exp2", "log", "log2",
    "log10", "cos", "cosh", "acos", "rsqrt", "reciprocal", "erfc", "threshold", "clamp", "clip",
    "clamp_min", "clamp_max", "hardtanh", "nan_to_num", "logical_not", "bitwise_not", "sub",
    "rsub", "subtract", "maximum", "minimum", "fmax", "fmin", "pow", "float_power", "floor_divide",
    "remainder", "fmod", "atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_xor", "where", "masked_fill", "lerp",
)  # fmt: skip
def pointwise(step: Step) -> Results:
    """f(constant) is constant."""
    return compute(step, _schema_name(step) not in _HARMLESS)


@transfers("add")
def sum_of_two(step: Step) -> Results:
    """Minus infinity and anything is minus infinity: that is how a position is kept out of a softmax."""
    result = compute(step, chance=False)
    marks = [minus_infinity(step.known_of(ref.id)) for ref in step.refs()]
    return fill_at(result, marks, fill=-math.inf) if marks else result


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


@transfers("glu")
def gated(step: Step) -> Results:
    """One half times the sigmoid of the other."""
    first, second = (_half(step.operand("self"), step.arguments.get("dim", -1), i) for i in (0, 1))
    (value,) = compress(second.value)
    gate = Known(spread(value.sigmoid(), step.shapes[0]), second.state)
    return fill_at(_of_product(step, first, gate), [first.zeros()])


def _half(known: Known, dim: int, which: int) -> Known:
    numbers = known.without_chance().numbers()
    return Known(numbers.value.chunk(2, dim)[which], numbers.state.cpu().chunk(2, dim)[which])


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
    return _pairwise(torch.mul, step, first.without_chance(), second.without_chance())


def _sum(step: Step, first: Known, second: Known) -> Known:
    return _pairwise(torch.add, step, first, second)


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], step: Step, *operands: Known) -> Known:
    """``function`` of two operands, known where both are."""
    (a, b), shape = ([compress(t)[0] for t in k.numbers().tensors[:2]] for k in operands), step.shapes[0]
    return Known(spread(function(a[0], b[0]), shape), spread(torch.minimum(a[1], b[1]), shape))


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
    if operator is None or _joint_size(kept) > LARGEST or not any(bool(state.any()) for state in kept):
        return step.nothing
    state = functools.reduce(torch.minimum, kept)
    value = operator(*args, **kwargs)
    return Known(spread(value, step.shapes[0]), spread(state, step.shapes[0]))


def _with_zeros(step: Step, result: Known, factors: list[Ref], unless: Sequence[Ref] = ()) -> Known:
    """``result``, and zero wherever one of the factors is, ``unless`` one of these is as well."""
    zeros = [[step.known_of(ref.id).zeros().cpu() for ref in refs] for refs in (factors, unless)]
    return fill_at(result, *zeros)


def minus_infinity(known: Known) -> Tensor:
    """Positions that are minus infinity on every input, other than in parameters."""
    value, state = compress(known.value, known.state)
    if known.masked is not None or not value.is_floating_point() or value.device.type == "meta":
        return spread(torch.zeros((), dtype=torch.bool), known.shape)
    return spread((value == -math.inf).cpu() & (state == EXACTLY).cpu(), known.shape)


def fill_at(
    result: Known, where: Sequence[Tensor], unless: Sequence[Tensor] = (), *, fill: float = 0.0
) -> Known:
    """``result``, and ``fill`` wherever one of ``where`` is true and none of ``unless``."""
    shape = result.shape
    value, state, *marks = compress(
        result.value, result.state, *(spread(mark, shape) for mark in (*where, *unless))
    )
    absorbed = torch.stack(marks[: len(where)]).any(0)
    for mark in marks[len(where) :]:
        absorbed &= ~mark
    if not bool(absorbed.any()):
        return result
    state = torch.where(absorbed, EXACTLY, state).to(torch.uint8)
    return Known(spread(value.masked_fill(absorbed, fill), shape), spread(state, shape))


def _schema_name(step: Step) -> str:
    return step.node.op._schema.name.removeprefix("aten::").rstrip("_")


def _joint_size(tensors: Sequence[Tensor]) -> int:
    """How many elements the tensors have once they are broadcast to each other."""
    sizes = itertools.zip_longest(*(tensor.shape[::-1] for tensor in tensors), fillvalue=1)
    return math.prod(map(max, sizes))
