"""The dimension algebra: canonical forms, unification with refinement, cuts, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.axes import (
    UNIT,
    Algebra,
    Concat,
    Dim,
    Leaf,
    balanced_sizes,
    concat,
    kept,
    kept_size,
    leaf,
    product,
)


def sizes(dim: Dim) -> str:
    return repr(dim)


@pytest.fixture
def algebra() -> Algebra:
    return Algebra()


def test_canonical_forms() -> None:
    assert product([UNIT, UNIT]) is UNIT
    assert sizes(product([leaf(2), UNIT, product([leaf(3), leaf(4)])])) == "(2 3 4)"
    assert sizes(concat([leaf(2), concat([leaf(3), leaf(4)])])) == "[2 + 3 + 4]"
    assert sizes(product([concat([leaf(2), leaf(3)]), leaf(4)])) == "[(2 4) + (3 4)]"
    assert product([leaf(2), leaf(0)]).size == 0


def test_leaves_join(algebra: Algebra) -> None:
    a, b, c = leaf(5), leaf(5), leaf(5)
    algebra.unify(a, b)
    algebra.unify(c, b)
    assert algebra.resolve(a) is algebra.resolve(b) is algebra.resolve(c)


def test_factors_are_split_at_finer_boundaries(algebra: Algebra) -> None:
    a, b = product([leaf(4), leaf(16)]), product([leaf(8), leaf(8)])
    algebra.unify(a, b)
    assert sizes(algebra.resolve(a)) == sizes(algebra.resolve(b)) == "(4 2 8)"
    assert algebra.pins == []


def test_factors_that_do_not_align_are_pinned(algebra: Algebra) -> None:
    a, b = product([leaf(4), leaf(9)]), product([leaf(6), leaf(6)])
    algebra.unify(a, b)
    assert [why for _, why, _ in algebra.pins] == ["the factors (4 9) and (6 6) do not align"] * 2


def test_sizes_that_differ_are_pinned(algebra: Algebra) -> None:
    algebra.unify(leaf(4), leaf(5))
    assert [why for _, why, _ in algebra.pins] == ["sizes 4 and 5 differ"] * 2


def test_parts_are_cut_where_the_other_is(algebra: Algebra) -> None:
    a, b = concat([leaf(2), leaf(6)]), concat([leaf(5), leaf(3)])
    algebra.unify(a, b)
    assert sizes(algebra.resolve(a)) == sizes(algebra.resolve(b)) == "[2 + 3 + 3]"


def test_product_is_cut_along_its_outermost_factor(algebra: Algebra) -> None:
    # A fused projection of size 3 h d, split in three: three times the same (h d).
    fused = product([leaf(12), leaf(8)])
    q, k, v = algebra.cut(fused, [32, 32, 32])
    assert sizes(algebra.resolve(fused)) == "[(4 8) + (4 8) + (4 8)]"
    inner = [algebra.resolve(piece).factors[1] for piece in (q, k, v)]
    assert inner[0] is inner[1] is inner[2]


def test_cut_inside_an_inner_factor_is_pinned(algebra: Algebra) -> None:
    pieces = algebra.cut(product([leaf(4), leaf(8)]), [12, 20])
    assert [piece.size for piece in pieces] == [12, 20]
    assert all("falls inside a factor" in why for _, why, _ in algebra.pins)


@pytest.mark.parametrize("size", [3, 40, 100_000])
def test_axis_laid_against_itself_shifted(algebra: Algebra, size: int) -> None:
    # x[1:] - x[:-1]: each cut would make another, down to single positions.
    x = leaf(size)
    tail = algebra.cut(x, [1, size - 1])[1]
    head = algebra.cut(x, [size - 1, 1])[0]
    algebra.unify(head, tail)
    pinned = {axis for dim, _, _ in algebra.pins for axis in algebra.leaves(dim)}
    assert set(algebra.leaves(x)) <= pinned
    assert isinstance(whole := algebra.resolve(x), Concat) and len(whole.parts) < 64


def test_halves_that_change_places(algebra: Algebra) -> None:
    x = leaf(8)
    a, b = algebra.cut(x, [4, 4])
    algebra.unify(x, concat([b, a]))
    left, right = algebra.resolve(x).parts
    assert left is right
    assert algebra.pins == []


def dims() -> st.SearchStrategy[Dim]:
    leaves = st.integers(2, 5).map(leaf)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, min_size=2, max_size=3).flatmap(
            lambda items: st.sampled_from([product(items), concat(items)])
        ),
        max_leaves=5,
    )


@given(dims(), st.data())
def test_kept_positions_are_those_of_the_numbered_dimension(dim: Dim, data: st.DataObject) -> None:
    """kept() against a brute force: number the positions of every leaf, and look."""
    algebra = Algebra()
    keep = {}
    for axis in dict.fromkeys(algebra.leaves(dim)):
        stays = data.draw(st.sets(st.integers(0, axis.size - 1), min_size=1))
        keep[axis] = np.array(sorted(stays))
    alive = _alive(dim, keep)
    expected = np.flatnonzero(alive)
    stays = kept(dim, keep)
    assert (np.arange(dim.size) if stays is None else stays).tolist() == expected.tolist()
    assert kept_size(dim, keep) == len(expected)


def _alive(dim: Dim, keep: dict) -> np.ndarray:
    if dim in keep:
        return np.isin(np.arange(dim.size), keep[dim])
    if isinstance(dim, Concat):
        return np.concatenate([_alive(part, keep) for part in dim.parts])
    alive = np.array([True])
    for factor in dim.factors:
        alive = np.logical_and.outer(alive, _alive(factor, keep)).reshape(-1)
    return alive


@given(dims(), st.data())
def test_refinement_keeps_every_position_in_its_place(dim: Dim, data: st.DataObject) -> None:
    """Cutting a dimension anywhere it can be cut leaves pieces that make it up again."""
    algebra = Algebra()
    at = data.draw(st.integers(0, dim.size))
    first, second = algebra.cut(dim, [at, dim.size - at])
    assert (first.size, second.size) == (at, dim.size - at)
    if not algebra.pins:
        again = algebra.resolve(concat([algebra.resolve(first), algebra.resolve(second)]))
        assert repr(again) == repr(algebra.resolve(dim))


def test_a_sum_grows_evenly() -> None:
    """One piece after the other, 38 a head was never four equal pieces, and everything grew back."""
    pieces, heads, features = [Leaf(76) for _ in range(4)], Leaf(8), Leaf(38)
    wanted = dict.fromkeys([*pieces, heads], 1)
    sizes = balanced_sizes([pieces, [product([heads, features]), concat(pieces)]], wanted)
    assert sizes[heads] == 2
    assert [sizes[piece] for piece in pieces] == [19] * 4
