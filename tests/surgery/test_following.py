"""Code that does not say outright what has to follow: assertions, branches, strides, stacks of layers."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from oracle import check_cut, random_labels, randomise, snapshot_of
from secateur.surgery import Followed

ROWS = (torch.randn(2, 5, dtype=torch.float64),)
TOKENS = (torch.randn(2, 6, 5, dtype=torch.float64),)


class Asserting(nn.Module):
    """Compares the width that comes in with an attribute, before any operator sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 7)
        self.last = nn.Linear(7, 3)
        self.width = 12

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if x.shape[-1] != self.width:
            raise ValueError(f"a width of {self.width} is expected, got {x.shape[-1]}")
        return self.last(self.second(x).relu())


class Branching(Asserting):
    """Takes another path where the width that comes in is not that of an attribute."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x.relu() if x.shape[-1] == self.width else x.tanh()
        return self.last(self.second(x).relu())


@pytest.mark.parametrize("kind", [Asserting, Branching])
def test_an_attribute_that_no_call_reads_is_found_where_the_run_ends(kind: type[Asserting]) -> None:
    ir = snapshot_of(randomise(kind().double()), ROWS)
    assert sorted(group.size for group in ir.groups()) == [7, 12]
    small = check_cut(ir, random_labels(ir.groups(), 0, 0.5), ROWS, exact=True)
    assert small.width == 6


class Strided(nn.Module):
    """Reads strides of a tensor that does not lie in memory as its dimensions say."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.inner = nn.Linear(4, 9)
        self.last = nn.Linear(9, 3)
        self.table = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.table.t()
        view = turned.as_strided(turned.shape, turned.stride())
        return self.last(self.inner(view).relu()).mean(0) + self.first(x).sum()


def test_recorded_strides_are_those_of_a_replay() -> None:
    ir = snapshot_of(randomise(Strided().double()), ROWS)
    assert {group.size for group in ir.groups()} >= {8, 9, 4}  # of the view, too
    exact = [group for group in ir.groups() if group.exact]
    check_cut(ir, random_labels(exact, 0, 0.5), ROWS, exact=True)


class Layer(nn.Module):
    """Attention whose code takes another path if its keys are not as wide as its values."""

    def __init__(self, width: int, heads: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.q = nn.Linear(width, heads * features)
        self.k = nn.Linear(width, heads * features)
        self.v = nn.Linear(width, heads * features)
        self.out = nn.Linear(heads * features, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, self.features)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if k.shape[-1] != v.shape[-1]:
            raise ValueError("keys and values of one width are needed")
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).flatten(2))


def replays_of(depth: int, monkeypatch: pytest.MonkeyPatch) -> int:
    count = 0
    replay: Callable[..., Any] = Followed.replay

    def counted(self: Followed, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return replay(self, *args, **kwargs)

    layers: Iterable[nn.Module] = (Layer(12, 3, 8) for _ in range(depth))
    ir = snapshot_of(randomise(nn.Sequential(nn.Linear(5, 12), *layers, nn.Linear(12, 2)).double()), TOKENS)
    with monkeypatch.context() as patch:
        patch.setattr(Followed, "replay", counted)
        assert ir.reach() > 0.9
    check_cut(ir, random_labels(ir.groups(), 0, 0.5), TOKENS, exact=True)
    return count


def test_what_one_layer_taught_is_foreseen_for_all_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends in the first layer of a stack was repeated for each layer."""
    assert replays_of(12, monkeypatch) == replays_of(6, monkeypatch)


class Written(nn.Module):
    """Makes a tensor of its own and writes into it; the call's result is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.heads = nn.Linear(5, 12), 3
        self.last = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = torch.tensor([1.0, 2.0], dtype=x.dtype)
        shift.mul_(2.0)
        x = self.first(x).view(2, self.heads, -1)
        return self.last((x * shift[:, None, None]).view(2, -1))


def test_a_tensor_of_the_codes_own_may_be_written_into() -> None:
    ir = snapshot_of(randomise(Written().double()), ROWS)
    assert ir.groups()
    check_cut(ir, random_labels(ir.groups(), 0, 0.5), ROWS, exact=True)
