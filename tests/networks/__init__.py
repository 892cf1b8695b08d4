"""Building blocks of random networks, written as users write them: eager code that reads attributes.

A block is an ``nn.Module`` with an ``out_width`` and a static ``draw`` that chooses its settings. Every
block can be built again from its name and settings, which is what a failing example prints:

    build([("ConvNorm", {"out": 8, "kernel": 3})], 3)
"""

from . import attention as attention
from . import convolution as convolution
from . import direct as direct
from . import mixing as mixing
from . import recurrent as recurrent
from . import sequence as sequence
from . import splitting as splitting
from ._base import BLOCKS as BLOCKS
from ._base import Block as Block
from ._base import Chooser as Chooser
from ._base import Spec as Spec
from ._base import build as build
