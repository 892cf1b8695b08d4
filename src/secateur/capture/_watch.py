"""Watching a model at work: the tensors that operators of the recorded graph read, on other inputs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .._errors import CaptureError
from ._graph import Graph, Ref
from ._operators import is_composite
from ._recorder import Detail, ModuleCall, below_autograd
from ._state import untouched

Look = Callable[[torch.Tensor], None]
Visit = Callable[[Mapping[int, torch.Tensor]], None]
"""What to do before a node of the recorded graph runs, given its operands by their ids there."""


class Watch:
    """Runs a model along its recorded graph, and shows the operands that are asked for.

    Args:
        graph: what was recorded.
        detail: how finely.
        wanted: for the index of a node, for the id of a tensor that it reads: what to do with it.
        visits: for the index of a node: what to do with all its operands, before it runs.
    """

    def __init__(
        self,
        graph: Graph,
        detail: Detail,
        wanted: Mapping[int, Mapping[int, Look]] | None = None,
        *,
        visits: Mapping[int, Visit] | None = None,
    ) -> None:
        self.graph = graph
        self.visits = {**{index: _each(looks) for index, looks in (wanted or {}).items()}, **(visits or {})}
        self.has_rule = detail.has_rule
        self._detail = detail
        # Several threads may be inside one model, each in a run of its own.
        self._local = threading.local()

    def run(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model's output, in eval mode without gradients; the model is left as it was.

        Raises:
            CaptureError: if the model takes another path through its code than it did when recorded.
        """
        with self.ready(model):
            return self.call(model, args, kwargs)

    @contextmanager
    def ready(self, model: nn.Module) -> Generator[None]:
        """Make a model ready to be called by :meth:`call`, any number of times."""
        with untouched(model):
            for path, module in model.named_modules():
                call = self._detail.call_of(path, module)
                if call is not None:
                    module.forward = self._whole(call, module)  # `untouched` takes it off again
            yield

    def call(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As :meth:`run`, for a model that is ready."""
        self._local.walk = walk = _Walk(self)
        with torch.no_grad(), below_autograd(), walk:
            return model(*args, **kwargs)

    def _whole(self, call: ModuleCall, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            walk = self._local.walk
            if walk.paused:
                return forward(*args, **kwargs)
            for name, _ in module.named_parameters(recurse=False):
                getattr(module, name)  # runs parametrizations, which were recorded too
            walk.paused = True
            try:
                result = forward(*args, **kwargs)
            finally:
                walk.paused = False
            walk.step(call, args, kwargs)
            return result

        return watched


class _Walk(TorchDispatchMode):
    """One run along the graph."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._reached = 0
        self.paused = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if is_composite(func) and not self._watch.has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self.step(func, args, kwargs)
        return func(*args, **kwargs)

    def step(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Go to the next node, which has to be this call."""
        nodes = self._watch.graph.nodes
        if self._reached >= len(nodes):
            raise CaptureError(f"the model goes on with {op} where it ended when it was recorded")
        node = nodes[self._reached]
        self._reached += 1
        if node.op != op:
            raise CaptureError(
                f"the model calls {op} where {node} was recorded: its path through the code depends on the "
                "inputs. Record it at inputs like these: ir.create_snapshot(name, args=...)"
            )
        visit = self._watch.visits.get(node.index)
        if visit is not None:
            visit(dict(_pairs((node.args, node.kwargs), (args, kwargs))))


def _each(looks: Mapping[int, Look]) -> Visit:
    def visit(operands: Mapping[int, torch.Tensor]) -> None:
        for id_, look in looks.items():
            if id_ in operands:
                look(operands[id_])

    return visit


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
