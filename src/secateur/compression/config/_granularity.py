"""Granularity: which elements of a target are one block, masked together or not at all.

A block has a size for every dimension and tiles the tensor. What output and input channels are depends on the
class of the module: a transposed convolution has them the other way round, a grouped one has several
input channels at the same index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Block = tuple[int, ...]


@dataclass(frozen=True)
class Granularity:
    """What is masked together.

    Attributes:
        name: ``element``, ``tensor``, ``out_channel``, ``in_channel``, ``per_channel``, ``heads`` or
            ``blocks``.
        sizes: of ``blocks``; -1 is all of a dimension.
        side: where dimensions that ``sizes`` has no number for are.
        fill: their size.
    """

    name: str
    sizes: tuple[int, ...] = ()
    side: Literal["front", "back"] = "front"
    fill: int = 1

    @staticmethod
    def of(value: Any) -> Granularity:
        """From a checked value of a config.

        >>> Granularity.of([[4, 4], "back", -1])
        Granularity(name='blocks', sizes=(4, 4), side='back', fill=-1)
        """
        if isinstance(value, Granularity):
            return value
        if isinstance(value, str):
            return Granularity(value)
        if isinstance(value[0], Sequence):
            return Granularity("blocks", tuple(value[0]), *value[1:])
        return Granularity("blocks", tuple(value))

    def to_config(self) -> Any:
        """As it is written in a config."""
        if self.name != "blocks":
            return self.name
        sizes = list(self.sizes)
        return sizes if (self.side, self.fill) == ("front", 1) else [sizes, self.side, self.fill]

    def padded(self, rank: int) -> Block | None:
        """Sizes of a block in all of ``rank`` dimensions; None if there are too many."""
        missing = rank - len(self.sizes)
        if missing < 0:
            return None
        fill = (self.fill,) * missing
        return fill + self.sizes if self.side == "front" else self.sizes + fill


@dataclass(frozen=True)
class Channels:
    """Where the channels of a target are.

    Attributes:
        out: the block that an output channel is, of a parameter or buffer.
        into: the block that an input channel is; None where there is no such dimension.
        dim: the channel dimension of an input or output; None for 1 in images (four dimensions or more), else
            the last.
        head: how many output channels a head of attention has; 0 if it is not known.
    """

    out: Block = ()
    into: Block | None = None
    dim: int | None = None
    head: int = 0

    def along(self, rank: int) -> int:
        """The channel dimension of an input or output of so many dimensions, from 0."""
        dim = (1 if rank >= 4 else -1) if self.dim is None else self.dim
        return min(dim % rank, rank - 1)


def channels_of(module: nn.Module, name: str, tensor: Tensor, head: int = 0) -> Channels:
    """Where the channels of a parameter or buffer are.

    Blocks, for ``g`` groups: a convolution ``(out, in/g, k, k)`` gives out ``(1, in/g, k, k)`` and in
    ``(out/g, 1, k, k)``; a transposed one ``(in, out/g, k, k)`` gives out ``(in/g, 1, k, k)`` and in
    ``(1, out/g, k, k)``; the ``Conv1D`` of transformers ``(in, out)`` gives out ``(in, 1)``. Everything else
    has out channels in dimension 0 and in channels in dimension 1, embeddings too, as NNI documents.
    """
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        return Channels(out=(1,) * len(shape), into=None, head=head)
    groups = module.groups if isinstance(module, _ConvNd) and name == "weight" else 1
    first, second = (1, *shape[1:]), (shape[0] // groups, 1, *shape[2:])
    if name == "weight" and _is_transposed(module):
        return Channels(out=second, into=first, head=head)
    return Channels(out=first, into=second, head=head)


def activation_channels(module: nn.Module, head: int = 0) -> Channels:
    """Where the channels of inputs and outputs of a module are."""
    if isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm)):
        return Channels(dim=1, head=head)
    last = isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention))
    return Channels(dim=-1 if last else None, head=head)


def block_for(
    granularity: Granularity, channels: Channels, shape: Sequence[int], *, activation: bool
) -> tuple[Block, str]:
    """The block of a target of that shape, and what is wrong with it, if anything.

    Inputs and outputs have the batch in dimension 0, which every block spans.
    """
    given, wrong = _wanted(granularity, channels, tuple(shape), activation)
    if wrong:
        return (), wrong
    block = tuple(size if part == -1 else part for part, size in zip(given, shape, strict=True))
    if activation and block:
        block = (shape[0], *block[1:])
    if any(part < 1 or size % part for part, size in zip(block, shape, strict=True)):
        return (), f"blocks of {block} do not tile a target of shape {tuple(shape)}"
    return block, ""


def _wanted(
    granularity: Granularity, channels: Channels, shape: tuple[int, ...], activation: bool
) -> tuple[Block, str]:
    name = granularity.name
    if name == "element":
        return (1,) * len(shape), ""
    if name == "tensor":
        return shape, ""
    if name == "blocks":
        padded = granularity.padded(len(shape))
        return padded or (), "" if padded else f"{len(granularity.sizes)} block sizes for the shape {shape}"
    if name == "heads":
        return _heads(channels, shape, activation)
    if activation:
        return _along(shape, channels, name)
    if name == "per_channel":
        return (), "'per_channel' is for inputs and outputs; a parameter has 'out_channel' and 'in_channel'"
    if name == "in_channel" and channels.into is None:
        return (), f"a target of shape {shape} has no input channels"
    return (channels.out if name == "out_channel" else channels.into) or (), ""


def _along(shape: tuple[int, ...], channels: Channels, name: str) -> tuple[Block, str]:
    if name != "per_channel":
        return (), f"{name!r} is for parameters; inputs and outputs have 'per_channel'"
    if not shape:
        return (), "an input or output without dimensions has no channels"
    at = channels.along(len(shape))
    return tuple(1 if d == at else size for d, size in enumerate(shape)), ""


def _heads(channels: Channels, shape: tuple[int, ...], activation: bool) -> tuple[Block, str]:
    if not channels.head:
        return (), (
            "no number of heads was found on the module or those around it (num_heads, num_attention_heads, "
            "n_heads, n_head, head_dim): give the block, granularity=[head_dim, -1]"
        )
    if activation:
        return (*shape[:-1], channels.head), ""
    return tuple(channels.head * part if part == 1 else part for part in channels.out), ""


def head_size(module: nn.Module, around: Sequence[nn.Module], tensor: Tensor) -> int:
    """How many output channels a head has, by attributes of a module and of those around it; 0 if unknown.

    Args:
        module: the layer.
        around: the modules that contain it, innermost first.
        tensor: its weight.
    """
    for owner in (module, *around):
        size = _attribute(owner, ("head_dim", "attention_head_size", "key_value_proj_dim"))
        if size and tensor.shape[0] % size == 0:
            return size
        heads = _attribute(owner, ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead"))
        if not heads:
            continue
        width = math.prod(tensor.shape[1:])
        for channels in (width, tensor.shape[0]):
            if channels % heads == 0 and tensor.shape[0] % (channels // heads) == 0:
                return channels // heads
    return 0


def _attribute(module: nn.Module, names: Sequence[str]) -> int:
    for name in names:
        value = getattr(module, name, None)
        if type(value) is int and value > 0:
            return value
    return 0


def _is_transposed(module: nn.Module) -> bool:
    """Whether the weight of a module has its outputs in dimension 1."""
    # Known by name so that transformers need not be installed.
    return isinstance(module, _ConvTransposeNd) or (
        type(module).__name__ == "Conv1D" and hasattr(module, "nf")
    )
