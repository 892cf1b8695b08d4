"""Networks and a loop that tests of criteria share."""

import torch
from torch import nn

from secateur import LossAwareCriterion, PruningIR


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3))


def image_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 10, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5),
    )  # fmt: skip


def squared(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


def collected(model: nn.Module, batches: list[torch.Tensor], **settings: object) -> dict[str, torch.Tensor]:
    with LossAwareCriterion(PruningIR(model), **settings) as collect:
        for batch in batches:
            squared(collect(batch)).backward()
    return collect.scores


class Residual(nn.Module):
    """A stream that three layers read and two write, with an embedding that is its own decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.decoder = nn.Linear(6, 11, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor, gate: torch.Tensor | float = 1.0) -> torch.Tensor:
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(x * gate)))
        return self.decoder(x * gate)
