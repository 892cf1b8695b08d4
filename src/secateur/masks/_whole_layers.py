"""Layers that are one operator or one module call: multi-head attention and recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..axes import Dim
from ..capture import Ref
from ._known import EXACTLY, UNKNOWN, Known, along, constant, spread, unknown
from ._layers import LAYERS, ONE_TAP, Layered, Place, Product, blocks, layer, spread_along, whole
from ._reading import BiasPlace, Reading, Weights

_TENSORS = ("query", "key", "value")


def _multihead(place: Place) -> Layered | None:
    """Projections of queries, keys and values, and the output projection."""
    step, arguments = place.step, place.step.arguments
    module: dict[str, Ref] = arguments["module"]
    tensors = [arguments.get(name, arguments.get(str(i))) for i, name in enumerate(_TENSORS)]
    heads = step.node.op.settings["num_heads"]
    readings = [_projection(place, module, i, t) for i, t in enumerate(tensors) if isinstance(t, Ref)]
    queries, keys, values = (reading.result() for reading in readings)
    out = module["out_proj.weight"]
    last = Reading(
        step.node,
        _mixed(place, module, values),
        Weights.of(step.known_of(out.id), _arrange),
        ONE_TAP,
        place.dims_of(out.id)[1],
        whole(place.dims_of(out.id)[0]),
        _out_bias(place, module),
        _start(place, module.get("out_proj.bias"), slice(None), place.value_of(out.id).shape[0]),
    )
    dim, part = readings[0].rows
    vanishes = (_is_zero(queries) | _is_zero(keys)).flatten()
    results = [spread_along(last.result(), -1, step.shapes[0])]
    nothing = [unknown(shape) for shape in step.shapes[1:]]
    return Layered([*readings, last], [*results, *nothing], [Product(dim, part, heads, vanishes)])


LAYERS[nn.MultiheadAttention] = _multihead


def _arrange(tensor: Tensor) -> Tensor:
    return tensor[None, :, :, None]


def _is_zero(known: Known) -> Tensor:
    return (known.state == EXACTLY) & (known.value == 0)


def _projection(place: Place, module: dict[str, Ref], index: int, tensor: Ref) -> Reading:
    """One of the three input projections: a third of ``in_proj_weight``, or a weight of its own."""
    name = f"{'qkv'[index]}_proj_weight"
    weight = module.get("in_proj_weight") or module[name]
    width = place.value_of(module["out_proj.weight"].id).shape[1]
    own = slice(0, None) if name in module else slice(index * width, (index + 1) * width)
    known = Known(*(t[own] for t in place.step.known_of(weight.id).tensors))
    rows = slice(own.start, own.start + known.shape[0])
    bias = module.get("in_proj_bias")
    of_bias = slice(index * width, (index + 1) * width)
    return Reading(
        place.step.node,
        blocks(along(place.step.known_of(tensor.id), -1), 1),
        Weights.of(known, _arrange),
        ONE_TAP,
        place.dims_of(weight.id)[1],
        (place.dims_of(weight.id)[0], rows),
        "the attention was made without biases"
        if bias is None
        else BiasPlace(
            place.value_of(bias.id).name, True, (place.value_of(weight.id).name, 0), of_bias.start
        ),
        _start(place, bias, of_bias, known.shape[0]),
    )


def _start(place: Place, bias: Ref | None, part: slice, rows: int) -> Known:
    if bias is None:
        return constant(0.0, (1, rows))
    known = along(place.step.known_of(bias.id), 0)
    return blocks(Known(known.value[part], known.state[part]), 1)


def _out_bias(place: Place, module: dict[str, Ref]) -> BiasPlace | str:
    weight = (place.value_of(module["out_proj.weight"].id).name, 0)
    if "out_proj.bias" in module:
        return BiasPlace(place.value_of(module["out_proj.bias"].id).name, True, weight)
    return BiasPlace(f"{place.step.node.op.path}.out_proj.bias".lstrip("."), False, weight)


def _mixed(place: Place, module: dict[str, Ref], values: Known) -> Known:
    """Means of the values: where these are alike for all keys. Extra keys bring other values."""
    settings = place.step.node.op.settings
    alike = torch.ones_like(values.state, dtype=torch.bool)
    if settings.get("add_zero_attn"):
        alike &= values.value == 0
    if "bias_v" in module:
        extra = blocks(along(place.step.known_of(module["bias_v"].id), -1), 1)
        alike &= (extra.state == EXACTLY) & (extra.value == values.value)
    return Known(values.value, torch.where(alike, values.state, UNKNOWN).to(torch.uint8))


# -- recurrent layers ------------------------------------------------------------------------------

# By number of gates: which of them lets something into the state.
_INLET = {4: 2, 3: 2, 1: 0}


@dataclass(frozen=True, slots=True)
class _Cell:
    """The parameters of one recurrent layer in one direction."""

    w_ih: Ref
    w_hh: Ref
    b_ih: Ref | None = None
    b_hh: Ref | None = None


def _step_of(place: Place, gates: int, cell: _Cell, source: Known, columns: Dim, empty: Tensor) -> Any:
    """Readings of one cell, and which of its units stay zero; ``empty`` says which start at zero."""
    step = place.step
    w_hh = Weights.of(step.known_of(cell.w_hh.id), _arrange)
    rows = whole(place.dims_of(cell.w_ih.id)[0])
    given = Reading(
        step.node,
        blocks(source, 1),
        Weights.of(step.known_of(cell.w_ih.id), _arrange),
        ONE_TAP,
        columns,
        rows,
        "the recurrent layer was made without biases"
        if cell.b_ih is None
        else BiasPlace(place.value_of(cell.b_ih.id).name, True, (place.value_of(cell.w_ih.id).name, 0)),
        _start(place, cell.b_ih, slice(None), w_hh.shape[1]),
    )
    fed, own = given.result(), _start(place, cell.b_hh, slice(None), w_hh.shape[1])
    silent = ~w_hh.rows_with(torch.ones(1, w_hh.shape[2], dtype=torch.bool))
    still = silent & (torch.minimum(fed.state, own.state) == EXACTLY) & (fed.value + own.value == 0)
    if gates == 3:  # the reset gate scales what comes from the state, so both have to be zero
        still &= own.value == 0
    zero = still.reshape(gates, -1)[_INLET[gates]] & empty
    again = Reading(
        step.node,
        _zero_where(zero),
        w_hh,
        ONE_TAP,
        place.dims_of(cell.w_hh.id)[1],
        rows,
        "a state that starts at zero is no constant",
        own,
    )
    return [given, again], zero


def _zero_where(zero: Tensor) -> Known:
    state = torch.where(zero, EXACTLY, UNKNOWN).to(torch.uint8)
    return blocks(Known(torch.zeros(zero.shape, dtype=torch.float64), state), 1)


def _starts_empty(place: Place, states: Sequence[Ref]) -> Tensor:
    """Units whose states are zero at the start."""
    vectors = [along(place.step.known_of(ref.id), -1) for ref in states]
    return torch.stack([_is_zero(vector) for vector in vectors]).all(0)


def _refs(value: Any) -> list[Ref]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _sequence(place: Place, gates: int) -> Layered | None:
    """All layers and directions of a recurrent layer."""
    step, a = place.step, place.step.arguments
    states = _refs(a["hx"])
    params = a.get("params")
    if params is None or "input" not in a or len({place.value_of(r.id).shape[-1] for r in states}) > 1:
        return None  # packed sequences and projections
    each = 4 if a["has_biases"] else 2
    directions = 2 if a["bidirectional"] else 1
    empty = _starts_empty(place, states)
    readings: list[Reading] = []
    zeros: list[Tensor] = []
    source = along(step.known_of(a["input"].id), -1)
    for index in range(a["num_layers"]):
        for direction in range(directions):
            first = (index * directions + direction) * each
            cell = _Cell(*params[first : first + each])
            columns = place.dims_of(cell.w_ih.id)[1]
            found, zero = _step_of(place, gates, cell, source, columns, empty)
            readings += found
            zeros.append(zero)
        known = [_zero_where(zero) for zero in zeros[-directions:]]
        source = Known(*(torch.cat(column, 1)[0] for column in zip(*(k.tensors for k in known), strict=True)))
    outputs = Known(*(spread(t, step.shapes[0]) for t in source.tensors))
    stacked = torch.stack(zeros)[:, None, :]
    state = torch.where(stacked, EXACTLY, UNKNOWN).to(torch.uint8)
    last = [
        Known(constant(0.0, s).value, spread(state if len(s) == 3 else state[:, 0], s))
        for s in step.shapes[1:]
    ]
    return Layered(readings, [outputs, *last])


@layer("lstm")
def lstm(place: Place) -> Layered | None:
    """Four gates; the third lets something in."""
    return _sequence(place, 4)


@layer("gru")
def gru(place: Place) -> Layered | None:
    """Three gates; the third is the new content."""
    return _sequence(place, 3)


@layer("rnn_tanh", "rnn_relu")
def rnn(place: Place) -> Layered | None:
    """No gates."""
    return _sequence(place, 1)


@layer("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(place: Place) -> Layered | None:
    """One step of a recurrent layer."""
    step, a = place.step, place.step.arguments
    states = _refs(a["hx"])
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[
        step.node.op._schema.name.removeprefix("aten::").partition("_")[0]
    ]
    parameters = _Cell(a["w_ih"], a["w_hh"], a.get("b_ih"), a.get("b_hh"))
    source = along(step.known_of(a["input"].id), -1)
    columns = place.dims_of(parameters.w_ih.id)[1]
    readings, zero = _step_of(place, gates, parameters, source, columns, _starts_empty(place, states))
    known = _zero_where(zero)
    results = [Known(*(spread(t[0], shape) for t in known.tensors)) for shape in step.shapes]
    return Layered(readings, list(results))
