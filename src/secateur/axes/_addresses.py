"""Tensors whose values are positions of a dimension: what ``topk`` returns, and a router's experts.

Whatever is addressed with such a tensor (``weights[experts]``) has the positions of that dimension.
They may go together: with fewer of them, ``topk`` counts the ones that are left. So positions that
compete may go if the model does nothing with the winners but address other tensors with them, which
is what a mixture of experts does, and a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..capture import Node
from ._algebra import Dim

_COPIED = ("clone", "contiguous", "alias", "detach", "to", "_to_copy")
_MOVED = (
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T",
    "mT", "swapaxes", "movedim", "squeeze",
    "unsqueeze", "expand", "repeat", "select", "slice", "split", "split_with_sizes", "chunk", "unbind",
    "index", "gather", "index_select",
)  # fmt: skip
_COPIES, _MOVES = (
    {getattr(torch.ops.aten, name) for name in names} for names in (_COPIED, (*_COPIED, *_MOVED))
)


@dataclass(frozen=True, slots=True)
class Address:
    """What the values of a tensor say about ``dim``: positions of it, or how many stand at each."""

    dim: Dim
    counted: bool = False


def carried(node: Node, address: Address) -> bool:
    """Whether the results of a call say of ``address`` what its first operand does."""
    return getattr(node.op, "overloadpacket", None) in (_COPIES if address.counted else _MOVES)


def moves(node: Node) -> bool:
    """Whether the results of a call hold values of its first operand, and nothing else."""
    return getattr(node.op, "overloadpacket", None) in _MOVES
