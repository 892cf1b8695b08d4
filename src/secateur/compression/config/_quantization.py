"""The config list for quantisation: which tensors are rounded to which grid of integers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from ..._errors import nearest
from . import _values as values
from ._granularity import Granularity, block_for
from ._keys import Key, Mode
from ._problems import Problems
from ._selection import Catalogue
from ._targets import Target, TargetKind, find_target

AUTO_FUSION = "auto"
METHODS = ("clamp_round", "qat_clamp_round", "bypass")

_DTYPE = re.compile(r"(u?)int([2-8])")
_SHAPES = (
    "a Conv1d, Conv2d, Conv3d or Linear followed by its BatchNorm, by ReLU, or by both in this order; or a "
    "BatchNorm followed by ReLU"
)


@dataclass(frozen=True)
class QuantizationSettings:
    """How one target is quantised.

    Attributes:
        quant_dtype: the integers: ``int2`` to ``int8`` (as many below zero as above), ``uint2`` to ``uint8``.
        quant_scheme: ``symmetric`` (zero in the middle) or ``affine`` (zero where the range wants it).
        granularity: what has one scale.
        apply_method: ``clamp_round``; ``bypass`` watches the range and leaves the values alone.
    """

    quant_dtype: str = ""
    quant_scheme: Literal["symmetric", "affine"] = "symmetric"
    granularity: Granularity = field(default_factory=lambda: Granularity("tensor"))
    apply_method: Literal["clamp_round", "qat_clamp_round", "bypass"] = "clamp_round"

    active: ClassVar[bool] = True
    align: ClassVar[None] = None

    @property
    def bits(self) -> int:
        """Of an integer."""
        return int(self.quant_dtype.lstrip("uint"))

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest integer.

        >>> QuantizationSettings("int8").limits, QuantizationSettings("uint4").limits
        ((-127, 127), (0, 15))
        """
        if self.quant_dtype.startswith("u"):
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)) + 1, 2 ** (self.bits - 1) - 1


def _dtype(value: Any) -> str:
    if isinstance(value, str) and _DTYPE.fullmatch(value):
        return ""
    options = [f"{u}int{bits}" for bits in range(2, 9) for u in ("", "u")]
    return f"'int2' to 'int8' or 'uint2' to 'uint8' is expected{nearest(str(value), options)}"


def _granularity(value: Any) -> str:
    return "" if value == "tensor" else values.granularity(value)


def _fuse_names(value: Any) -> str:
    if value == AUTO_FUSION:
        return ""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"'auto' or a list of groups of module names is expected, got {type(value).__name__}"
    for names in value:
        wrong = values.names(names)
        if wrong:
            return wrong
        if len(names) not in (2, 3):
            return f"two or three modules are fused, got {len(names)}: {_SHAPES}"
    return ""


def _usual_targets(module: nn.Module) -> tuple[str, ...]:
    """What a module computes with: its input if that is of floats, its weight if it has one, its output."""
    weight = ("weight",) if find_target(module, "weight").tensor is not None else ()
    reads = () if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) else ("_input_",)
    return (*reads, *weight, "_output_")


# -- what has to hold ------------------------------------------------------------------------------


def fusible(modules: Sequence[nn.Module]) -> bool:
    """Whether these modules, one after the other, are one operation in integers."""
    kinds = [_kind(module) for module in modules]
    if kinds[:1] == ["norm"]:
        return kinds == ["norm", "relu"]
    if kinds[:1] not in (["conv"], ["linear"]) or kinds[1:] not in (["norm"], ["relu"], ["norm", "relu"]):
        return False
    if kinds[1] != "norm":
        return True
    norm, first = modules[1], modules[0]
    width = getattr(first, "out_channels", getattr(first, "out_features", None))
    return getattr(norm, "num_features", None) == width and getattr(norm, "running_var", None) is not None


def _kind(module: nn.Module) -> str:
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "conv"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
        return "norm"
    return "relu" if isinstance(module, (nn.ReLU, nn.ReLU6)) else ""


def _check(
    targets: Sequence[Target],
    extras: Mapping[int, Mapping[str, Any]],
    models: Catalogue,
    problems: Problems,
) -> None:
    for target in targets:
        _check_target(target, problems)
    weights = {target.module for target in targets if target.name == "weight"}
    chosen = {target.module for target in targets}
    for entry, said in extras.items():
        groups = said.get("fuse_names")
        for names in () if groups in (None, AUTO_FUSION) else groups:
            wrong = _wrong_group(names, models, weights, chosen)
            if wrong:
                problems.add(entry, "fuse_names", tuple(names), wrong)


def _check_target(target: Target, problems: Problems) -> None:
    settings = target.settings
    if not settings.quant_dtype:
        problems.add(target.entry, text="it has no 'quant_dtype'", module=target.path)
    if target.kind is TargetKind.BUFFER:
        problems.add(target.entry, text="a buffer is not quantised", module=target.path)
    shape = target.shape
    if shape is None:  # only a wrong name can be seen before the tensor
        wrong = block_for(settings.granularity, target.channels, (1, 1), activation=True)[1]
        wrong = wrong if settings.granularity.name in ("in_channel", "out_channel", "heads") else ""
    else:
        _, wrong = block_for(settings.granularity, target.channels, shape, activation=False)
    if wrong:
        problems.add(target.entry, "granularity", settings.granularity.to_config(), wrong, target.path)


def _wrong_group(
    names: Sequence[str],
    models: Catalogue,
    weights: set[str],
    chosen: set[str],
) -> str:
    unknown = [name for name in names if name not in models.aliases]
    if unknown:
        return f"there is no module {unknown[0]!r}{nearest(unknown[0], models.aliases)}"
    paths = [models.aliases[name] for name in names]
    if not fusible([models.modules[path] for path in paths]):
        return f"they are {', '.join(models.kind(path) for path in paths)}, and what is fused is {_SHAPES}"
    if paths[0] not in chosen:
        return f"the first of them, {names[0]!r}, is selected by no entry"
    if _kind(models.modules[paths[1]]) == "norm" and paths[0] not in weights:
        return f"the weight of {names[0]!r} has to be a target: the BatchNorm becomes a part of it"
    return ""


QUANTIZATION = Mode(
    name="quantisation",
    settings_keys={
        "quant_dtype": Key(_dtype, "the integers: int2 to int8, uint2 to uint8"),
        "quant_scheme": Key(values.one_of("symmetric", "affine"), "where zero is"),
        "granularity": Key(_granularity, "what has one scale; by default the whole tensor"),
        "apply_method": Key(values.one_of(*METHODS), "clamp_round, or bypass to watch only"),
    },
    entry_keys={"fuse_names": Key(_fuse_names, "modules that are one operation in integers, or 'auto'")},
    settings=QuantizationSettings,
    active=("quant_dtype",),
    defaults=_usual_targets,
    follows={},
    activations="tensor",
    check=_check,
)
