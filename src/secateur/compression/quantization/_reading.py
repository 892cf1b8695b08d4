"""A quantised target: its scale and zero point on the module, and what it is read as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._errors import QuantizationError
from ..config import Target
from ._grid import Grid, on_grid, scale_and_zero

if TYPE_CHECKING:
    from ._fusing import Chain


class Quantized:
    """One quantised target; see :class:`secateur.compression.sites.Reading`.

    Scale and zero point are buffers of the module, ``weight_scale`` and ``weight_zero_point``; before the
    range of the target is known they are None, and the target is read as it is.

    Attributes:
        target: which.
        on: whether values are rounded; ranges can be watched without.
        watching: whether ranges are watched in eval mode too.
        chain: the BatchNorm behind a weight, which is a part of it.
        tracked: the least and largest values that the range was made of.
    """

    idempotent = True
    """Whether a rounded value is read as it is."""
    keeps_zero = True
    """Whether zero is read as zero; what does not keep it is masked once more."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.settings = target.settings
        self.low, self.high = target.settings.limits
        self.on = target.settings.apply_method != "bypass"
        self.watching = False
        self.chain: Chain | None = None
        self.tracked: tuple[Tensor, Tensor] | None = None
        self._homes: list[tuple[nn.Module, str]] = []
        self._handles: list[RemovableHandle] = []
        self._kept: tuple[Tensor | None, Tensor | None] = (None, None)

    # -- where its tensors are ---------------------------------------------------------------------

    def put(self, module: nn.Module, name: str) -> None:
        """Put scale and zero point on a module."""
        self._homes.append((module, name.replace(".", "_")))
        for what, value in zip(("scale", "zero_point"), self._kept, strict=True):
            self._register(module, f"{self._homes[-1][1]}_{what}", value)
        self._handles.append(module.register_load_state_dict_pre_hook(self._before_load))

    def take(self, module: nn.Module, name: str) -> None:
        """Take them off, and remember them."""
        home = (module, name.replace(".", "_"))
        self._kept = (self.scale, self.zero_point)
        self._homes.remove(home)
        for what in ("scale", "zero_point"):
            for registry in (module._buffers, module._parameters):
                registry.pop(f"{home[1]}_{what}", None)
        while self._handles and not self._homes:
            self._handles.pop().remove()

    def _register(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if name in module._parameters or name in module._buffers or hasattr(module, name):
            raise QuantizationError(
                f"{self.target.path}: the module has a {name!r} of its own, where that of the quantiser "
                "would be"
            )
        module.register_buffer(name, value)

    def _get(self, what: str) -> Tensor | None:
        module, name = self._homes[0]
        found = module._buffers.get(f"{name}_{what}")
        return found if found is not None else module._parameters.get(f"{name}_{what}")

    @property
    def scale(self) -> Tensor | None:
        """The scale, None before the range is known; see :class:`Grid`."""
        return self._get("scale") if self._homes else self._kept[0]

    @property
    def zero_point(self) -> Tensor | None:
        """The zero point, of the same shape."""
        return self._get("zero_point") if self._homes else self._kept[1]

    @property
    def known(self) -> bool:
        """Whether the range is known."""
        return self.scale is not None

    def write(self, scale: Tensor, zero_point: Tensor) -> None:
        """Set scale and zero point."""
        scale, zero_point = scale.detach().clone(), zero_point.detach().clone()
        if not self._homes:
            self._kept = (scale, zero_point)
        for module, name in self._homes:
            module._buffers[f"{name}_scale"] = scale
            module._buffers[f"{name}_zero_point"] = zero_point

    def _before_load(self, module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for the scale of a checkpoint, whose shape only the checkpoint knows."""
        for home, name in self._homes:
            saved = state.get(f"{prefix}{name}_scale"), state.get(f"{prefix}{name}_zero_point")
            if home is module and saved[0] is not None and saved[1] is not None:
                self.write(saved[0], saved[1])

    # -- what it is read as ------------------------------------------------------------------------

    def __call__(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """The target as it is read."""
        if not tensor.is_floating_point():
            return tensor
        value = self.before(tensor)
        if module.training or self.watching:
            self.watch(value)
        return self.rounded(value, training=module.training) if self.on and self.known else value

    def before(self, tensor: Tensor) -> Tensor:
        """What is rounded: the target, or what folding a norm makes of it."""
        return tensor if self.chain is None else self.chain.scaled(tensor)

    def after(self, value: Tensor) -> Tensor:
        """The target of which :meth:`before` makes ``value``."""
        return value if self.chain is None else self.chain.unscaled(value)

    def watch(self, value: Tensor) -> None:
        """Take notice of a value, in training or while ranges are watched."""

    def refresh(self, value: Tensor) -> None:
        """A parameter has changed: take notice of its value."""

    def rounded(self, value: Tensor, *, training: bool) -> Tensor:
        """The value on the grid."""
        scale, zero_point = self.scale, self.zero_point
        assert scale is not None
        assert zero_point is not None
        self._check_shape(scale, value)
        return on_grid(value, scale, zero_point, self.low, self.high)

    def _check_shape(self, scale: Tensor, value: Tensor) -> None:
        fits = not scale.dim() or (
            scale.dim() == value.dim()
            and all(whole % size == 0 for whole, size in zip(value.shape, scale.shape, strict=True))
        )
        if not fits:
            raise QuantizationError(
                f"{self.target.path} has shape {tuple(value.shape)} here, and its scales {tuple(scale.shape)}"
            )

    def fit(self, least: Tensor, most: Tensor) -> None:
        """Make scale and zero point of a range."""
        self.tracked = (least, most)
        self.write(*scale_and_zero(least, most, self.settings))

    def scale_shape(self) -> tuple[int, ...] | None:
        """The shape of its scales; None for an input or output that has to be seen first."""
        if self.settings.granularity.name == "tensor":
            return ()
        if self.target.shape is None:
            return None
        counts = self.target.counts()
        return () if all(size == 1 for size in counts) else counts

    def blocks(self, value: Tensor) -> tuple[int, ...]:
        """The size of what has one scale."""
        return self.target.blocks(tuple(value.shape))

    def grid(self) -> Grid | None:
        """The grid, None before the range is known."""
        scale, zero_point = self.scale, self.zero_point
        if not self.known or scale is None or zero_point is None:
            return None
        settings = self.settings
        zero_point = zero_point.detach().round().to(torch.int32)
        return Grid(
            scale.detach(), zero_point, self.low, self.high, settings.quant_dtype, settings.quant_scheme
        )

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Tensors and numbers to go on from."""
        return {
            "scale": _copy(self.scale),
            "zero_point": _copy(self.zero_point),
            "tracked": None if self.tracked is None else [_copy(value) for value in self.tracked],
            "on": self.on,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state` gave."""
        if state["scale"] is not None:
            self.write(state["scale"], state["zero_point"])
        if state["tracked"] is not None:
            self.tracked = (state["tracked"][0].clone(), state["tracked"][1].clone())
        self.on = bool(state["on"])


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()
