"""Origins: which parameters make a tensor, going back through operators that pass a factor on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn

from ..axes import Analysis, Leaf
from ..capture import ModuleCall, Node, Ref, Source, map_tree

aten = torch.ops.aten


def _packets(names: str) -> set[Any]:
    return {getattr(aten, name) for name in names.split()}


PIECES = _packets("slice select narrow split split_with_sizes chunk unbind")
VIEWS = PIECES | _packets(
    "view reshape _unsafe_view permute transpose t numpy_T mT movedim swapaxes flatten unflatten "
    "squeeze unsqueeze expand expand_as contiguous alias detach clone to _to_copy type_as"
)
ADDS = _packets("add sub cat concat stack add_")
# f(g x) = g f(x) for a factor g >= 0 on the positions of one axis.
HOMOGENEOUS = ADDS | _packets(
    "neg mul div mul_ relu relu_ leaky_relu abs dropout roll flip repeat repeat_interleave "
    "masked_fill constant_pad_nd pad max_pool2d avg_pool2d adaptive_avg_pool2d upsample_nearest2d sum mean"
)
AFFINE = _packets("batch_norm layer_norm group_norm instance_norm rms_norm")
# A factor on the parameters (rows and biases) is a factor on the result.
WEIGHTED = AFFINE | _packets(
    "linear conv1d conv2d conv3d convolution matmul mm bmm addmm baddbmm einsum embedding mul div"
)
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
MOST_ELEMENTS = 50_000_000


@dataclass(frozen=True, slots=True)
class Maker:
    """A dimension of a parameter; ``rows`` are the positions that are meant, None for all."""

    parameter: str
    dim: int
    rows: tuple[int, ...] | None = None


@dataclass
class Makers:
    """The parameters that make a tensor, and operators on the way that do not pass a factor on."""

    parameters: dict[Maker, None] = field(default_factory=dict)
    opaque: list[Node] = field(default_factory=list)


Step = tuple[Node, int, int]
"""A view on the way to a tensor: the operator, what it reads and what it gives."""


class Origins:
    """Looks up where the tensors of one analysed graph come from."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._values = analysis.graph.values
        self._producer: dict[int, Node] = {}
        self._readers = analysis.graph.readers()
        for node in analysis.graph.nodes:
            for id_ in node.outputs:
                if id_ not in node.inputs:  # changed in place, or returned as it was
                    self._producer[id_] = node
        self._parameters = {v.name: v.id for v in self._values if v.source is Source.PARAMETER}

    def dim_of(self, id_: int, axis: Leaf) -> int | None:
        """The last dimension of a tensor that ``axis`` is a part of."""
        leaves = self._analysis.algebra.leaves
        dims = self._analysis.dims[id_]
        return next((d for d in reversed(range(len(dims))) if axis in leaves(dims[d])), None)

    def rank(self, id_: int) -> int:
        """Number of dimensions of a tensor."""
        return len(self._values[id_].shape)

    def root(self, id_: int) -> int:
        """The tensor that ``id_`` is a view (or a cast) of, itself if it is none."""
        while (node := self._producer.get(id_)) is not None and packet(node) in VIEWS and node.inputs:
            id_ = node.inputs[0]
        return id_

    def parameter(self, id_: int) -> str | None:
        """The parameter that a tensor is, or is a view of."""
        value = self._values[self.root(id_)]
        return value.name if value.source is Source.PARAMETER else None

    def readers(self, parameter: str, axis: Leaf) -> Iterator[Node]:
        """The operators that read a parameter, or a view of it that carries ``axis``."""
        waiting = [self._parameters[parameter]]
        while waiting:
            id_ = waiting.pop()
            for node in self._readers[id_]:
                if packet(node) not in VIEWS:
                    yield node
                    continue
                outputs = (new for new in node.outputs if new != id_)
                waiting += [new for new in outputs if self.dim_of(new, axis) is not None]

    def is_layer_input(self, node: Node) -> bool:
        """Whether the operator is all that the forward of its module does."""
        kind = self._analysis.graph.module_types.get(node.module)
        return kind is not None and issubclass(kind, LAYERS)

    # -- makers ------------------------------------------------------------------------------------

    def makers(self, id_: int, axis: Leaf) -> Makers:
        """The parameters that make tensor ``id_`` along ``axis``.

        A factor on them is a factor on the tensor, unless ``opaque`` is not empty.
        """
        found = Makers()
        self._go_back(id_, axis, found, set(), ())
        return found

    def _go_back(self, id_: int, axis: Leaf, found: Makers, seen: set[int], path: tuple[Step, ...]) -> bool:
        """Collect the makers of one tensor; whether there are any."""
        if id_ in seen:
            return True
        seen.add(id_)
        node = self._producer.get(id_)
        operator = self._analysis.operators[node.index] if node else None
        if node is None or operator is None:
            return self._is_maker(id_, axis, found, ())
        carriers = [i for i in dict.fromkeys(node.inputs) if self.dim_of(i, axis) is not None]
        given = [i for i in carriers if self.parameter(i) is not None]
        kind = packet(node)
        if given and kind in WEIGHTED:
            rows = self._rows(id_, axis, path)
            return any([self._is_maker(i, axis, found, rows) for i in given])
        if kind not in HOMOGENEOUS | VIEWS:
            found.opaque.append(node)
        tried = (
            self._go_back(i, axis, found, seen, ((node, i, id_), *path) if kind in VIEWS else path)
            for i in carriers
        )
        # A sum is made by all its terms; of a product, one factor is enough.
        return any([*tried]) if kind in ADDS else any(tried)

    def _is_maker(self, id_: int, axis: Leaf, found: Makers, rows: tuple[int, ...] | None) -> bool:
        name = self.parameter(id_)
        dim = None if name is None else self.dim_of(self._parameters[name], axis)
        if name is None or dim is None:
            return False
        found.parameters[Maker(name, dim, rows or None)] = None
        return True

    def _rows(self, id_: int, axis: Leaf, path: Sequence[Step]) -> tuple[int, ...] | None:
        """Which positions of a tensor's dimension reach the end of a path of views; None for all."""
        shape = self._values[id_].shape
        dim = self.dim_of(id_, axis)
        if dim is None or not any(packet(node) in PIECES for node, _, _ in path):
            return None
        if prod(shape) > MOST_ELEMENTS:
            return None
        numbers = torch.arange(shape[dim], dtype=torch.int32)
        numbers = numbers.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)
        for node, _, given in path:
            args, kwargs = map_tree((node.args, node.kwargs), Ref, lambda _, now=numbers: now)
            result = node.op(*args, **kwargs)
            numbers = result if isinstance(result, torch.Tensor) else result[node.outputs.index(given)]
        return tuple(sorted(numbers.unique().tolist()))

    def module_queries(self, axis: Leaf) -> Iterator[Maker]:
        """The rows that make the queries of ``nn.MultiheadAttention`` modules with that axis."""
        for node, operator in zip(self._analysis.graph.nodes, self._analysis.operators, strict=True):
            if not isinstance(node.op, ModuleCall) or node.op.type is not nn.MultiheadAttention:
                continue
            given = operator.arguments["module"] if operator else {}
            if not given or self.dim_of(given["out_proj.weight"].id, axis) == 1:
                continue  # heads and features of the values are used by the output projection
            width = given["out_proj.weight"].shape[1]
            for name in ("in_proj_weight", "in_proj_bias", "q_proj_weight"):
                if name in given and self.dim_of(given[name].id, axis) == 0:
                    yield Maker(self._values[given[name].id].name, 0, tuple(range(width)))


def packet(node: Node) -> Any:
    """The operator packet of a node, without its overload."""
    return getattr(node.op, "overloadpacket", node.op)
