"""What an operator makes of constants: one function an operator family, in one flat table.

A transfer is handed a :class:`Step` and returns what is known of the operator's results. Wherever
it can, it runs the operator itself on the constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..capture import Node, Ref, map_tree
from ._known import Known, unknown

Results = Known | Sequence[Known | None] | None
Transfer = Callable[["Step"], Results]

TRANSFERS: dict[Any, Transfer] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call, with what is known of its operands.

    Attributes:
        node: the recorded call.
        arguments: by the names of the operator's schema, tensors as :class:`secateur.capture.Ref`.
        shapes: of the results.
        dtypes: of the results.
        known_of: what is known of a tensor by its id.
        normalised: ids of tensors whose last dimension sums to one (softmax).
    """

    node: Node
    arguments: dict[str, Any]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    known_of: Callable[[int], Known]
    normalised: set[int]

    def known(self, name: str) -> Known | None:
        """What is known of a tensor argument, None where it is no tensor."""
        value = self.arguments.get(name)
        return self.known_of(value.id) if isinstance(value, Ref) else None

    def operand(self, name: str) -> Known:
        """What is known of an argument that is a tensor."""
        known = self.known(name)
        if known is None:
            raise TypeError(f"{self.node.op}: {name} is no tensor")
        return known

    def refs(self) -> list[Ref]:
        """The tensor arguments, lists of tensors included, in order."""
        found: list[Ref] = []
        map_tree(list(self.arguments.values()), Ref, found.append)
        return found

    @property
    def nothing(self) -> Known:
        """Nothing is known of the first result."""
        return unknown(self.shapes[0])


def transfers(*names: str) -> Callable[[Transfer], Transfer]:
    """Decorator that enters a transfer for operators of ``torch.ops.aten``, in-place variants too."""

    def register(function: Transfer) -> Transfer:
        for name in names:
            for variant in (name, f"{name}_"):
                packet = getattr(torch.ops.aten, variant, None)
                if packet is not None:
                    TRANSFERS[packet] = function
        return function

    return register


def packet_of(op: Any) -> Any:
    """The packet of an operator overload; module calls and the like as they are."""
    return getattr(op, "overloadpacket", op)


def functional(op: Any) -> Any:
    """The packet that computes what an in-place operator writes."""
    packet = packet_of(op)
    name = packet._qualified_op_name.partition("::")[2]
    if name.endswith("_") and not name.endswith("__"):
        return getattr(torch.ops.aten, name[:-1], None)
    return packet


def arguments_of(node: Node) -> dict[str, Any]:
    """Arguments of a call by the names of the operator's schema, defaults filled in."""
    schema = getattr(node.op, "_schema", None)
    if schema is None:
        return {**{str(i): value for i, value in enumerate(node.args)}, **node.kwargs}
    given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return defaults | given
