"""Taps: what goes into and comes out of modules, kept until a loss has been made of it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._errors import DistillationError
from ...speedups import argument_position, replace_item
from ..config import Target, TargetKind


class Tap:
    """Keeps an input or output of a module, call by call.

    Args:
        module: the module.
        target: which input or output; of a module of the teacher, the name counts.
        owner: whose module it is, for messages.
        path: of the module in its model.
        trained: keep only what a loss can be made of: what is run with gradients, and not what gradient
            checkpointing runs again in the backward pass.

    Attributes:
        values: what has been kept.
    """

    def __init__(
        self, module: nn.Module, target: Target, owner: str, path: str, *, trained: bool = False
    ) -> None:
        self.module, self.target, self.trained = module, target, trained
        self.where = f"module {path!r} of the {owner}, target {target.name!r}"
        self.values: list[Tensor] = []
        self._handle: RemovableHandle | None = None

    def put_on(self) -> None:
        """Begin to keep; nothing happens if it does."""
        if self._handle is not None:
            return
        hook = _Hook(self)
        if self.target.kind is TargetKind.INPUT:
            self._handle = self.module.register_forward_pre_hook(hook.before, with_kwargs=True)
        else:
            self._handle = self.module.register_forward_hook(hook.after)

    def take_off(self) -> None:
        """Stop, and forget what was kept."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self.values = None, []

    def take(self) -> list[Tensor]:
        """What has been kept since the last time.

        Raises:
            DistillationError: if it is nothing.
        """
        values, self.values = self.values, []
        if not values:
            raise DistillationError(f"{self.where}: the module was not run for this loss")
        return values

    def keep(self, value: Any) -> Any:
        """Keep a tensor, and give it back."""
        if not isinstance(value, Tensor):
            raise DistillationError(f"{self.where}: this is no tensor but {type(value).__name__}")
        self.values.append(value)
        return value

    @property
    def keeps(self) -> bool:
        """Whether what is run at the moment is kept."""
        # The number of the backward pass that is going on, -1 for none, as torch's checkpointing asks.
        return not self.trained or (torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1)


class _Hook:
    """What a module carries. Copies and pickles of the module carry one that does nothing."""

    def __init__(self, tap: Tap | None = None) -> None:
        self.tap = tap

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tap = self.tap
        if tap is None or not tap.keeps:
            return
        target = tap.target
        if target.argument in kwargs:
            replace_item(kwargs, str(target.argument), tap.where, tap.keep)
            return
        index = target.key if isinstance(target.key, int) else target.position
        if index is None:
            index = argument_position(module, str(target.key), tap.where)
        replace_item(args, str(index), tap.where, tap.keep)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.tap is not None and self.tap.keeps:
            replace_item(output, str(self.tap.target.key), self.tap.where, self.tap.keep)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return type(self), ()


@contextmanager
def tapped(taps: Iterable[Tap]) -> Generator[None]:
    """Keep while the body runs; what was kept is there at its end, and forgotten after."""
    taps = list(taps)
    try:
        for tap in taps:
            tap.put_on()
        yield
    finally:
        for tap in taps:
            tap.take_off()
