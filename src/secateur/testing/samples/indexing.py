"""Calls that lead to the rules of ``axes/rules/indexing.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import ints, mask, positive, t

aten = torch.ops.aten


def embeddings() -> None:
    """Tables of rows."""
    F.embedding(ints(7, 3, 4), t(7, 5))
    F.embedding(ints(7, 3), t(7, 5), padding_idx=0)
    aten.embedding_renorm_(t(7, 5), ints(7, 3), 1.0, 2.0)
    for mode in ("sum", "mean", "max"):
        F.embedding_bag(ints(7, 3, 4), t(7, 5), mode=mode)
        F.embedding_bag(ints(7, 6), t(7, 5), torch.tensor([0, 2, 3]), mode=mode, padding_idx=1)
    F.embedding_bag(ints(7, 3, 4), t(7, 5), mode="sum", per_sample_weights=t(3, 4))
    aten.embedding_bag(t(7, 5), ints(7, 6), torch.tensor([0, 2, 3]))
    for name in ("_embedding_bag", "_embedding_bag_forward_only"):
        getattr(aten, name)(t(7, 5), ints(7, 6), torch.tensor([0, 2, 3]))
    F.one_hot(ints(4, 3))


def reading() -> None:
    """Integers, several of them, masks, and both together."""
    x = t(3, 4, 5)
    i, j = ints(3, 6), ints(5, 6)
    x.index_select(1, ints(4, 2))
    x.index_select(1, ints(4).reshape(()))
    _ = x[i]
    _ = x[:, ints(4, 2)]
    _ = x[i, :, j]
    _ = x[:, ints(4, 2, 6), j]
    _ = x[i.reshape(2, 3), ints(4, 3)]
    _ = x[torch.tensor(1)]
    _ = x[mask(3)]
    _ = x[:, mask(4, 5)]
    _ = x[mask(3, 4)]
    _ = x[ints(3, 2), mask(4)]
    _ = x[mask(3), :, ints(5, 1)]
    aten._unsafe_index(x, [None, ints(4, 2)])
    x.gather(1, ints(4, 3, 2, 5))
    x.gather(1, ints(4, 2, 3, 5))
    torch.take_along_dim(x, ints(4, 3, 2, 5), 1)
    torch.take(x, ints(60, 4))


def writing() -> None:
    """The same, the other way round."""
    x, i = t(3, 4, 5), torch.tensor([0, 2])
    x[i] = t(2, 4, 5)
    x[i] = t(5)
    x[:, i] = 0.0
    x[mask(3, 4)] = 0.0
    x[torch.tensor([True, False, True])] = t(2, 4, 5)
    x[i, :, i] = t(2, 4)
    for name in ("index_put", "_unsafe_index_put"):
        getattr(aten, name)(x, [None, i], t(3, 2, 5), True)
    aten._index_put_impl_(x, [None, i], t(3, 2, 5))
    src, index = t(3, 2, 5), ints(4, 3, 2, 5)
    x.scatter(1, index, src)
    x.scatter(1, index, 2.0)
    x.scatter(1, index, 0)
    x.scatter(1, index, src, reduce="add")
    x.scatter(1, index, 2.0, reduce="multiply")
    x.scatter(1, ints(4, 2, 2, 5), src)
    x.scatter_add(1, index, src)
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        x.scatter_reduce(1, index, src, reduce)
        x.index_reduce(1, i, src, reduce if reduce != "sum" else "prod")
    x.scatter_reduce(1, index, src, "sum", include_self=False)
    x.index_add(1, i, src)
    x.index_add(1, i, src, alpha=2)
    x.index_copy(1, i, src)
    x.index_fill(1, i, 2.0)
    x.index_fill(1, i, 0.0)
    x.index_fill(1, i, t())
    aten.put(x, ints(60, 4), t(4))
    aten._unsafe_masked_index_put_accumulate(x, mask(3, 2, 5), [None, i], t(3, 2, 5))
    x.masked_scatter(mask(3, 4, 5), t(3, 4, 5))


def looking_up() -> None:
    """Places in sorted sequences."""
    edges = t(3, 6).sort().values
    torch.searchsorted(edges, t(3, 4))
    torch.searchsorted(edges[0], t(3, 4))
    torch.searchsorted(edges[0], 0.3)
    torch.searchsorted(edges, t(3, 4), sorter=torch.arange(6).repeat(3, 1))


def data_decides() -> None:
    """Shapes that depend on values."""
    x = t(3, 4)
    x.masked_select(mask(3, 4))
    mask(3, 4).nonzero()
    mask(3, 4).nonzero(as_tuple=True)
    aten.nonzero_numpy(mask(3, 4))
    torch.nonzero_static(mask(3, 4), size=5)
    torch.where(mask(3, 4))
    torch.unique(ints(3, 8), return_inverse=True)
    torch.unique(ints(3, 8, 2), dim=0)
    torch.unique_consecutive(ints(3, 8))
    torch.unique_consecutive(ints(3, 8, 2), dim=0)
    aten.unique_dim_consecutive(ints(3, 8, 2), 0)
    aten._unique(ints(3, 8))
    torch.bincount(ints(5, 8))
    torch.histc(t(8), 4)
    torch.multinomial(positive(3, 4), 2)
    torch.segment_reduce(t(6, 3), "sum", lengths=torch.tensor([2, 4]))


def python_values() -> None:
    """Values that the code reads."""
    t().item()
    aten._local_scalar_dense(t())
    aten.is_nonzero(t())
    torch.equal(t(3), t(3))
    torch.allclose(t(3), t(3))
    aten._is_all_true(mask(3))
    aten._is_any_true(mask(3))
    aten.is_same_size(t(3), t(4))
    torch._assert_async(torch.tensor(True))
    aten._assert_async.msg(torch.tensor(True), "always")
    aten._assert_tensor_metadata(t(3), dtype=torch.float64)
