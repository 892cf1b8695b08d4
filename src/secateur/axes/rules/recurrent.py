"""Recurrent layers: the gates of a hidden unit come and go together."""
# ruff: noqa: D103 - a rule is named after its operator, which is its documentation

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._flow import NONE, Flow, Signal, keeps, loses
from .._operator import Operand, Operator, operands_in
from .._table import aten, register_rule

STEPS = "steps and batch of a recurrent layer"


def _state_stays_zero(flow: Flow) -> Signal:
    # With zero weights and biases a gate lets nothing in: a state that starts at zero stays there.
    params = ("params", "w_ih", "w_hh", "b_ih", "b_hh")
    weights = [flow.signal_of(o.id) for o in operands_in(map(flow.arguments.get, params))]
    states = [flow.signal_of(o.id) for o in operands_in([flow.arguments["hx"]])]
    carried = NONE.union(*(s.carried for s in (*weights, *states)))
    dirty = NONE.union(*(s.dirty for s in (*weights, *states)))
    return Signal(carried, dirty | (carried - NONE.union(*(s.carried for s in weights))))


def _cell(
    op: Operator, gates: int, source: Any, hidden: Any, weights: Sequence[Operand],
    biases: Sequence[Operand], inputs: Sequence[Operand] = (), state: Sequence[Operand] = (),
) -> Any:  # fmt: skip
    """Unify the parameters of one layer in one direction; returns its axis of hidden units.

    ``inputs`` and ``state`` are what the weights are multiplied with, where that is an operand.
    """
    units = op.new(weights[0][0].size // gates)
    rows = op.product(op.fixed(gates, "gates of a recurrent layer"), units) if gates > 1 else units
    for tensor in (*weights, *biases):
        op.unify(rows, tensor[0])
    op.sum_over(op.unify(source, weights[0][1]), *inputs, weights[0])
    op.sum_over(op.unify(hidden, weights[1][1]), *state, weights[1])
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
            weights = params[start : start + 2]
            biases = params[start + 2 : start + 2 + 2 * has_biases]
            inputs = () if layer else (input,)
            units = _cell(op, gates, source, hidden, weights, biases, inputs)
            op.unify(units, cell)
            if projected:
                # torch tells a projected stack by its two widths: they must not become equal.
                projection = params[start + each - 1]
                op.keep_at_least(units, projection[0].size + 1)
                if units.size == projection[0].size + 1:
                    op.pin(units, "the units of a recurrent layer are more than its projection has")
                op.sum_over(op.unify(units, projection[1]), projection)
                op.unify(hidden, projection[0])
            else:
                op.unify(units, hidden)
            outs.append(hidden)
        source = op.concat(outs)
    for state in hx:
        op.pin(state[0], "layers and directions of a recurrent stack")
    return source, hidden, cell


def _sequence(
    op: Operator, gates: int, input: Operand, hx: Sequence[Operand], params: Sequence[Operand],
    settings: Sequence[Any],
) -> Any:  # fmt: skip
    has_biases, num_layers, _, _, bidirectional, *_ = settings
    out, hidden, cell = _layers(op, gates, input, hx, params, has_biases, num_layers, bidirectional)
    op.pin(input[:-1], STEPS)
    for state in hx:
        op.pin(state[:-1], STEPS)
    lead = [op.fixed(n, STEPS) for n in op.shape[:-1]]
    states = [[*state[:-1], axis] for state, axis in zip(hx, (hidden, cell), strict=False)]
    return [[*lead, out], *states]


def _register_sequences(gates: int, *names: str) -> None:
    """Rules of ``layer.input`` (a padded batch) and ``layer.data`` (a packed one)."""
    packets = aten(*names)

    @register_rule(*(packet.input for packet in packets), flow=_state_stays_zero)
    def padded(op: Operator, input: Operand, hx: Any, params: Any, *settings: Any) -> Any:
        states = hx if isinstance(hx, (list, tuple)) else [hx]
        return _sequence(op, gates, input, states, params, settings)

    @register_rule(*(packet.data for packet in packets), flow=_state_stays_zero)
    def packed(
        op: Operator, input: Operand, batch_sizes: Operand, hx: Any, params: Any, *settings: Any
    ) -> Any:
        op.pin(batch_sizes, STEPS)
        states = hx if isinstance(hx, (list, tuple)) else [hx]
        return _sequence(op, gates, input, states, params, settings)


_register_sequences(4, "lstm")
_register_sequences(3, "gru")
_register_sequences(1, "rnn_tanh", "rnn_relu")


@register_rule(*aten("_pack_padded_sequence"), flow=keeps)
def pack_padded_sequence(op: Operator, input: Operand, lengths: Operand, batch_first: bool) -> Any:
    op.pin([*input[:2], *lengths], STEPS)
    lead, sizes = (op.fixed(shape[0], STEPS) for shape in op.shapes)
    return [[lead, *input[2:]], [sizes]]


def _pads(flow: Flow) -> Signal:
    return keeps(flow) if flow.arguments["padding_value"] == 0 else loses(flow)


@register_rule(*aten("_pad_packed_sequence"), flow=_pads)
def pad_packed_sequence(
    op: Operator, input: Operand, batch_sizes: Operand, batch_first: bool, padding_value: float,
    total_length: int,
) -> Any:  # fmt: skip
    op.pin([input[0], *batch_sizes], STEPS)
    lead = [op.fixed(n, STEPS) for n in op.shape[:2]]
    return [[*lead, *input[1:]], [op.fixed(op.shapes[1][0], STEPS)]]


def _step(
    op: Operator, gates: int, input: Operand, hx: Operand, weights: Sequence[Operand],
    biases: Sequence[Operand | None],
) -> list[Any]:  # fmt: skip
    given = [bias for bias in biases if bias is not None]
    units = _cell(op, gates, input[-1], hx[-1], weights, given, (input,), (hx,))
    return [*op.broadcast(input[:-1], hx[:-1]), op.unify(units, hx[-1])]


@register_rule(*aten("lstm_cell"), flow=_state_stays_zero)
def lstm_cell(
    op: Operator, input: Operand, hx: Sequence[Operand], w_ih: Operand, w_hh: Operand,
    b_ih: Operand | None = None, b_hh: Operand | None = None,
) -> Any:  # fmt: skip
    result = _step(op, 4, input, hx[0], [w_ih, w_hh], [b_ih, b_hh])
    return [op.broadcast(result, hx[1])] * 2


def _register_cells(gates: int, *names: str) -> None:
    @register_rule(*aten(*names), flow=_state_stays_zero)
    def cell(
        op: Operator, input: Operand, hx: Operand, w_ih: Operand, w_hh: Operand,
        b_ih: Operand | None = None, b_hh: Operand | None = None,
    ) -> Any:  # fmt: skip
        return _step(op, gates, input, hx, [w_ih, w_hh], [b_ih, b_hh])


_register_cells(3, "gru_cell")
_register_cells(1, "rnn_tanh_cell", "rnn_relu_cell")
