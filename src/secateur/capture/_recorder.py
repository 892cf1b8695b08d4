"""The recorder: a real run of the model, watched where PyTorch dispatches its operators.

Operators are seen *below autograd and above their decomposition*: ``linear``, ``einsum``,
``scaled_dot_product_attention`` or ``lstm`` arrive whole, as the user's code called them, and the
sizes that the code wrote into its calls are still in their arguments. What has no rule and is
composed of other operators is recorded as its pieces.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from .._errors import CaptureError
from ._copies import copy_with
from ._ghost import Ghost, ghost_of
from ._graph import Graph, Node, Ref, Site, Source, Value, map_tree
from ._lists import DispatchedLists
from ._modules import ModuleStack, owned_tensors, unwrap
from ._operators import is_composite, is_inplace_view, may_alias, writes_operands, written_arguments
from ._pytree import map_tensors, named_tensors
from ._shapes import Shapes
from ._state import untouched, without_gc

_SMALL = 2**21
_FEW = 16
_TORCH = str(Path(torch.__file__).parent) + "/"
_HERE = str(Path(__file__).parent.parent) + "/"


@dataclass(frozen=True)
class ModuleCall:
    """The operator of a node that records the call of one whole module.

    ``opaque`` marks a module that the user asked to keep whole (``leaf_modules``). ``settings`` are
    its attributes that are plain numbers, for the rule to read.
    """

    type: type
    path: str
    opaque: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return self.type.__name__


@dataclass(frozen=True)
class Detail:
    """How finely to record.

    ``has_rule(op)`` says whether an operator or module type is understood whole; ``is_leaf(path,
    module)`` whether the user wants the module kept whole.
    """

    has_rule: Callable[[Any], bool]
    is_leaf: Callable[[str, nn.Module], bool] = lambda path, module: False

    def call_of(self, path: str, module: nn.Module) -> ModuleCall | None:
        """The node that stands for ``module``, or None to record what is inside it."""
        if self.is_leaf(path, module):
            return ModuleCall(type(module), path, opaque=True)
        if not self.has_rule(type(module)):
            return None
        numbers = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float))}
        return ModuleCall(type(module), path, settings=numbers)


def below_autograd() -> Any:
    """Dispatch under autograd, where composite operators arrive whole."""
    return torch._C._AutoDispatchBelowAutograd()


def record(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    detail: Detail,
) -> Graph:
    """Run ``model`` once and return the graph of what it dispatched.

    The model's code is run in eval mode, without gradients, and the model is afterwards exactly as
    it was. If the model is large and its code asks for no value of a tensor, it is run on ghosts,
    for shapes only: the same operators in the same order, without the arithmetic. Else it is run
    for real.

    Args:
        model: any ``nn.Module``; wrappers such as ``DataParallel`` are looked through.
        args: positional arguments of its forward, tensors anywhere inside.
        kwargs: keyword arguments, likewise.
        detail: what to record whole.

    Raises:
        CaptureError: when the model's forward raises; the cause is attached.
        UnsupportedModelError: for TorchScript and for things that are no module.
    """
    model = unwrap(model)
    start = time.perf_counter()
    large = sum(parameter.numel() for parameter in model.parameters()) > _SMALL
    with without_gc():
        # The arithmetic of a small model is less work than finding out shapes without it.
        graph = _record_shapes(model, tuple(args), kwargs or {}, detail) if large else None
        if graph is None:
            graph = _run(Recorder(model, detail), model, tuple(args), kwargs or {})
    graph.seconds = time.perf_counter() - start
    return graph


def _record_shapes(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], detail: Detail
) -> Graph | None:
    """Record on ghosts, which costs no arithmetic, or return None where the code needs values.

    The code takes the same path: whatever asks for a value of a tensor that is not known raises.
    """
    try:
        shadow = copy_with(model, lambda source, name, tensor: ghost_of(tensor))
        inputs = map_tensors((args, kwargs), ghost_of)
        recorder = Recorder(shadow, detail, compute=Shapes().run)
        graph = _run(recorder, shadow, *inputs)
    except Exception:
        return None
    graph.shadow = shadow
    return graph


def _run(recorder: Recorder, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    # The model may write into its inputs: it gets tensors of its own.
    args, kwargs = recorder.take_inputs(args, kwargs)
    with untouched(model), recorder.running():
        try:
            with DispatchedLists(), below_autograd(), recorder:
                result = model(*args, **kwargs)
        except Exception as error:
            raise CaptureError(recorder.explain(error)) from error
        finally:
            recorder.undo_writes()
    recorder.take_outputs(result)
    return recorder.graph


def _run_operator(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


class Recorder(TorchDispatchMode):
    """Writes every operator that is dispatched into a :class:`Graph`."""

    def __init__(self, model: nn.Module, detail: Detail, compute: Callable[..., Any] = _run_operator) -> None:
        super().__init__()
        self.graph = Graph()
        self._compute = compute
        self._detail = detail
        self._stack = ModuleStack(model)
        self._ids: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._alive: list[torch.Tensor] = []
        # Each tensor that was written into, as it was: its shape and memory, and its values.
        self._before_write: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._paused = False
        self.graph.called = self._stack.called
        self.graph.module_types = {path: type(module) for path, module in self._stack.modules.items()}
        for source, name, tensor in owned_tensors(model):
            self._register(tensor, source, name)

    # -- tensors ---------------------------------------------------------------------------------

    def _known(self, tensor: torch.Tensor) -> int | None:
        entry = self._ids.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _register(self, tensor: torch.Tensor, source: Source, name: str = "", base: int = -1) -> int:
        known = self._known(tensor)
        if known is not None:
            value = self.graph.values[known]
            if name and name not in value.names and source is value.source:
                value.names = (*value.names, name)
            return known
        id_ = len(self.graph.values)
        value = Value(
            id_, tuple(tensor.shape), tensor.dtype, tensor.device, source,
            (name,) if name else (), base if base >= 0 else id_, tensor.requires_grad,
            None if tensor.is_contiguous() else tensor.stride(),
        )  # fmt: skip
        self.graph.values.append(value)
        if isinstance(tensor, Ghost):
            tensor.value_id = id_
        self._ids[id(tensor)] = (weakref.ref(tensor), id_)
        return id_

    def take_inputs(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Copies of the inputs, registered under their paths."""
        args, kwargs = map_tensors((tuple(args), dict(kwargs)), _own)
        for path, tensor in [*named_tensors(args, "args"), *named_tensors(kwargs, "kwargs")]:
            self._alive.append(tensor)
            self.graph.inputs[path] = self._register(tensor, Source.INPUT, path)
        self.graph.call = self._flat((args, kwargs))
        return args, kwargs

    def _flat(self, tree: Any) -> tuple[list[Any], Any]:
        leaves, spec = tree_flatten(tree)
        refs = [Ref(self._register(x, Source.CONSTANT)) if isinstance(x, torch.Tensor) else x for x in leaves]
        return refs, spec

    def take_outputs(self, result: Any) -> None:
        """Note which tensors the model returned."""
        for path, tensor in named_tensors(result, "output"):
            self.graph.outputs[path] = self._register(tensor, Source.CONSTANT)
        self.graph.result = self._flat(result)

    # -- running ---------------------------------------------------------------------------------

    def running(self) -> Any:
        """Context in which module paths are followed and whole modules are recorded as one node."""
        for path, module in self._stack.modules.items():
            call = self._detail.call_of(path, module)
            if call is not None:
                module.forward = self._whole(call, module)  # `untouched` takes it off again
        return self._stack.watching()

    def _whole(self, call: ModuleCall, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return forward(*args, **kwargs)
            # Attribute access runs parametrizations: outside of the pause, so they are recorded.
            state = {name: getattr(module, name) for name, _ in module.named_parameters(recurse=False)}
            state |= {name: tensor for name, tensor in module.named_parameters() if "." in name}
            node_kwargs = {**kwargs, "module": state}
            self._paused = True
            try:
                result = forward(*args, **kwargs)
            finally:
                self._paused = False
            self._write(call, args, node_kwargs, result)
            return result

        return recorded

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if writes_operands(func):
            self._protect(func, args, kwargs)
        if self._paused:
            return self._compute(func, args, kwargs)
        if is_composite(func) and not self._detail.has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = self._compute(func, args, kwargs)
        self._write(func, args, kwargs, result)
        return result

    def _write(self, op: Any, args: Any, kwargs: Any, result: Any) -> None:
        inputs: list[int] = []
        outputs: list[int] = []

        def read(tensor: torch.Tensor) -> Ref:
            known = self._known(tensor)
            if known is None:
                known = self._register(tensor, Source.CONSTANT)
                self.graph.constants[known] = _as_it_is(tensor)
            inputs.append(known)
            return Ref(known)

        def made(tensor: torch.Tensor) -> Ref:
            outputs.append(self._register(tensor, Source.OPERATOR, base=base))
            return Ref(outputs[-1])

        node_args = map_tree(args, torch.Tensor, read)
        node_kwargs = map_tree(kwargs, torch.Tensor, read)
        # A view shares memory with its first operand; more than that is not needed of it.
        base = self.graph.values[inputs[0]].base if inputs and may_alias(op) else -1
        if is_inplace_view(op):
            # The same tensor, with other dimensions from now on: another value.
            del self._ids[id(args[0])]
        node_result = map_tree(result, torch.Tensor, made)
        index, module, site = len(self.graph.nodes), self._stack.path, call_site()
        self.graph.nodes.append(
            Node(index, op, node_args, node_kwargs, node_result, module, site, inputs, outputs)
        )

    # -- leave no trace ----------------------------------------------------------------------------

    def _protect(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the value of a tensor that the model owns before an operator writes into it."""
        for target in written_arguments(func, args, kwargs):
            if not isinstance(target, torch.Tensor) or isinstance(target, Ghost):
                continue
            base = target if target._base is None else target._base
            known = self._known(base)
            if known is None or known in self._before_write:
                continue
            if self.graph.values[known].source in (Source.PARAMETER, Source.BUFFER, Source.ATTRIBUTE):
                self._before_write[known] = (base, base.detach(), base.detach().clone())

    def undo_writes(self) -> None:
        """Give parameters, buffers and attributes that were written into their values back."""
        for tensor, before, value in self._before_write.values():
            if (tensor.shape, tensor.stride()) != (before.shape, before.stride()):
                tensor.data = before
            tensor.detach().copy_(value)

    def explain(self, error: Exception) -> str:
        """What to tell a user whose forward raised."""
        where = self._stack.place_of(error)
        inputs = ", ".join(
            f"{path}: {tuple(self.graph.values[id_].shape)} {self.graph.values[id_].dtype}"
            for path, id_ in self.graph.inputs.items()
        )
        return (
            f"the model's forward raised {type(error).__name__} in {where}: {error}\n"
            f"It was called with {inputs or 'no tensors'}. Check that model(*args, **kwargs) runs."
        )


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """A constant; a small one as a copy, since the code may write into its own."""
    if tensor.numel() > _FEW or isinstance(tensor, Ghost):
        return tensor
    with _disable_current_modes():
        return tensor.detach().clone()


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return ghost_of(tensor) if isinstance(tensor, Ghost) else tensor.detach().clone()


def call_site() -> Site | None:
    """The innermost frame of the user's own code, or of a library other than torch."""
    frame = sys._getframe(2)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return Site(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return None


@lru_cache(maxsize=4096)
def _is_users(filename: str) -> bool:
    return not filename.startswith((_TORCH, _HERE, "<"))
