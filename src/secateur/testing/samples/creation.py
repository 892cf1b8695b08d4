"""Calls that lead to the rules of ``axes/rules/creation.py``."""

from __future__ import annotations

import torch

from ._tensors import ints, positive, t

aten = torch.ops.aten


def sized() -> None:
    """Sizes from the code's numbers."""
    for name in ("zeros", "ones", "empty", "rand", "randn"):
        getattr(torch, name)(3, 4)
        getattr(torch, name)(3, 4, dtype=torch.float64)
    generator = torch.Generator()
    torch.rand(3, 4, generator=generator)
    torch.randn(3, 4, generator=generator)
    torch.full((3, 4), 2.0)
    torch.full((3, 4), 0)
    x = t(2, 5)
    x.new_zeros(3, 4)
    x.new_ones(3, 4)
    x.new_empty(3, 4)
    x.new_full((3, 4), 2.0)
    x.new_full((3, 4), 0)


def alike() -> None:
    """Sizes from another tensor."""
    for name in ("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like"):
        getattr(torch, name)(t(3, 4))
    torch.randint_like(t(3, 4), 5)
    torch.randint_like(t(3, 4), 2, 5)
    generator = torch.Generator()
    aten.rand_like.generator(t(3, 4), generator=generator)
    aten.randn_like.generator(t(3, 4), generator=generator)
    aten.randint_like.generator(t(3, 4), 5, generator=generator)
    aten.randint_like.low_generator_dtype(t(3, 4), 2, 5, generator=generator)
    aten.randint_like.Tensor(t(3, 4), torch.tensor(5))
    aten.randint_like.Tensor_generator(t(3, 4), torch.tensor(5), generator=generator)
    torch.full_like(t(3, 4), 2.0)
    torch.full_like(t(3, 4), 0.0)


def counted() -> None:
    """Values from positions."""
    generator = torch.Generator()
    torch.arange(5)
    torch.arange(1, 6)
    torch.arange(1, 6, 2)
    torch.linspace(0, 1, 5)
    torch.logspace(0, 1, 5)
    for start, end in ((t(), 1.0), (0.0, t()), (t(), t())):
        torch.linspace(start, end, 5)
        torch.logspace(start, end, 5)
    torch.eye(3)
    torch.eye(3, 4)
    aten.range.default(1, 5)
    aten.range(1, 5)
    aten.range(1, 5, 2)
    torch.randint(5, (3, 4))
    torch.randint(2, 5, (3, 4))
    torch.randint(5, (3, 4), generator=generator)
    torch.randint(2, 5, (3, 4), generator=generator)
    torch.randperm(5)
    torch.randperm(5, generator=generator)
    torch.scalar_tensor(2.0)
    torch.tril_indices(3, 4)
    torch.triu_indices(3, 4)
    for name in ("hann", "hamming", "blackman", "bartlett", "kaiser"):
        getattr(torch, f"{name}_window")(6)
        getattr(torch, f"{name}_window")(6, periodic=False)
    torch.hamming_window(6, True, 0.5)
    torch.hamming_window(6, True, 0.5, 0.4)
    torch.kaiser_window(6, True, 10.0)
    torch.fft.fftfreq(6)
    torch.fft.rfftfreq(6)
    torch.empty_strided((3, 4), (4, 1))
    aten.empty_permuted((3, 4), (1, 0))
    t(2).new_empty_strided((3, 4), (4, 1))
    torch.normal(0.0, 1.0, (3, 4))
    torch.normal(t(3, 4), 1.0)
    torch.normal(0.0, positive(3, 4))
    torch.normal(t(3, 4), positive(3, 4))
    aten.affine_grid_generator(t(2, 2, 3), [2, 3, 4, 5], False)
    aten.randint_like(ints(3, 4), 5)
