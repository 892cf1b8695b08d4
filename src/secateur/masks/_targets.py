"""Masks as users give them: ``{module: {target: tensor or None}}``, checked against the model.

A target is the name of a parameter of the module, ``_input_<position or argument name>`` or
``_output_<position or key>``. One means keep; a mask on an input or output may also be one that is added,
zero where something is kept and minus infinity where it is not, as before a softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import MaskError, nearest
from ._known import compress

MaskDict = Mapping[str, Mapping[str, Tensor | None]]


@dataclass(frozen=True)
class ActivationMask:
    """A mask on what goes into or comes out of a module.

    Attributes:
        module: path of the module.
        key: position, argument name or output key.
        keep: True where it is kept; stretched over the activation.
        is_input: whether it is on an input.
        additive: whether what is masked becomes minus infinity instead of zero, as before a softmax.
    """

    module: str
    key: str
    keep: Tensor
    is_input: bool
    additive: bool = False

    @property
    def target(self) -> str:
        """The target as the user wrote it."""
        return f"_{'input' if self.is_input else 'output'}_{self.key}"


@dataclass
class Masks:
    """Masks that fit a model.

    Attributes:
        parameters: by the path of a parameter, True where it is kept; on the parameter's device.
        activations: masks on inputs and outputs of modules.
        targets: (module, target, share of masked elements) of every mask that was given.
    """

    parameters: dict[str, Tensor] = field(default_factory=dict)
    activations: list[ActivationMask] = field(default_factory=list)
    targets: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """Share of the elements of all masked parameters that are masked."""
        total = sum(keep.numel() for keep in self.parameters.values())
        masked = total - sum(_count(keep) for keep in self.parameters.values())
        return masked / total if total else 0.0

    def add(self, name: str, keep: Tensor) -> None:
        """Another mask on a parameter; two on the same one (tied, say) are both heeded."""
        other = self.parameters.get(name)
        self.parameters[name] = keep if other is None else other & keep


def compact(mask: Tensor) -> Tensor:
    """The mask with every dimension along which it is the same narrowed to size 1.

    >>> compact(torch.tensor([[True, True], [False, False]])).shape
    torch.Size([2, 1])
    """
    for dim in reversed(range(mask.dim())):  # kernel taps first: they are nearly always alike
        if mask.shape[dim] > 1 and _is_alike(mask, dim):
            mask = mask.narrow(dim, 0, 1)
    return mask


def _is_alike(mask: Tensor, dim: int) -> bool:
    """Whether a mask is the same all along a dimension."""
    if mask.stride(dim) == 0:
        return True
    first, last = mask.narrow(dim, 0, 1), mask.narrow(dim, -1, 1)
    return torch.equal(first, last) and bool((mask == first).all())  # most that are not differ at the end


def _count(keep: Tensor) -> int:
    (small,) = compress(keep)
    return int(small.count_nonzero()) * (keep.numel() // max(1, small.numel()))


def check_masks(masks: MaskDict, model: nn.Module) -> Masks:
    """Masks of ``model`` in normal form.

    Raises:
        MaskError: naming every mask that does not fit, with module, target and both shapes.
    """
    if not isinstance(masks, Mapping):
        raise MaskError(f"masks are a dict {{module: {{target: tensor}}}}, got {type(masks).__name__}")
    result, wrong = Masks(), []
    names = canonical_names(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, targets in masks.items():
        if path not in modules:
            wrong.append(f"there is no module {path!r} in {type(model).__name__}{nearest(path, modules)}")
        elif not isinstance(targets, Mapping):
            wrong.append(f"{path}: expected a dict {{target: tensor}}, got {type(targets).__name__}")
        else:
            for target, mask in targets.items():
                wrong += _add(result, names, modules[path], path, target, mask)
    if wrong:
        more = f"\n({len(wrong) - 20} more)" if len(wrong) > 20 else ""
        raise MaskError("these masks do not fit the model:\n" + "\n".join(wrong[:20]) + more)
    return result


def canonical_names(model: nn.Module) -> dict[str, str]:
    """For every path of a parameter the first path of the same parameter."""
    first: dict[Tensor, str] = {}
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[name] = first.setdefault(parameter, name)
    return names


def _add(
    result: Masks, names: Mapping[str, str], module: nn.Module, path: str, target: Any, mask: Any
) -> Iterator[str]:
    """Take in one mask, or say what is wrong with it."""
    where = f"{path or 'the model'}, target {target!r}"
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        yield f"{where}: expected a tensor or None, got {type(mask).__name__}"
        return
    small = mask.detach() if mask.device.type == "meta" else compact(mask.detach())
    activation = next((kind for kind in ("_input_", "_output_") if str(target).startswith(kind)), "")
    additive = bool(activation) and _is_additive(small)
    keep, problem = (small == 0, "") if additive else (small != 0, _values(mask, small))
    if problem:
        yield f"{where}: {problem}"
        return
    if activation:
        key = str(target)[len(activation) :]
        is_input = activation == "_input_"
        result.activations.append(ActivationMask(path, key, keep.expand(mask.shape), is_input, additive))
    else:
        parameter = module._parameters.get(str(target))
        if parameter is None:
            yield f"{where}: {_no_parameter(module, str(target))}"
            return
        if mask.dim() != parameter.dim() or any(
            m not in (1, p) for m, p in zip(mask.shape, parameter.shape, strict=True)
        ):
            yield (
                f"{where}: the mask has shape {tuple(mask.shape)} and the parameter "
                f"{tuple(parameter.shape)}; every dimension of the mask has to be that of the parameter, or 1"
            )
            return
        name = names[f"{path}.{target}".lstrip(".")]
        result.add(name, keep.to(_device(parameter)).expand(parameter.shape))
    share = 1.0 - _count(keep) / keep.numel() if keep.numel() else 0.0
    result.targets.append((path, str(target), share))


def _is_additive(mask: Tensor) -> bool:
    """Whether a mask is one that is added: zero, and minus infinity where something is masked."""
    if mask.device.type == "meta" or not mask.is_floating_point():
        return False
    absent = mask == -torch.inf
    return bool(absent.any()) and bool((absent | (mask == 0)).all())


def _device(parameter: Tensor) -> torch.device:
    return torch.device("cpu") if parameter.device.type == "meta" else parameter.device


def _values(mask: Tensor, small: Tensor) -> str:
    """What is wrong with the values of a mask, if anything; ``small`` holds each of them at least once."""
    if mask.device.type == "meta":
        return "the mask is on the meta device and has no values"
    if mask.is_complex():
        return "the mask is complex; it has to be 0 or 1"
    other = small[(small != 0) & (small != 1)].flatten()
    if not len(other):
        return ""
    if bool(other.isnan().any()):
        return f"the mask (shape {tuple(mask.shape)}) contains NaN; it has to be 0 or 1"
    return f"the mask (shape {tuple(mask.shape)}) contains {other[0].item()}; it has to be 0 or 1"


def _no_parameter(module: nn.Module, target: str) -> str:
    own = [name for name, parameter in module._parameters.items() if parameter is not None]
    if target in module._parameters:
        return f"this {type(module).__name__} was made without {target}"
    if f"{target}_orig" in module._parameters:
        return (
            "torch.nn.utils.prune masks it already; masks=None takes that mask, "
            "and prune.remove makes it permanent"
        )
    known = ", ".join(own) or "none of its own"
    return (
        f"{type(module).__name__} has no such parameter (it has {known}); "
        "other targets are _input_<i> and _output_<i>"
    )
