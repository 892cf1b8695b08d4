"""Hooks that an evaluator carries while it trains: NNI's ``TensorHook``, ``ForwardHook``,
``BackwardHook``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Factory = Callable[[list[Any]], Callable[..., Any]]


class Hook(ABC):
    """A hook that can be put on and taken off, with a list for what it finds.

    Args:
        target: what the hook is on.
        target_name: what to call it.
        hook_factory: from the list ``buffer`` to the hook itself.
    """

    def __init__(self, target: Any, target_name: str, hook_factory: Factory) -> None:
        self.target = target
        self.target_name = target_name
        self.hook_factory = hook_factory
        self.buffer: list[Any] = []
        self._handle: RemovableHandle | None = None

    @abstractmethod
    def _register(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Put the hook on."""

    def register(self) -> None:
        """Put the hook on; nothing happens if it is."""
        if self._handle is None:
            self._handle = self._register(self.hook_factory(self.buffer))

    def remove(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class TensorHook(Hook):
    """A hook on the gradient of a tensor: ``hook(gradient)``."""

    target: Tensor

    def _register(self, hook: Callable[..., Any]) -> RemovableHandle:
        return self.target.register_hook(hook)


class ForwardHook(Hook):
    """A hook on the forward of a module: ``hook(module, inputs, output)``."""

    target: nn.Module

    def _register(self, hook: Callable[..., Any]) -> RemovableHandle:
        return self.target.register_forward_hook(hook)


class BackwardHook(Hook):
    """A hook on the backward of a module: ``hook(module, gradients of inputs, gradients of outputs)``."""

    target: nn.Module

    def _register(self, hook: Callable[..., Any]) -> RemovableHandle:
        return self.target.register_full_backward_hook(hook)
