"""Small tensors that the code makes of numbers, followed by their values.

``torch.tensor(width)`` is a number in the guise of a tensor: the code may index it, take its root, and
slice with it. As long as a call reads nothing else, it is carried out for real, beside the same call on
what was recorded, so that both values are known where such a tensor meets the model's data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ..capture import Ghost, Graph, Node, Ref, map_tree, tensors_in

FEW = 16
NOT_FOLLOWED = object()


class OwnTensors:
    """The code's own small tensors in one replay.

    Args:
        graph: what was recorded.
    """

    def __init__(self, graph: Graph) -> None:
        self._constants = graph.constants
        self._recorded: dict[int, torch.Tensor] = {}
        self._ids: dict[int, tuple[torch.Tensor, int]] = {}

    def run(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call gives that reads the code's own tensors alone, else ``NOT_FOLLOWED``."""
        if not node.inputs or not isinstance(node.op, torch._ops.OpOverload):
            return NOT_FOLLOWED
        if any(type(tensor) is Ghost or tensor.numel() > FEW for tensor in tensors_in((args, kwargs))):
            return NOT_FOLLOWED
        if torch.Tag.nondeterministic_seeded in node.op.tags or not all(map(self._knows, node.inputs)):
            return NOT_FOLLOWED
        with _disable_current_modes():
            result = node.op(*args, **kwargs)
            recorded = node.op(
                *map_tree(node.args, Ref, self._value), **map_tree(node.kwargs, Ref, self._value)
            )
        made = list(tensors_in(result))
        if any(tensor.numel() > FEW for tensor in made):
            return NOT_FOLLOWED
        for tensor, before, id_ in zip(made, tensors_in(recorded), node.outputs, strict=True):
            self._ids[id(tensor)] = tensor, id_
            self._recorded[id_] = before
        return result

    def id_of(self, tensor: torch.Tensor) -> int | None:
        """The graph value that a tensor which was made here stands for."""
        known = self._ids.get(id(tensor))
        return None if known is None else known[1]

    def recorded(self, id_: int) -> torch.Tensor | None:
        """What was recorded of a small tensor, if its values are known."""
        return self._value(Ref(id_)) if self._knows(id_) else None

    def _knows(self, id_: int) -> bool:
        if id_ in self._recorded:
            return True
        constant = self._constants.get(id_)
        return constant is not None and not _has_no_values(constant)

    def _value(self, ref: Ref) -> torch.Tensor:
        if ref.id not in self._recorded:  # a copy: calls that follow may write into it
            self._recorded[ref.id] = self._constants[ref.id].clone()
        return self._recorded[ref.id]


def _has_no_values(tensor: torch.Tensor) -> bool:
    return type(tensor) is Ghost or tensor.device.type == "meta" or tensor.numel() > FEW
