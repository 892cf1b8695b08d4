"""Watching a model at work: the tensors that operators of the recorded graph read, on other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .._errors import CaptureError
from ._graph import Graph, Node, Ref
from ._recorder import Detail, ModuleCall, below_autograd, is_composite
from ._state import untouched

Look = Callable[[torch.Tensor], None]


class Watch(TorchDispatchMode):
    """Runs a model along its recorded graph, and shows the operands that are asked for.

    Args:
        graph: what was recorded.
        detail: how finely.
        wanted: for the index of a node, for the id of a tensor that it reads: what to do with it.
    """

    def __init__(self, graph: Graph, detail: Detail, wanted: Mapping[int, Mapping[int, Look]]) -> None:
        super().__init__()
        self._graph = graph
        self._detail = detail
        self._wanted = wanted
        self._reached = 0
        self._paused = False

    def run(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model's output, in eval mode without gradients; the model is left as it was.

        Raises:
            CaptureError: if the model takes another path through its code than it did when recorded.
        """
        self._reached = 0
        with untouched(model):
            for path, module in model.named_modules():
                call = self._detail.call_of(path, module)
                if call is not None:
                    module.forward = self._whole(call, module)  # `untouched` takes it off again
            with below_autograd(), self:
                return model(*args, **kwargs)

    def _whole(self, call: ModuleCall, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return forward(*args, **kwargs)
            for name, _ in module.named_parameters(recurse=False):
                getattr(module, name)  # runs parametrizations, which were recorded too
            self._paused = True
            try:
                result = forward(*args, **kwargs)
            finally:
                self._paused = False
            self._step(call, args, kwargs)
            return result

        return watched

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if is_composite(func) and not self._detail.has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._step(func, args, kwargs)
        return func(*args, **kwargs)

    def _step(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._reached >= len(self._graph.nodes):
            raise CaptureError(f"the model goes on with {op} where it ended when it was recorded")
        node = self._graph.nodes[self._reached]
        self._reached += 1
        if node.op != op:
            raise CaptureError(
                f"the model calls {op} where {node} was recorded: its path through the code depends on the "
                "inputs. Record it at inputs like these: ir.create_snapshot(name, args=...)"
            )
        looks = self._wanted.get(node.index)
        if looks:
            self._show(node, looks, args, kwargs)

    def _show(
        self, node: Node, looks: Mapping[int, Look], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        shown: set[int] = set()
        for ref, tensor in _pairs((node.args, node.kwargs), (args, kwargs)):
            if ref in looks and ref not in shown:
                shown.add(ref)
                looks[ref](tensor)


def _pairs(recorded: Any, actual: Any) -> Iterator[tuple[int, torch.Tensor]]:
    """Ids of recorded tensors with the tensors that stand in their places now."""
    if isinstance(recorded, Ref):
        if isinstance(actual, torch.Tensor):
            yield recorded.id, actual
    elif isinstance(recorded, (list, tuple)) and isinstance(actual, (list, tuple)):
        for left, right in zip(recorded, actual, strict=False):
            yield from _pairs(left, right)
    elif isinstance(recorded, dict) and isinstance(actual, dict):
        for key, left in recorded.items():
            yield from _pairs(left, actual.get(key))
