"""Methods that torch does not have: several dimensions, blocks, N of M, scores, global channels, amounts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur import masks as prune


def conv(out: int = 4, into: int = 6, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel)


def dead(layer: nn.Module, *dims: int) -> torch.Tensor:
    """Which units (positions in the dimensions that are not named) are masked altogether."""
    return (
        (layer.weight_mask == 0).all(dim=dims) if len(dims) == 1 else (layer.weight_mask != 0).sum(dims) == 0
    )


def test_kernels_are_pruned_by_two_dimensions() -> None:
    layer = conv()
    norms = layer.weight.detach().flatten(2).norm(dim=2)
    prune.ln_structured(layer, "weight", amount=0.25, n=2, dim=(0, 1))
    gone = dead(layer, 2, 3)
    assert int(gone.sum()) == 6
    assert norms[gone].max() < norms[~gone].min()
    assert int((layer.weight_mask == 0).sum()) == 6 * 9
    prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=(0, -3))  # half of the 18 that are left
    assert int(dead(layer, 2, 3).sum()) == 15


def test_positions_of_the_kernel_and_single_dimensions_as_a_tuple() -> None:
    layer = conv()
    prune.ln_structured(layer, "weight", amount=4, n=1, dim=(2, 3))
    assert int(dead(layer, 0, 1).sum()) == 4
    one, same = conv(), conv()
    same.load_state_dict(one.state_dict())
    prune.ln_structured(one, "weight", 0.5, n=2, dim=0)
    prune.ln_structured(same, "weight", 0.5, n=2, dim=(0,))
    assert torch.equal(one.weight_mask, same.weight_mask)


def test_random_kernels_follow_the_seed() -> None:
    def mask() -> torch.Tensor:
        torch.manual_seed(3)
        layer = conv()
        prune.random_structured(layer, "weight", 5, dim=(0, 1))
        return layer.weight_mask

    assert torch.equal(mask(), mask())
    assert int((mask().sum((2, 3)) == 0).sum()) == 5


@pytest.mark.parametrize("dim", [(), (0, 0), (0, -4), (4,)])
def test_dimensions_that_are_none(dim: tuple[int, ...]) -> None:
    layer = conv()
    with pytest.raises(IndexError):
        prune.ln_structured(layer, "weight", 1, n=2, dim=dim)
    assert not prune.is_pruned(layer)


def test_blocks() -> None:
    layer = nn.Linear(8, 8)
    layer.weight.data = torch.arange(64.0).view(8, 8)
    prune.ln_blocks(layer, "weight", amount=0.25, n=1, block=(4, 4))
    assert layer.weight_mask[:4, :4].sum() == 0
    assert layer.weight_mask.sum() == 48
    rows = nn.Linear(8, 8)
    prune.ln_blocks(rows, "weight", amount=1, n=2, block=(2, -1))
    assert int((rows.weight_mask.sum(1) == 0).sum()) == 2


def test_two_of_four() -> None:
    layer = nn.Linear(16, 8)
    prune.n_of_m(layer, "weight", 2, 4)
    groups = layer.weight_mask.view(8, 4, 4)
    assert bool((groups.sum(-1) == 2).all())
    values = layer.weight_orig.detach().abs().view(8, 4, 4)
    assert bool(((values * groups).amax(-1) >= (values * (1 - groups)).amax(-1)).all())
    smallest_kept = values.masked_fill(groups == 0, torch.inf).amin(-1)
    assert bool((smallest_kept >= (values * (1 - groups)).amax(-1)).all())


def test_n_of_m_along_another_dimension_counts_what_is_masked_already() -> None:
    layer = nn.Conv2d(4, 8, 1)
    prune.ln_structured(layer, "weight", 2, n=2, dim=0)
    before = layer.weight_mask.clone()
    prune.n_of_m(layer, "weight", 1, 4, dim=0)
    assert bool((layer.weight_mask[before == 0] == 0).all())
    assert int(layer.weight_mask.view(2, 4, 4).sum(1).max()) == 1
    prune.n_of_m(layer, "weight", 1, 4, dim=0)  # nothing is left to do
    assert int(layer.weight_mask.sum()) == 8
    for n, m in ((0, 4), (4, 4)):
        with pytest.raises(secateur.MaskError, match="0 < n < m"):
            prune.n_of_m(layer, "weight", n, m)


@pytest.mark.parametrize(
    "shape", [(4,), (4, 1, 1, 1), (4, 6, 1, 1), (1, 6, 1, 1), (4, 6, 3, 3), (2, 1, 1, 1)]
)
def test_scores_of_ones_own_say_what_a_unit_is(shape: tuple[int, ...]) -> None:
    layer, scores = conv(), torch.randperm(torch.Size(shape).numel()).view(shape).float() - 5
    prune.by_score(layer, "weight", 2, scores)
    full = scores.view(4, 1, 1, 1) if len(shape) == 1 else scores
    for dim, size in enumerate(layer.weight.shape):
        full = full.repeat_interleave(size // full.shape[dim], dim)
    assert torch.equal(layer.weight_mask == 0, full < -3)  # the lowest two, not the smallest in magnitude


def test_scores_stack_with_what_is_masked() -> None:
    layer = conv()
    prune.by_score(layer, "weight", 1, torch.tensor([0.0, 1, 2, 3]))
    prune.by_score(layer, "weight", 1, torch.tensor([0.0, 1, 2, 3]))
    assert dead(layer, 1, 2, 3).tolist() == [True, True, False, False]


def test_global_channels_are_compared_after_normalisation() -> None:
    small, large = nn.Linear(2, 4), nn.Linear(200, 4)
    with torch.no_grad():
        small.weight.copy_(torch.tensor([4.0, 3, 2, 1])[:, None].expand(4, 2))
        large.weight.copy_(torch.tensor([4.0, 3, 2, 1])[:, None].expand(4, 200) / 2)
    places = [(small, "weight"), (large, "weight")]

    def gone(**options: object) -> tuple[list[int], list[int]]:
        a, b = nn.Linear(2, 4), nn.Linear(200, 4)
        a.load_state_dict(small.state_dict())
        b.load_state_dict(large.state_dict())
        prune.global_structured([(a, "weight"), (b, "weight")], **options)  # type: ignore[arg-type]
        return dead(a, 1).nonzero().flatten().tolist(), dead(b, 1).nonzero().flatten().tolist()

    assert gone(amount=3, normalize="none") == ([1, 2, 3], [])  # long rows have large norms
    assert gone(amount=3) == ([3], [2, 3])  # by magnitude: 1, 0.5, 1
    assert gone(amount=4, normalize="mean") == ([2, 3], [2, 3])  # each relative to its own layer
    with pytest.raises(
        secateur.MaskError, match="7 channels are to go, and 6 can: 8 are left in 2 parameters"
    ):
        prune.global_structured(places, 7)
    with pytest.raises(secateur.MaskError, match="normalize is 'size', 'mean' or 'none', got 'macs'"):
        prune.global_structured(places, 1, normalize="macs")  # type: ignore[arg-type]
    assert not prune.is_pruned(small)


@pytest.mark.parametrize("n", [1, 2, float("inf"), "fro", "nuc"])
@pytest.mark.parametrize("size", [(8, 3), (50, 7)])
def test_normalised_norms_of_equal_entries_are_the_entries(n: object, size: tuple[int, int]) -> None:
    a, b = nn.Linear(size[1], size[0]), nn.Linear(3, 2)
    with torch.no_grad():
        a.weight.fill_(0.5)
        b.weight.copy_(torch.tensor([[0.4] * 3, [0.6] * 3]))
    prune.global_structured([(a, "weight"), (b, "weight")], 1, n=n, keep=1)
    # The nuclear norm of one row is its 2-norm: it is not normalised to an entry, so only others are exact.
    if n != "nuc":
        assert dead(b, 1).tolist() == [True, False]


def test_a_layer_keeps_some_channels_in_a_global_ranking() -> None:
    weak, strong = nn.Linear(3, 6), nn.Linear(3, 6)
    with torch.no_grad():
        weak.weight.mul_(0.01)
    prune.global_structured([(weak, "weight"), (strong, "weight")], 0.5, keep=2)
    assert (int(dead(weak, 1).sum()), int(dead(strong, 1).sum())) == (4, 2)


def test_scores_and_kernels_in_a_global_ranking() -> None:
    a, b = conv(), conv()
    scores = {(a, "weight"): torch.ones_like(a.weight), (b, "weight"): 2 * torch.ones_like(b.weight)}
    prune.global_structured([(a, "weight"), (b, "weight")], 23, dim=(0, 1), importance_scores=scores)
    assert int(dead(a, 2, 3).sum()) == 23
    assert int(dead(b, 2, 3).sum()) == 0
    with pytest.raises(TypeError, match=r"importance_scores is a dict .*, got list"):
        prune.global_structured([(a, "weight")], 1, importance_scores=[1])  # type: ignore[arg-type]
    with pytest.raises(secateur.MaskError, match="no parameter to prune"):
        prune.global_structured([], 1)


def test_amounts_of_the_original_are_what_is_masked_after_the_call() -> None:
    layer = nn.Linear(10, 10)
    masked = []
    for amount in (0.3, 0.5, 0.4, 70):
        prune.l1_unstructured(layer, "weight", amount, of="original")
        masked.append(int((layer.weight_mask == 0).sum()))
    assert masked == [30, 50, 50, 70]
    rows = conv(10)
    for amount, expected in ((0.2, 2), (0.5, 5), (7, 7)):
        prune.ln_structured(rows, "weight", amount, n=2, dim=0, of="original")
        assert int(dead(rows, 1, 2, 3).sum()) == expected
    with pytest.raises(ValueError, match="11"):
        prune.random_structured(rows, "weight", 11, dim=0, of="original")


def test_amounts_of_the_original_in_blocks_scores_and_global_rankings() -> None:
    layer = nn.Linear(8, 8)
    for _ in range(2):
        prune.ln_blocks(layer, "weight", 0.5, n=2, block=(4, 4), of="original")
    assert int((layer.weight_mask == 0).sum()) == 32
    other = nn.Linear(8, 8)
    for _ in range(2):
        prune.by_score(other, "weight", 0.5, torch.arange(8.0), of="original")
    assert int(dead(other, 1).sum()) == 4
    places = [(nn.Linear(4, 5), "weight"), (nn.Linear(4, 5), "weight")]
    for _ in range(2):
        prune.global_unstructured(places, prune.L1Unstructured, amount=0.5, of="original")
    assert sum(int((layer.weight_mask == 0).sum()) for layer, _ in places) == 20
    again = [(nn.Linear(4, 5), "weight"), (nn.Linear(4, 5), "weight")]
    for _ in range(2):
        prune.global_structured(again, 0.4, of="original")
    assert sum(int(dead(layer, 1).sum()) for layer, _ in again) == 4


@settings(max_examples=50)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    dims=st.sets(st.integers(0, 3), min_size=1),
    amount=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_structured_masks_have_whole_units_and_the_right_number(
    shape: list[int], dims: set[int], amount: float, seed: int
) -> None:
    along = tuple(sorted(dim for dim in dims if dim < len(shape))) or (0,)
    layer = nn.Module()
    generator = torch.Generator().manual_seed(seed)
    layer.weight = nn.Parameter(torch.rand(shape, generator=generator) + 0.1)
    prune.ln_structured(layer, "weight", amount, n=2, dim=along)
    rest = [dim for dim in range(len(shape)) if dim not in along]
    mask = layer.weight_mask
    units = mask.amax(rest) if rest else mask
    assert torch.equal(units, mask.amin(rest) if rest else mask)
    assert int((units == 0).sum()) == round(amount * units.numel())
