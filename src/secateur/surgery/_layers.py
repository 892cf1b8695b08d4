"""Sizes that PyTorch's own layers keep beside their parameters, read off the parameters again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

Sizes = dict[str, Any]


def _linear(module: Any) -> Sizes:
    return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}


def _conv(module: Any) -> Sizes:
    first, second = module.weight.shape[:2]
    return {"out_channels": first, "in_channels": second * module.groups}


def _conv_transpose(module: Any) -> Sizes:
    first, second = module.weight.shape[:2]
    return {"in_channels": first, "out_channels": second * module.groups}


def _batch_norm(module: Any) -> Sizes:
    own = next((t for t in (module.weight, module.running_mean) if t is not None), None)
    return {} if own is None else {"num_features": own.shape[0]}


def _normalized(module: Any) -> Sizes:
    return {} if module.weight is None else {"normalized_shape": tuple(module.weight.shape)}


def _group_norm(module: Any) -> Sizes:
    return {} if module.weight is None else {"num_channels": module.weight.shape[0]}


def _embedding(module: Any) -> Sizes:
    return {"num_embeddings": module.weight.shape[0], "embedding_dim": module.weight.shape[1]}


def _bilinear(module: Any) -> Sizes:
    out, first, second = module.weight.shape
    return {"out_features": out, "in1_features": first, "in2_features": second}


def _recurrent(module: Any) -> Sizes:
    hidden = module.weight_hr_l0.shape[1] if module.proj_size else module.weight_hh_l0.shape[1]
    sizes = {"input_size": module.weight_ih_l0.shape[1], "hidden_size": hidden}
    return sizes | ({"proj_size": module.weight_hr_l0.shape[0]} if module.proj_size else {})


def _cell(module: Any) -> Sizes:
    return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}


def _prelu(module: Any) -> Sizes:
    return {"num_parameters": module.weight.shape[0]}


_SIZES: list[tuple[type | tuple[type, ...], Callable[[Any], Sizes]]] = [
    (nn.Linear, _linear),
    (_ConvTransposeNd, _conv_transpose),
    (_ConvNd, _conv),
    (_NormBase, _batch_norm),
    ((nn.LayerNorm, nn.RMSNorm), _normalized),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.Bilinear, _bilinear),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
    (nn.PReLU, _prelu),
]


@lru_cache(maxsize=4096)
def _reader(kind: type[nn.Module]) -> Callable[[Any], Sizes] | None:
    """What reads the sizes that a layer keeps off its parameters; None for other modules."""
    return next((sizes_of for kinds, sizes_of in _SIZES if issubclass(kind, kinds)), None)


def layers_with_sizes(model: nn.Module) -> Iterator[tuple[nn.Module, Callable[[Any], Sizes]]]:
    """Every layer that keeps sizes, with what reads them off its parameters.

    Parametrized layers are passed over: their weights have to be computed.
    """
    for module in model.modules():
        sizes_of = _reader(type(module))
        if sizes_of is not None and not is_parametrized(module):
            yield module, sizes_of


def stale_sizes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any, Any]]:
    """(path, module, attribute, value, size of its parameters) wherever the two differ."""
    for path, module in model.named_modules():
        sizes_of = _reader(type(module))
        if sizes_of is None:
            continue
        sizes = _computed(sizes_of, module) if is_parametrized(module) else sizes_of(module)
        for name, size in sizes.items():
            value = getattr(module, name, size)
            if value != size:
                yield path, module, name, value, size


def _computed(sizes_of: Callable[[Any], Sizes], module: nn.Module) -> Sizes:
    """Sizes of a parametrized layer. Reading its weight computes it: in training, spectral norm moves."""
    parts = list(module._modules["parametrizations"].modules())  # pyright: ignore[reportOptionalMemberAccess]
    training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        return sizes_of(module)
    finally:
        for part, was in zip(parts, training, strict=True):
            part.training = was


def layer_attribute(kind: type, argument: str) -> str | None:
    """The attribute of a torch layer that holds the number which its forward passes on, if one does.

    >>> layer_attribute(nn.Conv2d, "groups")
    'groups'
    """
    holders = {"groups": _ConvNd, "num_groups": nn.GroupNorm}
    holder = holders.get(argument)
    return argument if holder is not None and issubclass(kind, holder) else None
