"""Constant folding: what depends on parameters alone is computed once and stored."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx

Values = dict[fx.Node, Any]
Stored = Callable[[fx.GraphModule, fx.Node, Tensor, Values], fx.Node]


def constants_of(module: fx.GraphModule) -> Values:
    """The value of every node that depends on no input of the graph."""
    values: Values = {}
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "get_attr":
                values[node] = attribute(module, str(node.target))
            elif _is_constant(node, values):
                arguments = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*arguments[0], **arguments[1])
    return values


def _is_constant(node: fx.Node, values: Values) -> bool:
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return (
        node.op == "call_function"
        and not random
        and all(source in values for source in node.all_input_nodes)
        # Without an input, only what makes a tensor of plain numbers: its result is stored like the others.
        and (bool(node.all_input_nodes) or isinstance(node.meta.get("val"), Tensor))
    )


def fold_constants(module: fx.GraphModule, store: Stored) -> None:
    """Replace what depends on parameters alone, where others read it, by stored tensors; in place.

    ``store(module, node, value, values)`` puts the tensor in and gives the node to read instead.
    """
    values = constants_of(module)
    for node, value in values.items():
        read = [user for user in node.users if user not in values]
        if read and isinstance(value, Tensor):
            with module.graph.inserting_before(node):
                new = store(module, node, value, values)
            if new is not node:
                node.replace_all_uses_with(new, delete_user_cb=lambda user: user in read)  # noqa: B023
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    drop_unread(module)
    module.recompile()


def attribute(module: torch.nn.Module, path: str) -> Any:
    """The tensor (or module) at a path."""
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def buffer(module: fx.GraphModule, value: Tensor, hint: str, values: Values | None = None) -> fx.Node:
    """A node that reads a new buffer, inserted where the graph stands; noted in ``values``."""
    name = next(name for index in count() if not hasattr(module, name := f"_{hint}_{index}"))
    module.register_buffer(name, value.detach().clone().contiguous())
    node = module.graph.get_attr(name)
    node.meta["val"] = value
    if values is not None:
        values[node] = value
    return node


def call(module: fx.GraphModule, target: Any, args: tuple[Any, ...], value: Tensor) -> fx.Node:
    """A node that calls an operator, inserted where the graph stands; ``value`` is like what it gives."""
    node = module.graph.call_function(target, args)
    node.meta["val"] = value
    return node


def drop_unread(module: fx.GraphModule) -> None:
    """Take out parameters and buffers that no node reads, in place; modules that nodes call keep theirs."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    called = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    for path, owner in [(path, owner) for path, owner in module.named_modules() if path not in called]:
        for registry in (owner._parameters, owner._buffers):
            for name in list(registry):
                if f"{path}.{name}".lstrip(".") not in read:
                    del registry[name]
