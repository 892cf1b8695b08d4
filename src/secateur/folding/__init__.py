"""Folding: BatchNorm becomes part of the convolution or linear layer that it reads."""

from ._apply import fold_batch_norm as fold_batch_norm
from ._plan import Left as Left
from ._plan import NormFold as NormFold
from ._report import FoldReport as FoldReport
