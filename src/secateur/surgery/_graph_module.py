"""The rewritten graph: the recorded operators as a ``torch.fx.GraphModule`` with the planned sizes.

The way out for code that cannot follow a cut: here every number can be rewritten. Sizes that come
from the inputs (the batch, the length) are read from the inputs again, so the graph is as general
in them as the recorded sizes allow (a size of 1 stays 1). It computes what the model computed in
eval mode; parameters are shared with the module tree and stay trainable.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from ..axes import Analysis, Concat, Dim, Keep, Leaf, kept_size, number_value
from ..capture import ModuleCall, Node, Ref, Source, map_tree, owned_tensors


def graph_module(analysis: Analysis, keep: Keep, model: nn.Module) -> fx.GraphModule:
    """The graph of ``analysis`` at the sizes of ``keep``, with the tensors of ``model``.

    ``model`` has been cut already; only its tensors and its modules that were recorded whole are used.
    """
    return _Writer(analysis, keep, model).write()


class _Writer:
    def __init__(self, analysis: Analysis, keep: Keep, model: nn.Module) -> None:
        self._analysis = analysis
        self._recorded = analysis.graph
        self._keep = keep
        self._model = model
        self._graph = fx.Graph()
        self._nodes: dict[int, Any] = {}
        self._lengths: dict[Leaf, tuple[int, int]] = {}
        self._extra: dict[str, torch.Tensor] = {}

    def write(self) -> fx.GraphModule:
        self._placeholders()
        for node in self._recorded.nodes:
            self._call(node)
        leaves, out_spec = self._recorded.result
        self._graph.output([self._nodes_of(leaf) for leaf in leaves])
        _, in_spec = self._recorded.call
        positional, keyword = in_spec.children()
        keys = keyword.context or []
        names = [f"arg_{index}" for index in range(positional.num_children)] + list(keys)
        self._graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, in_spec, out_spec)))
        root = self._model
        for name, tensor in self._extra.items():
            root.register_buffer(name, tensor, persistent=False)
        module = fx.GraphModule(root, self._graph, class_name=type(self._model).__name__)
        for name in self._extra:
            del root._buffers[name]
        return module

    def _placeholders(self) -> None:
        leaves, _ = self._recorded.call
        for index, leaf in enumerate(leaves):
            node = self._graph.placeholder(f"input_{index}")
            if isinstance(leaf, Ref):
                self._nodes[leaf.id] = node
                for position, dim in enumerate(self._analysis.dims_of(leaf.id)):
                    if isinstance(dim, Leaf):
                        self._lengths.setdefault(dim, (leaf.id, position))

    def _nodes_of(self, tree: Any) -> Any:
        return map_tree(tree, Ref, lambda ref: self._node(ref.id))

    def _node(self, id_: int) -> Any:
        """The graph node of a tensor; those that no operator made are fetched when first used."""
        if id_ not in self._nodes:
            value = self._recorded.values[id_]
            name = value.name
            if value.source not in (Source.PARAMETER, Source.BUFFER):
                name = f"constant_{id_}"
                self._extra[name] = self._loose(id_)
            self._nodes[id_] = self._graph.get_attr(name)
        return self._nodes[id_]

    def _loose(self, id_: int) -> torch.Tensor:
        """A tensor that is neither parameter nor buffer: an attribute, or a constant of the code."""
        value = self._recorded.values[id_]
        if value.source is Source.CONSTANT:
            return self._recorded.constants[id_]
        return next(tensor for _, name, tensor in owned_tensors(self._model) if name == value.name)

    def _call(self, node: Node) -> None:
        if not node.outputs:
            return  # a value that the code read: the path it led to is in the graph
        args, kwargs = self._rewritten(node)
        if isinstance(node.op, ModuleCall):
            kwargs.pop("module", None)
            result = self._graph.call_module(node.op.path, args, kwargs)
        else:
            result = self._graph.call_function(node.op, args, kwargs)
        self._unpack(node.result, result)

    def _unpack(self, recorded: Any, node: fx.Node) -> None:
        if isinstance(recorded, Ref):
            self._nodes[recorded.id] = node
        elif isinstance(recorded, (list, tuple)):
            for index, item in enumerate(recorded):
                if isinstance(item, (Ref, list, tuple, dict)):
                    self._unpack(item, self._graph.call_function(operator.getitem, (node, index)))
        elif isinstance(recorded, dict):
            for key, item in recorded.items():
                if isinstance(item, (Ref, list, tuple, dict)):
                    self._unpack(item, self._graph.call_function(operator.getitem, (node, key)))

    def _rewritten(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with every size as planned."""
        found = self._analysis.operators[node.index]
        args: list[Any] = list(self._nodes_of(node.args))
        kwargs: dict[str, Any] = self._nodes_of(node.kwargs)
        if found is None:
            return tuple(args), kwargs
        places = {name: index for index, name in enumerate(found.arguments)}
        for number in found.numbers:
            value = number_value(node, number, found.arguments)
            if value is None or value == -1 or abs(value) != abs(number.at(number.dim.size)):
                continue
            size = self._size(self._analysis.algebra.resolve(number.dim))
            size = number.at(size)
            holder: Any = kwargs if number.argument in kwargs else args
            key: Any = number.argument if holder is kwargs else places[number.argument]
            if number.position is None:
                holder[key] = size
            else:
                items = list(holder[key])
                items[number.position] = size
                holder[key] = items
        return tuple(args), kwargs

    def _size(self, dim: Dim) -> Any:
        """The planned size; where it is a length of an input, a node that reads it from there."""
        if isinstance(dim, Leaf):
            if dim not in self._lengths:
                return kept_size(dim, self._keep)
            id_, position = self._lengths[dim]
            return self._graph.call_function(torch.ops.aten.sym_size.int, (self._nodes[id_], position))
        if isinstance(dim, Concat):
            return self._folded(operator.add, dim.parts, 0)
        return self._folded(operator.mul, dim.factors, 1)

    def _folded(self, function: Any, dims: tuple[Dim, ...], start: int) -> Any:
        total: Any = start
        for dim in dims:
            size = self._size(dim)
            symbolic = isinstance(size, fx.Node) or isinstance(total, fx.Node)
            total = self._graph.call_function(function, (total, size)) if symbolic else function(total, size)
        return total
