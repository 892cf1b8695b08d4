"""Recurrent layers: the gates of a hidden unit come and go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import Flow, Signal
from .._operator import Operand, Operator
from .._table import aten, register_rule


def _state_stays_zero(flow: Flow) -> Signal:
    # With zero weights and biases a gate never lets anything in: a state that starts at zero stays.
    signals = flow.tensors()
    carried = frozenset[Any]().union(*(s.carried for s in signals))
    started = flow.arguments.get("hx")
    starts = started if isinstance(started, (list, tuple)) else [started]
    dirty = [flow.signal_of(s.id).dirty for s in starts if isinstance(s, Operand)]
    return Signal(carried, frozenset[Any]().union(*dirty))


def _cell(
    op: Operator, gates: int, source: Any, hidden: Any, weights: Sequence[Operand], biases: Sequence[Operand],
    inputs: Operand, state: Operand,
) -> Any:  # fmt: skip
    """Unify the parameters of one layer in one direction; returns its hidden axis."""
    units = op.new(weights[0][0].size // gates)
    rows = op.product(op.fixed(gates, "gates of a recurrent layer"), units) if gates > 1 else units
    for tensor in (*weights, *biases):
        op.unify(rows, tensor[0])
    op.sum_over(op.unify(source, weights[0][1]), inputs, weights[0])
    op.sum_over(op.unify(hidden, weights[1][1]), state, weights[1])
    return units


def _layers(
    op: Operator, gates: int, input: Operand, hx: Sequence[Operand], params: Sequence[Operand],
    has_biases: bool, num_layers: int, bidirectional: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Output features, hidden axis and cell axis of a stack of layers."""
    directions = 2 if bidirectional else 1
    projected = len(hx) == 2 and hx[0][-1].size != hx[1][-1].size
    each = 2 + 2 * has_biases + projected
    source, hidden = input[-1], hx[0][-1]
    cell = hx[1][-1] if len(hx) > 1 else hidden
    for layer in range(num_layers):
        outs = []
        for direction in range(directions):
            start = (layer * directions + direction) * each
            weights, biases = params[start : start + 2], params[start + 2 : start + 2 + 2 * has_biases]
            units = _cell(op, gates, source, hidden, weights, biases, input, hx[0])
            op.unify(units, cell)
            if projected:
                projection = params[start + each - 1]
                op.sum_over(op.unify(units, projection[1]), projection)
                op.unify(hidden, projection[0])
            else:
                op.unify(units, hidden)
            outs.append(hidden)
        source = op.concat(outs)
    for state in hx:
        op.pin(state[0], "layers and directions of a recurrent stack")
    return source, hidden, cell


def _sequence(op: Operator, gates: int, input: Operand, hx: Sequence[Operand], params: Any, *settings: Any) -> Any:
    has_biases, num_layers, _, _, bidirectional, batch_first = settings
    out, hidden, cell = _layers(op, gates, input, hx, params, has_biases, num_layers, bidirectional)
    op.pin(input[:-1], "steps and batch of a recurrent layer")
    lead = [op.fixed(n, "steps and batch of a recurrent layer") for n in op.shape[:-1]]
    states = [[*state[:-1], axis] for state, axis in zip(hx, (hidden, cell), strict=False)]
    return [[*lead, out], *states]


@register_rule(*aten("lstm"), flow=_state_stays_zero)
def lstm(op: Operator, input: Operand, hx: Sequence[Operand], params: Any, *settings: Any) -> Any:
    return _sequence(op, 4, input, hx, params, *settings)


@register_rule(*aten("gru"), flow=_state_stays_zero)
def gru(op: Operator, input: Operand, hx: Operand, params: Any, *settings: Any) -> Any:
    return _sequence(op, 3, input, [hx], params, *settings)


@register_rule(*aten("rnn_tanh", "rnn_relu"), flow=_state_stays_zero)
def rnn(op: Operator, input: Operand, hx: Operand, params: Any, *settings: Any) -> Any:
    return _sequence(op, 1, input, [hx], params, *settings)


def _step(op: Operator, gates: int, input: Operand, hx: Operand, weights: Any, biases: Any) -> Any:
    hidden = hx[-1]
    units = _cell(op, gates, input[-1], hidden, weights, [b for b in biases if b is not None], input, hx)
    return [*input[:-1], op.unify(units, hidden)]


@register_rule(*aten("lstm_cell"), flow=_state_stays_zero)
def lstm_cell(
    op: Operator, input: Operand, hx: Sequence[Operand], w_ih: Operand, w_hh: Operand,
    b_ih: Operand | None = None, b_hh: Operand | None = None,
) -> Any:  # fmt: skip
    result = _step(op, 4, input, hx[0], [w_ih, w_hh], [b_ih, b_hh])
    op.unify(hx[0][-1], hx[1][-1])
    return [result, result]


@register_rule(*aten("gru_cell"), flow=_state_stays_zero)
def gru_cell(
    op: Operator, input: Operand, hx: Operand, w_ih: Operand, w_hh: Operand,
    b_ih: Operand | None = None, b_hh: Operand | None = None,
) -> Any:  # fmt: skip
    return _step(op, 3, input, hx, [w_ih, w_hh], [b_ih, b_hh])


@register_rule(*aten("rnn_tanh_cell", "rnn_relu_cell"), flow=_state_stays_zero)
def rnn_cell(
    op: Operator, input: Operand, hx: Operand, w_ih: Operand, w_hh: Operand,
    b_ih: Operand | None = None, b_hh: Operand | None = None,
) -> Any:  # fmt: skip
    return _step(op, 1, input, hx, [w_ih, w_hh], [b_ih, b_hh])
