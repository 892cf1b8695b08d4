"""Recurrences over images and between encoders and decoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Block, Chooser, block


@block("image")
class ConvolutionalMemory(Block):
    """A convolutional LSTM or GRU over two steps."""

    def __init__(self, width: int, hidden: int, how: str) -> None:
        super().__init__()
        self.hidden, self.how = hidden, how
        gates = 4 if how != "gru" else 2
        self.gates = nn.Conv2d(width + hidden, gates * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(width + hidden, hidden, 3, padding=1)
        self.out_width = hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], self.hidden, *x.shape[2:], dtype=x.dtype, device=x.device)
        c = torch.zeros_like(h)
        for _ in range(2):
            made = self.gates(torch.cat([x, h], dim=1))
            if self.how == "gru":
                reset, update = made.sigmoid().split(self.hidden, 1)
                new = self.candidate(torch.cat((x, reset * h), 1)).tanh()
                h = (1 - update) * h + update * new
                continue
            if self.how == "view":
                i, f, o, g = made.view(x.shape[0], 4, self.hidden, *x.shape[2:]).unbind(1)
            else:
                i, f, o, g = torch.chunk(made, 4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {"hidden": chooser.width(2, 5), "how": chooser.pick("chunk", "view", "gru")}


@block("sequence")
class EncoderDecoder(Block):
    """A recurrent decoder that starts where a recurrent encoder ended."""

    def __init__(self, width: int, hidden: int, cell: str, how: str) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.how, self.lstm = how, cell == "lstm"
        self.encoder = kind(width, hidden, batch_first=True, bidirectional=how == "both")
        self.decoder = kind(width, hidden, batch_first=True)
        self.bridge = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.out_width = hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(x)
        h = state[0] if self.lstm else state
        h = h.sum(0, keepdim=True) if self.how == "both" else h
        if self.how == "bridge":
            h = torch.tanh(self.bridge(h))
        start = (h.contiguous(), torch.zeros_like(h)) if self.lstm else h.contiguous()
        made, _ = self.decoder(x, start)
        if self.how == "additive":
            weights = self.score(torch.tanh(memory.unsqueeze(1) + made.unsqueeze(2))).softmax(2)
            return made + (weights * memory.unsqueeze(1)).sum(2)
        if self.how == "dot":
            return made + F.softmax(made @ memory.mT, -1) @ memory
        return F.relu(made)

    @staticmethod
    def draw(chooser: Chooser, width: int) -> dict[str, Any]:
        return {
            "hidden": chooser.width(2, 5),
            "cell": chooser.pick("lstm", "gru"),
            "how": chooser.pick("plain", "bridge", "both", "dot", "additive"),
        }
