"""Calls that lead to the rules of ``axes/rules/recurrent.py``."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ._tensors import t

aten = torch.ops.aten
KINDS = (
    {}, {"bidirectional": True}, {"num_layers": 2, "bias": False}, {"batch_first": True},
    {"num_layers": 2, "bidirectional": True},
)  # fmt: skip


def _ready(module: nn.Module) -> nn.Module:
    module = module.double().eval()
    for parameter in module.parameters():
        parameter.data = t(*parameter.shape)
    return module


def layers() -> None:
    """Stacked, in both directions, without bias, projected, with and without a given state."""
    for kind in KINDS:
        for layer in (nn.LSTM, nn.GRU, nn.RNN):
            _ready(layer(4, 3, **kind))(t(5, 2, 4))
        _ready(nn.LSTM(5, 7, proj_size=2, **kind))(t(6, 2, 5))
    _ready(nn.RNN(4, 3, nonlinearity="relu"))(t(5, 2, 4))
    _ready(nn.RNN(4, 3, nonlinearity="relu"))(t(5, 2, 4), t(1, 2, 3))
    _ready(nn.LSTM(4, 3))(t(5, 2, 4), (t(1, 2, 3), t(1, 2, 3)))
    _ready(nn.GRU(4, 3, 2))(t(5, 4), t(2, 3))


def packed() -> None:
    """Sequences of different lengths."""
    for batch_first in (False, True):
        shape = (3, 5, 4) if batch_first else (5, 3, 4)
        sequence = pack_padded_sequence(t(*shape), torch.tensor([5, 3, 2]), batch_first)
        for layer in (nn.LSTM, nn.GRU, nn.RNN):
            pad_packed_sequence(_ready(layer(4, 3))(sequence)[0], batch_first)
        _ready(nn.RNN(4, 3, nonlinearity="relu"))(sequence)
        _ready(nn.LSTM(4, 3, 2, bidirectional=True))(sequence)
        pad_packed_sequence(sequence, batch_first, padding_value=2.0, total_length=6)


def cells() -> None:
    """One step."""
    for bias in (True, False):
        _ready(nn.LSTMCell(4, 3, bias))(t(2, 4))
        _ready(nn.LSTMCell(4, 3, bias))(t(2, 4), (t(2, 3), t(2, 3)))
        _ready(nn.GRUCell(4, 3, bias))(t(2, 4), t(2, 3))
        for nonlinearity in ("tanh", "relu"):
            _ready(nn.RNNCell(4, 3, bias, nonlinearity))(t(2, 4), t(2, 3))
