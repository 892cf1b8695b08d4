"""Transfers of attention: a mean of values that are alike is the value, whatever the weights."""

from __future__ import annotations

import math

import torch

from ._elementwise import fill_at, minus_infinity
from ._known import EXACTLY, UNKNOWN, Known, compress, spread, uniform, unknown
from ._transfer import Results, Step, transfers


@transfers("softmax", "_softmax", "_safe_softmax")
def softmax(step: Step) -> Results:
    """Zero where minus infinity competes, else unknown; but along the dimension it sums to one."""
    if step.arguments.get("dim") in (-1, len(step.shapes[0]) - 1):
        step.normalised.update(step.node.outputs)
    return fill_at(step.nothing, [minus_infinity(step.operand("self"))])


@transfers("log_softmax", "_log_softmax")
def log_softmax(step: Step) -> Results:
    """Minus infinity where it competes, else unknown."""
    return fill_at(step.nothing, [minus_infinity(step.operand("self"))], fill=-math.inf)


@transfers("matmul", "bmm", "mm")
def matmul(step: Step) -> Results:
    """Zero where a row or column is; weights that sum to one give back what is alike in all rows."""
    names = list(step.arguments)
    first, second = step.operand(names[0]), step.operand(names[1])
    if len(first.shape) < 2 or len(second.shape) < 2:
        return step.nothing
    columns = uniform(second.without_chance().numbers(), [-2])
    if step.arguments[names[0]].id not in step.normalised:
        columns = _only_zeros(columns)
    rows = _only_zeros(uniform(first.without_chance().numbers(), [-1]))
    return _either(rows, columns, step.shapes[0])


def _only_zeros(known: Known) -> Known:
    value, state = compress(known.value, known.state)
    state = torch.where((value == 0) & (state == EXACTLY), EXACTLY, UNKNOWN).to(torch.uint8)
    return Known(known.value, spread(state, known.shape))


def _either(rows: Known, columns: Known, shape: tuple[int, ...]) -> Known:
    if not (rows.anything or columns.anything):
        return unknown(shape)
    a, b = compress(*rows.tensors), compress(*columns.tensors)
    value = torch.where(a[1] == EXACTLY, a[0], b[0])
    return Known(spread(value, shape), spread(torch.maximum(a[1], b[1]), shape))


@transfers("scaled_dot_product_attention")
def scaled_dot_product_attention(step: Step) -> Results:
    """Values that are alike for all keys come out as they are."""
    shape = step.shapes[0]
    value = uniform(step.operand("value").numbers(), [-2])
    if len(shape) > 2 and value.shape[-3] != shape[-3]:  # grouped queries: heads are repeated
        times = shape[-3] // value.shape[-3]
        value = Known(*(t.repeat_interleave(times, -3) for t in value.tensors))
    return Known(*(spread(t, shape) for t in value.tensors))
