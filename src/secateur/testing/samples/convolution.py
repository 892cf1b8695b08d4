"""Calls that lead to the rules of ``axes/rules/convolution.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import positive, t

aten = torch.ops.aten
SPACES = {1: (7,), 2: (7, 6), 3: (5, 6, 4)}


def convolutions() -> None:
    """One to three dimensions; groups, depthwise; all paddings; with and without batch and bias."""
    for n, space in SPACES.items():
        conv = getattr(F, f"conv{n}d")
        taps = (3, 2, 1)[:n]
        conv(t(2, 4, *space), t(6, 4, *taps), t(6))
        conv(t(4, *space), t(6, 4, *taps))
        conv(t(2, 4, *space), t(6, 2, *taps), t(6), stride=2, padding=1, groups=2)
        conv(t(2, 4, *space), t(8, 1, *taps), t(8), dilation=2, groups=4)
        conv(t(2, 4, *space), t(6, 4, *(3, 1, 5)[:n]), t(6), padding="same")
        conv(t(2, 4, *space), t(6, 2, *taps), padding="valid", groups=2)
        conv(t(2, 4, *space), t(6, 4, *(1,) * n), t(6))
        conv(t(2, 4, *space), t(4, 1, *(1,) * n), groups=4)
        conv(t(2, 4, *space), t(6, 4, *(1,) * n), stride=2)
        conv(t(2, 4, *space), t(6, 4, *(1,) * n), padding=1)


def transposed() -> None:
    """Transposed convolutions."""
    for n, space in SPACES.items():
        conv = getattr(F, f"conv_transpose{n}d")
        taps = (3, 2, 1)[:n]
        conv(t(2, 4, *space), t(4, 6, *taps), t(6))
        conv(t(4, *space), t(4, 6, *taps))
        conv(t(2, 4, *space), t(4, 3, *taps), t(6), stride=2, padding=1, output_padding=1, groups=2)
        conv(t(2, 4, *space), t(4, 3, *taps), t(12), groups=4)
        conv(t(2, 4, *space), t(4, 6, *(1,) * n), t(6))


def below() -> None:
    """What exported programs call."""
    x = t(2, 4, 7, 6)
    no = [0, 0]
    for op, flags in ((aten.convolution, ()), (aten._convolution, (False, False, True, True))):
        op(x, t(6, 4, 3, 2), t(6), [1, 1], no, [1, 1], False, no, 1, *flags)
        op(x, t(6, 2, 3, 2), None, [2, 1], [1, 0], [1, 1], False, no, 2, *flags)
        op(x, t(4, 3, 3, 2), t(6), [2, 1], [1, 0], [1, 1], True, [1, 0], 2, *flags)
    deprecated = aten._convolution.deprecated
    deprecated(x, t(6, 4, 3, 2), t(6), [1, 1], no, [1, 1], False, no, 1, False, False, True)
    torch.conv_tbc(t(7, 2, 4), t(3, 4, 6), t(6), 1)


def deformable() -> None:
    """Deformable convolution of torchvision."""
    from torchvision.ops import deform_conv2d

    x = t(2, 4, 6, 6)
    deform_conv2d(x, t(2, 8, 5, 5), t(6, 4, 2, 2), t(6))
    deform_conv2d(x, t(2, 8, 5, 5), t(6, 4, 2, 2), mask=positive(2, 4, 5, 5))
    deform_conv2d(x, t(2, 16, 5, 5), t(6, 2, 2, 2), t(6), mask=positive(2, 8, 5, 5))
