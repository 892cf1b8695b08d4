"""Means and root mean squares over an axis that is cut: parameters make up for them, or the group says so."""

from typing import Any

import pytest
import torch
from torch import nn

from oracle import check_cut, random_labels, randomise, snapshot_of
from secateur import PruningIR

EPS = 1e-2  # so large that a norm whose epsilon weighs otherwise would be seen


class ByHand(nn.Module):
    """RMSNorm as language models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


class Divided(ByHand):
    """The same with a root and a division."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * self.weight


NORMS: dict[str, Any] = {
    "by hand": ByHand,
    "divided": Divided,
    "native": lambda width: nn.RMSNorm(width, eps=EPS),
    "native without gains": lambda width: nn.RMSNorm(width, eps=EPS, elementwise_affine=False),
}


class Stream(nn.Module):
    """A residual stream that norms read: what writes into it can shrink, what reads it can grow."""

    def __init__(self, norm: Any, tied: bool, activation: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.first, self.last = norm(8), norm(8)
        self.up, self.down, self.activation = nn.Linear(8, 6), nn.Linear(6, 8), activation
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        x = x + self.down(self.activation(self.up(self.first(x))))
        return self.head(self.last(x))


IDS = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(0))


def cut_exactly(model: nn.Module, args: tuple[Any, ...]) -> PruningIR:
    ir = snapshot_of(randomise(model.double()), args)
    assert [group.reasons for group in ir.groups()] == [[]] * len(ir.groups())
    for share in (0.5, None):
        check_cut(ir, random_labels(ir.groups(), 1, share), args, exact=True)
    return ir


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()], ids=["relu", "gelu"])
def test_the_width_of_a_residual_stream_goes_exactly(norm: str, activation: nn.Module) -> None:
    ir = cut_exactly(Stream(NORMS[norm], False, activation), (IDS,))
    assert {group.size for group in ir.groups()} == {8, 6}


@pytest.mark.parametrize("norm", ["by hand", "native"])
def test_tied_embeddings_are_scaled_once(norm: str) -> None:
    ir = cut_exactly(Stream(NORMS[norm], True, nn.GELU()), (IDS,))
    small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    assert small.head.weight is small.words.weight


def test_without_gains_and_with_a_tied_head_nothing_can_make_up() -> None:
    """The stream has to shrink, the head with it, and there is nothing between them that could grow."""
    ir = snapshot_of(randomise(Stream(NORMS["native without gains"], True, nn.GELU()).double()), (IDS,))
    inexact = {group.size: group.reasons for group in ir.groups() if group.reasons}
    assert inexact.keys() == {8}
    assert "RMSNorm's mean square is taken over it" in inexact[8][0]


class Averaged(nn.Module):
    """A mean over features that a layer reads, or that goes out as it is."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(4, 8), nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        if self.how == "dirty":
            x = x.cos()
        mean = x.mean(-1, keepdim=True)
        return mean if self.how == "output" else self.b(mean.tanh() if self.how == "bent" else mean)


def test_a_mean_that_a_layer_reads() -> None:
    cut_exactly(Averaged("plain"), (torch.randn(2, 4, dtype=torch.float64),))


def test_a_mean_scales_what_makes_it_where_nothing_behind_it_can() -> None:
    cut_exactly(Averaged("output"), (torch.randn(2, 4, dtype=torch.float64),))
    cut_exactly(Averaged("bent"), (torch.randn(2, 4, dtype=torch.float64),))


def test_a_mean_of_what_is_not_zero_where_it_is_masked() -> None:
    ir = snapshot_of(randomise(Averaged("dirty").double()), (torch.randn(2, 4, dtype=torch.float64),))
    (group,) = ir.groups()
    assert "masked positions are not zero" in group.reasons[0]
