"""The module tree as the recorder sees it: wrappers, paths, and the tensors that modules own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from .._errors import UnsupportedModelError
from ._graph import Source


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``.

    Raises:
        UnsupportedModelError: for anything that is not an ``nn.Module``, and for TorchScript.
    """
    if isinstance(model, torch.export.ExportedProgram):
        return model.module()
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"expected an nn.Module, got {type(model).__name__}")
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, wrappers) else model._orig_mod  # type: ignore[assignment]
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"its submodule {path!r}" if path else "the model"
            raise UnsupportedModelError(
                f"{where} is a TorchScript module, whose code and sizes are compiled in. "
                "Prune the original nn.Module and script the result."
            )
    return model


def owned_tensors(model: nn.Module) -> Iterator[tuple[Source, str, torch.Tensor]]:
    """Every parameter, buffer and plain tensor attribute with its path; tied ones once a path."""
    modules = _with_prefixes(model, "", [])
    for prefix, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield Source.PARAMETER, prefix + name, parameter
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield Source.BUFFER, prefix + name, buffer
    seen: set[nn.Module] = set()
    for prefix, module in modules:
        attributes = {} if module in seen else vars(module)
        seen.add(module)
        for name, value in attributes.items():
            if name not in _OF_EVERY_MODULE:
                for where, tensor in _tensors_inside(value, prefix + name):
                    yield Source.ATTRIBUTE, where, tensor


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _with_prefixes(
    module: nn.Module, prefix: str, found: list[tuple[str, nn.Module]]
) -> list[tuple[str, nn.Module]]:
    """Every module with the beginning of its tensors' paths, under all of its own paths.

    What ``named_modules(remove_duplicate=False)`` gives, without a generator for each level.
    """
    found.append((prefix, module))
    for name, child in module._modules.items():
        if child is not None:
            _with_prefixes(child, f"{prefix}{name}.", found)
    return found


def _tensors_inside(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if isinstance(item, torch.Tensor):
                yield f"{path}[{index}]", item
    elif type(value) is dict:
        for key, item in value.items():
            if isinstance(item, torch.Tensor):
                yield f"{path}[{key!r}]", item


class ModuleStack:
    """Knows which module's forward is running, by torch's own global forward hooks.

    Attributes:
        modules: every module by its path.
        called: paths of those whose forward was called while the body of :meth:`watching` ran.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self._paths = {module: path for path, module in self.modules.items()}
        self._stack: list[str] = [""]
        self.called: set[str] = set()

    @property
    def path(self) -> str:
        """Path of the innermost module whose forward is running."""
        return self._stack[-1]

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Follow forward calls while the body runs."""
        self._stack = [""]
        enter = register_module_forward_pre_hook(self._enter)
        leave = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def place_of(self, error: BaseException) -> str:
        """The innermost module in whose code ``error`` was raised, for a message."""
        where, trace = "", error.__traceback__
        while trace is not None:
            owner = trace.tb_frame.f_locals.get("self")
            if isinstance(owner, nn.Module):
                where = self._paths.get(owner, where)
            trace = trace.tb_next
        return f"module {where!r}" if where else "the model itself"

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._paths.get(module)
        if path is not None:
            self._stack.append(path)
            self.called.add(path)

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        path = self._paths.get(module)
        if path is not None and self._stack[-1] == path and len(self._stack) > 1:
            self._stack.pop()
