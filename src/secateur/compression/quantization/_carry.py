"""What is left of the scales after a cut: those of the channels that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import QuantizationError
from ...surgery import TensorChange
from ..config import Target, TargetKind, channels_of, find_target
from ._bias import give_shifts, rounded_layers, shifts_to
from ._calibration import CalibrationConfig

if TYPE_CHECKING:
    from ...report import PruneReport
    from ...speedups import SpeedupReport
    from ._quantizer import Quantizer

_SLICED = ("scale", "zero_point", "tracked_min", "tracked_max")


def carry_calibration(
    quantizer: Quantizer, config: CalibrationConfig, report: SpeedupReport | PruneReport
) -> CalibrationConfig:
    """The calibration config for a model that was cut.

    A scale for each channel is sliced with its channels, one for a whole tensor stays. A weight that the cut
    multiplied by a factor (to keep a mean what it was) takes its scale along; where the factor is not one for
    each scale, the entry is left out, and the range is to be found anew.

    Args:
        quantizer: of the model as it was.
        config: its calibration config.
        report: of the speed-up, or of a :class:`~secateur.PruningIR` that was cut in place.

    Raises:
        QuantizationError: where scales are of blocks that were cut in part, or of channels of an input or
            output of a module without a weight to tell which.
    """
    cuts = _cuts(report)
    found: CalibrationConfig = {}
    for module, targets in config.items():
        for name, entry in targets.items():
            new = _carried(quantizer, quantizer.resolved.target(module, name), entry, cuts)
            if new is not None:
                found.setdefault(module, {})[name] = new
    return found


@dataclass(frozen=True)
class _Cut:
    """What happened to a parameter.

    ``before`` is its shape, and ``places`` has for every dimension the original positions of those that it
    has now, by group where these differ; None where nothing happened.
    """

    before: tuple[int, ...]
    places: tuple[Tensor | None, ...]
    change: TensorChange | None = None


def _cuts(report: SpeedupReport | PruneReport) -> dict[str, _Cut]:
    found = {
        name: _Cut(tuple(0 if p is None else p.shape[-1] for p in places), places)
        for name, places in getattr(report, "origins", {}).items()
    }
    for change in report.plan.tensors if report.plan is not None else ():
        places = tuple(None if p is None else torch.as_tensor(p) for p in change.positions)
        for name in change.names:
            known = found.get(name)
            found[name] = _Cut(change.before, known.places if known is not None else places, change)
    return found


def _carried(
    quantizer: Quantizer, target: Target, entry: Mapping[str, Any], cuts: Mapping[str, _Cut]
) -> dict[str, Any] | None:
    new = dict(entry)
    if target.kind is TargetKind.PARAMETER:
        cut = cuts.get(target.path)
        if cut is None:
            return new
        groups = _groups(target)
        for dim, places in enumerate(cut.places):
            for key in _SLICED:
                new[key] = _sliced(new[key], dim, places, cut.before[dim], target, groups)
        return new if cut.change is None else _multiplied(new, cut.change)
    if entry["scale"].dim():
        dim, places, before = _channels_of_activation(quantizer, target, entry["scale"], cuts)
        for key in _SLICED:
            new[key] = _sliced(new[key], dim, places, before, target)
    return new


def check_following(quantizer: Quantizer, config: CalibrationConfig) -> None:
    """Refuse, before a cut, scales that could not follow it.

    Raises:
        QuantizationError: for scales of blocks, or of channels of an input or output of a module without a
            weight to tell which are left.
    """
    for module, targets in config.items():
        for name, entry in targets.items():
            target, scale = quantizer.resolved.target(module, name), entry["scale"]
            if target.shape is None and scale.dim():
                _next_weight(quantizer, target)
            groups = _groups(target)
            for dim, (size, count) in enumerate(zip(target.shape or (), scale.shape, strict=False)):
                if 1 < count < size and (dim, count) != (0, groups):
                    raise QuantizationError(_of_blocks(target, size // count))


def _groups(target: Target) -> int:
    """Of a convolution, before the cut; an input channel of its weight has a scale for each group."""
    into = target.channels.into
    return target.shape[0] // into[0] if target.shape and into and into[0] else 1


def _of_blocks(target: Target, size: int) -> str:
    return (
        f"{target.path}: its scales are of blocks of {size} positions, and a cut takes single ones: give it "
        "a scale for each channel, or one"
    )


def _sliced(
    values: Tensor, dim: int, places: Tensor | None, before: int, target: Target, groups: int = 1
) -> Tensor:
    if not values.dim() or values.shape[dim] == 1 or places is None:
        return values
    places = places.to(values.device)
    if values.shape[dim] != before:
        if dim != 0 or values.shape[0] != groups:
            raise QuantizationError(_of_blocks(target, before // values.shape[dim]))
        # A scale for each group: those of which anything stays.
        left = sorted({place // (before // groups) for place in places.tolist()})
        places = torch.tensor(left, device=values.device)
    if places.dim() == 1:
        return values.index_select(dim, places)
    if values.shape[0] != places.shape[0]:
        raise QuantizationError(
            f"{target.path}: channels changed places in another way in each group, and its scales are not by "
            "group: calibrate the small model anew"
        )
    index = places.reshape(*places.shape, *[1] * (values.dim() - 2))
    return values.gather(dim, index.expand(*places.shape, *values.shape[2:]))


def _multiplied(entry: dict[str, Any], change: TensorChange) -> dict[str, Any] | None:
    """The entry with the factors that the cut multiplied a weight by; None where scales cannot take them."""
    for dim, positions, factor in change.scales:
        whole = len(positions) == change.after[dim]
        scale = entry["scale"]
        along = bool(scale.dim()) and scale.shape[dim] == change.after[dim]
        if not (whole or along) or factor <= 0:
            return None
        for key in ("scale", "tracked_min", "tracked_max"):
            values = entry[key].clone()
            if along:
                index = torch.as_tensor(positions, device=values.device)
                values.index_copy_(dim, index, values.index_select(dim, index) * factor)
            entry[key] = values if along else values * factor
    return entry


def _channels_of_activation(
    quantizer: Quantizer, target: Target, scale: Tensor, cuts: Mapping[str, _Cut]
) -> tuple[int, Tensor | None, int]:
    """The channel dimension of an input or output, which channels stay, and how many there were."""
    module = _next_weight(quantizer, target)
    cut = cuts.get(f"{target.module}.weight".lstrip("."))
    channel = next(dim for dim, size in enumerate(scale.shape) if size > 1)
    if cut is None:
        return channel, None, scale.shape[channel]
    dim = _weight_dim(module, cut, target)
    return channel, cut.places[dim], cut.before[dim]


def _next_weight(quantizer: Quantizer, target: Target) -> nn.Module:
    """The module of an input or output, whose weight has its channels."""
    module = quantizer.bound_model.get_submodule(target.module)
    weight = find_target(module, "weight").tensor
    if weight is None or not (target.name == "_input_0" or target.kind is TargetKind.OUTPUT):
        raise QuantizationError(
            f"{target.path} has a scale for each channel, and {type(module).__name__} has no weight that "
            "says which are left: give it one scale (granularity 'default')"
        )
    grouped = getattr(module, "groups", 1) != 1 and weight.shape[1] != 1
    if grouped and target.kind is TargetKind.INPUT:
        raise QuantizationError(
            f"{target.path} has a scale for each channel of a grouped convolution, which are not followed: "
            "give it one scale (granularity 'default')"
        )
    return module


def _weight_dim(module: nn.Module, cut: _Cut, target: Target) -> int:
    """The dimension of the weight that has the channels of its input or output."""
    if len(cut.before) == 1:  # a norm: what goes in comes out
        return 0
    if target.kind is TargetKind.OUTPUT:
        return _channel_dims(module, cut.before)[0]
    if getattr(module, "groups", 1) != 1:  # depthwise: likewise
        return 0
    return _channel_dims(module, cut.before)[1]


def _channel_dims(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """The dimensions of a weight that have the output and the input channels."""
    channels = channels_of(module, "weight", torch.empty(shape, device="meta"))
    return _cut_dim(channels.out, shape, 0), _cut_dim(channels.into or (), shape, 1)


def _cut_dim(block: tuple[int, ...], shape: tuple[int, ...], single: int) -> int:
    """The dimension that blocks divide; ``single`` where there is one block."""
    sizes = enumerate(zip(block, shape, strict=False))
    return next((dim for dim, (part, size) in sizes if part < size), single)


def keep_constants(
    small: Quantizer, wanted: Mapping[str, Tensor], report: SpeedupReport, run: Callable[[], object]
) -> None:
    """Give biases what rounding made of the constants that a speed-up folded into them.

    A masked channel that is a constant adds its rounded value times rounded weights to what reads it, and the
    speed-up folded the exact one. The difference is one number for each channel of the reader's output, so it
    is the difference of the means.

    Args:
        small: the quantiser of the small model.
        wanted: means of the outputs of layers of the masked model.
        report: of the speed-up.
        run: runs the model at the inputs of these means.
    """
    layers, cuts = rounded_layers(small), _cuts(report)
    kept: dict[str, Tensor] = {}
    for path in wanted.keys() & layers.keys():
        cut = cuts.get(f"{path}.weight".lstrip("."))
        places = None if cut is None else cut.places[_channel_dims(layers[path], cut.before)[0]]
        kept[path] = wanted[path] if places is None else wanted[path][places.to(wanted[path].device)]
    shifts = shifts_to(layers, kept, run)
    give_shifts(small, {path: s for path, s in shifts.items() if _matters(s, kept[path])})


def _matters(shift: Tensor, mean: Tensor) -> bool:
    """Whether a shift is more than the rounding of sums."""
    return bool(shift.abs().max() > 1e-5 * (1 + mean.abs().max()))
