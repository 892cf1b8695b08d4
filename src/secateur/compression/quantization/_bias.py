"""Bias correction: what rounding takes from the mean of an output is given to the bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config import TargetKind
from ._fusing import Chain

if TYPE_CHECKING:
    from ._ptq import PtqQuantizer
    from ._quantizer import Quantizer

Run = Callable[[], object]
"""Runs the model over all calibration data."""

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


class _Mean:
    """The mean of the outputs of a layer over everything but its channels."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, output: Tensor) -> Tensor:
        """Take in an output; returns its own mean."""
        rows = output.detach().double().movedim(_channel_dim(self.layer, output), 0).flatten(1)
        self.total, self.count = self.total + rows.sum(1), self.count + rows.shape[1]
        return rows.mean(1)

    @property
    def value(self) -> Tensor:
        """Of all outputs."""
        return torch.as_tensor(self.total) / self.count


def correct_biases(quantizer: PtqQuantizer, run: Run) -> None:
    """Correct the biases of all layers with a quantised weight, from two runs over the calibration data.

    In the first run nothing is rounded, and the means of the outputs are taken. In the second everything is,
    and each output is moved to the mean that it should have before the next layer sees it, so that every
    layer is corrected for the rounding before it, as it will be after its correction.
    """
    layers = rounded_layers(quantizer)
    with quantizer.exact():
        wanted = output_means(layers, run)
    give_shifts(quantizer, shifts_to(layers, wanted, run))


def rounded_layers(quantizer: Quantizer) -> dict[str, nn.Module]:
    """Convolutions and linear layers whose weight is quantised, by path."""
    found: dict[str, nn.Module] = {}
    for target in quantizer.resolved.targets:
        module = quantizer.bound_model.get_submodule(target.module)
        if target.kind is TargetKind.PARAMETER and target.name == "weight" and isinstance(module, _LAYERS):
            found[target.module] = module
    return found


def output_means(layers: Mapping[str, nn.Module], run: Run) -> dict[str, Tensor]:
    """The mean of every channel that the layers put out, before any other hook, so that a fused layer still
    has the factor of its norm. Layers that do not run are left out."""
    means = {path: _Mean(layer) for path, layer in layers.items()}
    with ExitStack() as stack:
        for path, layer in layers.items():
            stack.callback(layer.register_forward_hook(_look(means[path]), prepend=True).remove)
        run()
    return {path: mean.value for path, mean in means.items() if mean.count}


def shifts_to(layers: Mapping[str, nn.Module], wanted: Mapping[str, Tensor], run: Run) -> dict[str, Tensor]:
    """What brings the means of :func:`output_means` to ``wanted``, layer by layer, as they run."""
    means = {path: _Mean(layers[path]) for path in wanted}
    with ExitStack() as stack:
        for path, mean in means.items():
            hook = _move(mean, wanted[path])
            stack.callback(layers[path].register_forward_hook(hook, prepend=True).remove)
        run()
    return {path: wanted[path] - mean.value for path, mean in means.items() if mean.count}


def give_shifts(quantizer: Quantizer, shifts: Mapping[str, Tensor]) -> None:
    """Add shifts to what layers put out: to the bias, or to the mean that the fused BatchNorm subtracts."""
    chains = {chain.paths[0]: chain for chain in quantizer.chains if chain.norm is not None}
    with torch.no_grad():
        for path, shift in shifts.items():
            _give(quantizer.bound_model.get_submodule(path), chains.get(path), shift)


def _look(mean: _Mean) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        mean.add(output)

    return hook


def _move(mean: _Mean, wanted: Tensor) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        own = mean.add(output)
        shape = [1] * output.dim()
        shape[_channel_dim(module, output)] = -1
        return output + (wanted - own).to(output.dtype).reshape(shape)

    return hook


def _channel_dim(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, nn.Linear):
        return output.dim() - 1
    return output.dim() - 1 - len(layer.kernel_size)  # type: ignore[arg-type]


def _give(layer: nn.Module, chain: Chain | None, shift: Tensor) -> None:
    norm = chain.norm if chain is not None else None
    bias = layer._parameters.get("bias")
    if chain is not None and norm is not None and norm.running_mean is not None:
        norm.running_mean.sub_((shift / chain.factor()).to(norm.running_mean))
    elif bias is not None:
        bias.add_(shift.to(bias))
    else:
        weight = layer._parameters["weight"]
        assert weight is not None
        layer.bias = nn.Parameter(shift.to(weight))
