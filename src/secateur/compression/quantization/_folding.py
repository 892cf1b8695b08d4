"""BatchNorm folded for good into the layers that it was fused with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..sites import ParameterSite
from ._fusing import Chain

if TYPE_CHECKING:
    from ._quantizer import Quantizer


def fold_chains(quantizer: Quantizer) -> list[dict[str, Any]]:
    """Fold the norms of all chains of a wrapped model, which is unwrapped by that; in place.

    Returns:
        The configuration for the model without them.
    """
    chains = [chain for chain in quantizer.chains if chain.norm is not None]
    with torch.no_grad():
        folded = [(chain, *_folded(quantizer, chain)) for chain in chains]
        quantizer.unwrap_model()
        for chain, weight, bias in folded:
            _put(quantizer.bound_model, chain, weight, bias)
    return _without_norms(quantizer)


def _folded(quantizer: Quantizer, chain: Chain) -> tuple[Tensor, Tensor]:
    """The weight, masked, and the bias, as the norm makes them."""
    norm, layer = chain.norm, chain.modules[0]
    assert norm is not None
    assert norm.running_mean is not None
    site = quantizer.sites[quantizer.resolved.target(chain.paths[0], "weight")]
    assert isinstance(site, ParameterSite)
    taken = (chain.gain() / chain.factor()).detach()  # 1, or 0 where the norm takes nothing
    bias = getattr(layer, "bias", None)  # read in the simulation: masked, and times the factor
    own = -norm.running_mean * chain.gain() + (0 if bias is None else bias * taken)
    weight = chain.scaled(site.masked())
    weight = weight * taken.reshape(-1, *[1] * (weight.dim() - 1))
    return weight, own if norm.bias is None else own + norm.bias


def _put(model: nn.Module, chain: Chain, weight: Tensor, bias: Tensor) -> None:
    layer, norm = chain.modules[0], chain.norm
    own = layer._parameters["weight"]
    assert own is not None
    own.copy_(weight)
    if layer._parameters.get("bias") is None:
        layer.bias = nn.Parameter(bias)
    else:
        layer._parameters["bias"].copy_(bias)  # type: ignore[union-attr]
    for owner in model.modules():
        for name, child in owner._modules.items():
            if child is norm:
                owner._modules[name] = nn.Identity()


def _without_norms(quantizer: Quantizer) -> list[dict[str, Any]]:
    """The configuration with what is left of every chain."""
    entries = quantizer.resolved.to_config()
    rest = {
        chain.paths[0]: [path for path in chain.paths if path != chain.paths[1] or chain.norm is None]
        for chain in quantizer.chains
    }
    for entry in entries:
        entry.pop("fuse_names", None)
        (name,) = entry["op_names"]
        if len(rest.get(name, ())) > 1:
            entry["fuse_names"] = [tuple(rest[name])]
    return entries
