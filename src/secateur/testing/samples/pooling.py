"""Calls that lead to the rules of ``axes/rules/pooling.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import positive, t

aten = torch.ops.aten
SPACES = {1: (8,), 2: (8, 6), 3: (8, 6, 4)}


def pools() -> None:
    """One to three dimensions, with and without a batch, with and without indices."""
    for n, space in SPACES.items():
        for x in (t(2, 3, *space), t(3, *space)):
            getattr(F, f"max_pool{n}d")(x, 2)
            getattr(F, f"max_pool{n}d")(x, 3, 2, 1, return_indices=True)
            getattr(F, f"avg_pool{n}d")(x, 3, 2, 1)
            getattr(F, f"adaptive_max_pool{n}d")(x, 2)
            getattr(F, f"adaptive_max_pool{n}d")(x, 2, return_indices=True)
            getattr(F, f"adaptive_avg_pool{n}d")(x, 2)
            getattr(F, f"adaptive_avg_pool{n}d")(x, 1)
        getattr(F, f"lp_pool{n}d")(t(2, 3, *space), 2, 2)
    aten._adaptive_avg_pool2d(t(2, 3, 8, 6), [2, 1])
    aten._adaptive_avg_pool3d(t(2, 3, 8, 6, 4), [2, 1, 1])
    F.local_response_norm(t(2, 6, 4, 4), 3)


def unpools() -> None:
    """Back to where the maxima were; fractional pooling."""
    for n in (2, 3):
        space = SPACES[n]
        x, places = getattr(F, f"max_pool{n}d")(t(2, 3, *space), 2, return_indices=True)
        getattr(F, f"max_unpool{n}d")(x, places, 2)
        pool = getattr(aten, f"fractional_max_pool{n}d")
        pool(t(2, 3, *space), [2] * n, [2] * n, positive(2, 3, n))


def resampling() -> None:
    """All modes, by size and by factor."""
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}
    for n, space in SPACES.items():
        for mode in ("nearest", "nearest-exact", *modes[n]):
            F.interpolate(t(2, 3, *space), scale_factor=2, mode=mode)
            F.interpolate(t(2, 3, *space), size=[5] * n, mode=mode)
    for mode in ("bilinear", "bicubic"):
        F.interpolate(t(2, 3, 8, 6), size=[5, 4], mode=mode, antialias=True)
    for name, n in (
        ("nearest1d", 1), ("nearest2d", 2), ("nearest3d", 3), ("linear1d", 1), ("bilinear2d", 2),
        ("bicubic2d", 2), ("trilinear3d", 3),
    ):  # fmt: skip
        flags = () if name.startswith("nearest") else (False,)
        getattr(aten, f"upsample_{name}").default(t(2, 3, *SPACES[n]), [5] * n, *flags)
        if not flags:
            getattr(aten, f"_upsample_nearest_exact{n}d").default(t(2, 3, *SPACES[n]), [5] * n)
    for name in ("bilinear2d", "bicubic2d", "lanczos2d"):
        getattr(aten, f"_upsample_{name}_aa").default(t(2, 3, 8, 6), [5, 4], False)
    aten._upsample_lanczos2d_aa.vec(t(2, 3, 8, 6), [5, 4], False, None)


def grids() -> None:
    """Sampling at given points."""
    F.grid_sample(t(2, 3, 4, 5), t(2, 6, 7, 2), align_corners=False)
    F.grid_sample(t(2, 3, 4, 5, 6), t(2, 6, 7, 5, 3), align_corners=False)
    aten.grid_sampler_2d(t(2, 3, 4, 5), t(2, 6, 7, 2), 0, 0, False)
    aten.grid_sampler_3d(t(2, 3, 4, 5, 6), t(2, 6, 7, 5, 3), 0, 0, False)


def boxes() -> None:
    """Detection operators of torchvision."""
    from torchvision import ops

    corners = positive(5, 4).cumsum(1) * 3
    rois = torch.cat([torch.zeros(5, 1).double(), corners], 1)
    ops.nms(corners, positive(5), 0.5)
    ops.roi_align(t(2, 3, 8, 8), rois, (2, 3))
    ops.roi_pool(t(2, 3, 8, 8), rois, (2, 3))
    torch.ops.torchvision.ps_roi_align(t(2, 18, 8, 8), rois, 1.0, 2, 3, -1)
    torch.ops.torchvision.ps_roi_pool(t(2, 18, 8, 8), rois, 1.0, 2, 3)
