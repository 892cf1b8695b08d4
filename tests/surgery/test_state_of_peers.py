"""State that other pruning libraries lose or leak, kept. Each was seen to go wrong in one of them."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur
from oracle import randomise, snapshot_of
from secateur import ChannelsConstraint, UniformLabelSelector


class Block(nn.Module):
    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1, groups=groups)
        self.leave = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.middle(self.enter(x).relu()).relu())


X = torch.randn(1, 3, 8, 8)


def pruned_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    small, _ = secateur.prune(model, (X,), ratio=0.5)
    return {name: tuple(p.shape) for name, p in small.named_parameters()}


def test_a_model_with_groups_does_not_change_how_the_next_model_is_cut() -> None:
    """Default arguments that are written into would carry the first model's groups over to the second."""
    alone = pruned_shapes(Block())
    pruned_shapes(Block(groups=4))
    assert pruned_shapes(Block()) == alone
    assert alone["middle.weight"] == (8, 8, 3, 3)


def test_two_analyses_at_once_do_not_meet() -> None:
    first, second = snapshot_of(Block(), (X,)), snapshot_of(Block(groups=4), (X,))
    labels = [UniformLabelSelector(0.5).select(ir) for ir in (first, second)]
    shapes = [
        {name: tuple(p.shape) for name, p in ir.prune(labels=chosen).model.named_parameters()}
        for ir, chosen in zip((second, first), reversed(labels), strict=True)
    ]
    assert shapes == [pruned_shapes(Block(groups=4)), pruned_shapes(Block())]


def test_a_loaded_model_shares_nothing_with_the_one_it_is_loaded_into(tmp_path: Any) -> None:
    small, _ = secateur.prune(randomise(Block()), (X,), ratio=0.5)
    secateur.save(small, tmp_path / "small.safetensors")
    original = Block()
    loaded: Any = secateur.load(lambda: original, tmp_path / "small.safetensors")
    modules, tensors = set(original.modules()), {p.data_ptr() for p in original.parameters()}
    assert modules.isdisjoint(loaded.modules())
    assert tensors.isdisjoint(p.data_ptr() for p in loaded.parameters())
    assert original.enter.out_channels == 16
    assert torch.equal(loaded(X), small(X))


def test_weights_alone_can_be_loaded_without_unpickling(tmp_path: Any) -> None:
    small, _ = secateur.prune(randomise(Block()), (X,), ratio=0.5)
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {name: t.shape for name, t in state.items()} == {n: p.shape for n, p in small.named_parameters()}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 8
        self.qkv, self.out = nn.Linear(6, 3 * 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def test_heads_alone_can_be_cut() -> None:
    ir = snapshot_of(randomise(Attention()), (torch.randn(2, 3, 6),))
    heads = [group for group in ir.groups() if group.role == "heads"]
    small = ir.prune(labels=UniformLabelSelector({group.name: 0.5 for group in heads}).select(ir)).model
    assert (small.heads, small.width) == (2, 8)
    assert small.qkv.weight.shape == (3 * 16, 6)


@pytest.mark.parametrize(
    ("ratio", "round_to", "width"), [(0.5, 1, 8), (0.3, 4, 12), (0.3, 1, 12), (0.9, 4, 4)]
)
def test_the_ratio_asked_for_is_the_ratio_that_comes_out(ratio: float, round_to: int, width: int) -> None:
    """Rounding keeps more, never less: 0.3 of 16 is 4, and what stays is a multiple."""
    small, report = secateur.prune(randomise(Block()), (X,), ratio=ratio, round_to=round_to)
    assert (small.enter.out_channels, small.middle.out_channels) == (width, width)
    assert report.parameters[1] == sum(p.numel() for p in small.parameters())


def test_the_least_width_holds_in_global_ranking_too() -> None:
    model = randomise(Block())
    with torch.no_grad():
        model.enter.weight.mul_(1e-6)  # globally, everything of the first layer would go
        model.enter.bias.mul_(1e-6)
        model.middle.weight.mul_(1e-6)
    ir = snapshot_of(model, (X,))
    selector = secateur.GlobalScoreLabelSelector(0.6, channels_constraint=ChannelsConstraint(minimum=6))
    assert ir.prune(labels=selector.select(ir)).model.enter.out_channels == 6


def test_an_error_of_the_models_own_is_not_hidden() -> None:
    class Failing(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("what the user wrote")

    with pytest.raises(secateur.CaptureError, match="what the user wrote") as raised:
        secateur.prune(Failing(), (X,))
    assert isinstance(raised.value.__cause__, ValueError)
