"""The calibration config: what is known of every quantised target, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..._errors import QuantizationError, nearest
from ..sites import Key
from ._reading import Quantized

CalibrationConfig = dict[str, dict[str, dict[str, Any]]]
"""``{module: {target: entry}}``; see :meth:`Quantizer.get_calibration_config`."""


def entry_of(reading: Quantized) -> dict[str, Any]:
    """The entry of a target whose range is known."""
    grid, settings = reading.grid(), reading.settings
    assert grid is not None
    scale, zero_point = grid.scale.clone(), grid.zero_point.clone()
    least, most = reading.tracked or (
        (reading.low - zero_point) * scale,
        (reading.high - zero_point) * scale,
    )
    return {
        "scale": scale,
        "zero_point": zero_point,
        "quant_dtype": settings.quant_dtype,
        "quant_scheme": settings.quant_scheme,
        "quant_bits": settings.bits,
        "tracked_max": most.clone(),
        "tracked_min": least.clone(),
    }


def check_entry(
    reading: Quantized | None, module: str, name: str, entry: Mapping[str, Any], known: Iterable[Key]
) -> None:
    """Refuse an entry that does not fit its target."""
    where = f"{module}.{name}".lstrip(".")
    if reading is None:
        names = [".".join(key) for key in known]
        raise QuantizationError(
            f"{where} is no target of this quantiser"
            + (nearest(where, names) or f"; these are: {', '.join(names)}")
        )
    for key, own in (
        ("quant_dtype", reading.settings.quant_dtype),
        ("quant_scheme", reading.settings.quant_scheme),
        ("quant_bits", reading.settings.bits),
    ):
        if entry.get(key, own) != own:
            raise QuantizationError(f"{where}: {key} is {entry[key]!r}, and the configuration says {own!r}")
    missing = [key for key in ("scale", "zero_point") if entry.get(key) is None]
    if missing:
        raise QuantizationError(f"{where}: the entry has no {missing[0]!r}")
    scale, zero_point = (torch.as_tensor(entry[key]) for key in ("scale", "zero_point"))
    wanted = reading.scale_shape()
    wanted = tuple(scale.shape) if wanted is None else wanted
    if tuple(scale.shape) != wanted or scale.shape != zero_point.shape:
        raise QuantizationError(
            f"{where}: its scale has shape {tuple(scale.shape)} and its zero_point "
            f"{tuple(zero_point.shape)}, expected {wanted}"
        )
    if not bool((scale > 0).all()):
        raise QuantizationError(f"{where}: scales are above zero")


def write_entry(reading: Quantized, entry: Mapping[str, Any]) -> None:
    """Set a target to an entry that was checked."""
    scale, zero_point = torch.as_tensor(entry["scale"]), torch.as_tensor(entry["zero_point"])
    reading.write(scale.float(), zero_point)
    if entry.get("tracked_min") is not None and entry.get("tracked_max") is not None:
        ends: list[Tensor] = [torch.as_tensor(entry[key]) for key in ("tracked_min", "tracked_max")]
        reading.tracked = (ends[0].clone(), ends[1].clone())
