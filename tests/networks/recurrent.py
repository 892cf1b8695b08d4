"""Recurrent layers, and recurrences written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("sequence")
class Recurrent(Block):
    """LSTM, GRU and RNN: stacked, bidirectional, projected; their outputs or last states."""

    def __init__(
        self, width: int, hidden: int, cell: str, layers: int, bidirectional: bool, bias: bool, use: str,
        proj: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "relu": nn.RNN}[cell]
        more: dict[str, Any] = {"nonlinearity": "relu"} if cell == "relu" else {}
        if proj and cell == "lstm":
            more["proj_size"] = proj
        self.rnn = kind(
            width, hidden, layers, bias=bias, batch_first=True, bidirectional=bidirectional, **more
        )
        self.use, self.lstm = use, cell == "lstm"
        out = more.get("proj_size", hidden)
        self.out_width = out * (2 if bidirectional else 1) if use != "state" else out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.use == "length_first":
            self.rnn.batch_first = False
            made, _ = self.rnn(x.transpose(0, 1).contiguous())
            self.rnn.batch_first = True
            return made.transpose(0, 1)
        made, state = self.rnn(x)
        if self.use == "state":
            last = (state[0] if self.lstm else state)[-1]
            return last[:, None, :].expand(-1, x.shape[1], -1)
        if self.use == "last":
            return made[:, -1:, :].repeat(1, x.shape[1], 1)
        return made

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        hidden = chooser.width(2, 6)
        return {
            "hidden": hidden,
            "cell": chooser.pick("lstm", "gru", "rnn", "relu"),
            "layers": chooser.pick(1, 2),
            "bidirectional": chooser.pick(False, True),
            "bias": chooser.pick(True, False),
            "use": chooser.pick("all", "last", "state", "length_first"),
            "proj": chooser.pick(0, hidden - 1),
        }


@block("sequence")
class Stepped(Block):
    """A cell called in a loop, with a state that starts at zero, at a parameter, or at the input."""

    def __init__(self, width: int, hidden: int, cell: str, start: str) -> None:
        super().__init__()
        self.cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[cell](width, hidden)
        self.lstm, self.start, self.hidden_size = cell == "lstm", start, hidden
        self.initial = nn.Parameter(torch.zeros(hidden))
        self.enter = nn.Linear(width, hidden)
        self.out_width = hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.start == "zero":
            h = x.new_zeros(x.shape[0], self.hidden_size)
        elif self.start == "parameter":
            h = self.initial.expand(x.shape[0], -1)
        else:
            h = torch.tanh(self.enter(x.mean(1)))
        c, made = torch.zeros_like(h), []
        for t in range(3):
            if self.lstm:
                h, c = self.cell(x[:, t], (h, c))
            else:
                h = self.cell(x[:, t], h)
            made.append(h)
        return torch.stack([*made, *made], dim=1)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "hidden": chooser.width(),
            "cell": chooser.pick("lstm", "gru", "rnn"),
            "start": chooser.pick("zero", "parameter", "input"),
        }


@block("sequence")
class StateSpace(Block):
    """The reference path of Mamba, scanned step by step."""

    def __init__(self, width: int, inner: int, state: int, rank: int) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 2, groups=inner, padding=1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.rand(inner, state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.out_width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., :n].transpose(1, 2))
        dt, b, c = self.x_proj(u).split(self.sizes, dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        a = -torch.exp(self.A_log)
        decay = torch.exp(dt.unsqueeze(-1) * a)
        drive = dt.unsqueeze(-1) * b.unsqueeze(2) * u.unsqueeze(-1)
        h = torch.zeros_like(drive[:, 0])
        made = []
        for t in range(n):
            h = decay[:, t] * h + drive[:, t]
            made.append((h @ c[:, t].unsqueeze(-1)).squeeze(-1))
        y = torch.stack(made, 1) + u * self.D
        return x + self.out_proj(y * F.silu(z))

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"inner": chooser.width(), "state": chooser.pick(2, 3), "rank": chooser.pick(1, 2)}
