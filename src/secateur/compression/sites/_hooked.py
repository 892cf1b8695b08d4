"""What goes into and comes out of modules, and their buffers, simulated by hooks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._errors import CompressionError
from ...speedups import argument_position, replace_item
from ..config import Target, TargetKind
from ._site import Gate, Reading, Site


@dataclass(eq=False)
class ActivationSite:
    """An input or output of a module, masked and quantised by a hook.

    The mask is a compact buffer, such as ``(1, 16, 1, 1)``; there is none before the first masks are made.

    Attributes:
        shape: of the last activation that was seen.
        looks: functions that get every activation before it is masked.
        records: functions that get every activation after everything else.
    """

    module: nn.Module
    target: Target
    shape: tuple[int, ...] | None = None
    looks: list[Callable[[Tensor], None]] = field(default_factory=list)
    records: list[Callable[[Tensor], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site = Site(self.target.name)

    @property
    def mask(self) -> Tensor | None:
        """The mask, compact; None before the first."""
        return self.module._buffers.get(self.site.buffer)

    def write(self, keep: Tensor) -> None:
        """Set the mask; its dimensions may be 1."""
        like = next(self.module.parameters(), torch.empty(0))
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        self.module._buffers[self.site.buffer] = keep.to(like.device, dtype, copy=True)

    def set_mask(self, apply_method: str) -> None:
        """Have it masked, the next time that the model is wrapped."""
        self.site.apply_method = apply_method

    def set_gate(self, gate: Gate | None) -> None:
        """Put a gate on the activation, or take it off."""
        self.site.gate = gate

    def set_reading(self, reading: Reading | None) -> None:
        """Say what is made of it after the mask, the next time that the model is wrapped."""
        self.site.reading = reading

    def hook(self) -> Iterator[RemovableHandle]:
        """Begin to simulate; a mask comes with its first values."""
        self.module._buffers.setdefault(self.site.buffer, None)
        if self.site.reading is not None:
            self.site.reading.put(self.module, self.site.name)
        yield self.module.register_load_state_dict_pre_hook(self._before_load)
        if self.target.kind is TargetKind.INPUT:
            yield self.module.register_forward_pre_hook(self._on_input, with_kwargs=True)
        else:
            yield self.module.register_forward_hook(self._on_output)

    def unhook(self) -> None:
        """Forget the mask, and take the rest off."""
        self.module._buffers.pop(self.site.buffer, None)
        if self.site.reading is not None:
            self.site.reading.take(self.module, self.site.name)

    def _before_load(self, module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for the mask of a checkpoint, whose shape only the checkpoint knows."""
        saved = state.get(prefix + self.site.buffer)
        if saved is not None:
            self.write(torch.ones_like(saved))

    def _on_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        target = self.target
        if target.argument in kwargs:
            return args, replace_item(kwargs, str(target.argument), self._where, self._simulated)
        index = target.key if isinstance(target.key, int) else target.position
        if index is None:
            index = argument_position(module, str(target.key), self._where)
        if index >= len(args):
            raise CompressionError(
                f"{self._where}: the module is called with {len(args)} positional arguments"
            )
        return tuple(replace_item(args, str(index), self._where, self._simulated)), kwargs

    def _on_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        return replace_item(output, str(self.target.key), self._where, self._simulated)

    def _simulated(self, tensor: Tensor) -> Tensor:
        self.shape = tuple(tensor.shape)
        for look in self.looks:
            look(tensor)
        mask = self.mask
        if mask is not None and not _fits(mask, tensor):
            raise CompressionError(
                f"{self._where}: the mask has shape {tuple(mask.shape)} and the tensor {tuple(tensor.shape)}"
            )
        result = self.site.apply(self.module, tensor)
        for record in self.records:
            record(result)
        return result

    @property
    def _where(self) -> str:
        return f"{self.target.module or 'the model'}, target {self.target.name!r}"


def _fits(mask: Tensor, tensor: Tensor) -> bool:
    return mask.dim() == tensor.dim() and all(
        m in (1, n) for m, n in zip(mask.shape, tensor.shape, strict=True)
    )


@dataclass(eq=False)
class BufferSite:
    """A buffer that is masked while its module runs; what the module writes to the rest of it stays."""

    module: nn.Module
    target: Target

    def __post_init__(self) -> None:
        if self.module._buffers.get(self.target.name) is None:
            raise CompressionError(f"{self.target.module}: there is no buffer {self.target.name!r}")
        self.site = Site(self.target.name)
        self._whole: Tensor | None = None

    @property
    def mask(self) -> Tensor | None:
        """The mask, of the buffer's shape; None if there is none."""
        return self.module._buffers.get(self.site.buffer)

    def write(self, keep: Tensor) -> None:
        """Set the mask to ``keep``, which may be broadcast."""
        mask = self.mask
        assert mask is not None
        mask.copy_(keep.expand(mask.shape))

    def set_mask(self, apply_method: str) -> None:
        """Have it masked, the next time that the model is wrapped."""
        self.site.apply_method = apply_method

    def set_gate(self, gate: Gate | None) -> None:
        """Buffers are not trained.

        Raises:
            CompressionError: for any gate.
        """
        if gate is not None:
            raise CompressionError(f"{self.target.module}.{self.target.name} is a buffer: it is not trained")

    def set_reading(self, reading: Reading | None) -> None:
        """Buffers are only masked: what their module writes to them has to be what it wrote.

        Raises:
            CompressionError: for any reading.
        """
        if reading is not None:
            raise CompressionError(f"{self.target.path} is a buffer: it can be masked, nothing else")

    def hook(self) -> Iterator[RemovableHandle]:
        """Begin to simulate, with a mask of ones if it is masked."""
        buffer = self.module._buffers[self.target.name]
        assert buffer is not None
        if self.site.has_mask:
            self.module.register_buffer(self.site.buffer, torch.ones_like(buffer))
            yield self.module.register_forward_pre_hook(self._enter)
            yield self.module.register_forward_hook(self._leave, always_call=True)

    def unhook(self) -> None:
        """Forget the mask."""
        self.module._buffers.pop(self.site.buffer, None)

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._whole = module._buffers[self.target.name]
        assert self._whole is not None
        module._buffers[self.target.name] = self.site.apply(module, self._whole)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        used, self._whole, whole = module._buffers[self.target.name], None, self._whole
        mask = self.mask
        if used is not None and whole is not None and mask is not None:
            with torch.no_grad():
                whole.copy_(torch.where(mask != 0, used, whole))
            module._buffers[self.target.name] = whole


@contextmanager
def looking(activation: ActivationSite, look: Callable[[Tensor], None]) -> Generator[None]:
    """Let ``look`` see every activation while the body runs."""
    activation.looks.append(look)
    try:
        yield
    finally:
        activation.looks.remove(look)
