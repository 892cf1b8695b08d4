"""Building blocks of random networks, written as users write them: eager code that reads attributes.

A block is an ``nn.Module`` with an ``out_width`` and a static ``draw`` that chooses its settings. Every
block can be built again from its name and settings, which is what a failing example prints:

    build([("ConvNorm", {"out": 8, "kernel": 3})], 3)
"""

from . import (
    attention,  # noqa: F401 - importing registers the blocks
    convolution,  # noqa: F401
    copying,  # noqa: F401
    direct,  # noqa: F401
    dynamic,  # noqa: F401
    heads,  # noqa: F401
    inplace,  # noqa: F401
    mixing,  # noqa: F401
    recurrent,  # noqa: F401
    sequence,  # noqa: F401
    splitting,  # noqa: F401
    states,  # noqa: F401
    statistics,  # noqa: F401
)
from ._base import BLOCKS as BLOCKS
from ._base import Block as Block
from ._base import Chooser as Chooser
from ._base import Spec as Spec
from ._base import build as build
