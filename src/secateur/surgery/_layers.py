"""Sizes that PyTorch's own layers keep beside their parameters, read off the parameters again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
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


def stale_sizes(model: nn.Module, *, ghosts: bool = False) -> Iterator[tuple[str, nn.Module, str, Any, Any]]:
    """(path, module, attribute, value, size of its parameters) wherever the two differ.

    With ``ghosts`` parametrized layers are passed over: their weights have to be computed.
    """
    for path, module in model.named_modules():
        if ghosts and is_parametrized(module):
            continue
        for name, size in _sizes_of(module).items():
            value = getattr(module, name, size)
            if value != size:
                yield path, module, name, value, size


def _sizes_of(module: nn.Module) -> Sizes:
    """The sizes that a layer keeps, as its parameters have them; none for other modules."""
    sizes_of = next((sizes_of for kinds, sizes_of in _SIZES if isinstance(module, kinds)), None)
    if sizes_of is None:
        return {}
    with _at_rest(module):
        return sizes_of(module)


def _parametrizations(module: nn.Module) -> list[nn.Module]:
    found = module._modules.get("parametrizations")
    return list(found.modules()) if found is not None and is_parametrized(module) else []


@contextlib.contextmanager
def _at_rest(module: nn.Module) -> Generator[None]:
    """Reading a parametrized weight computes it; in training mode spectral norm changes by that."""
    parts = _parametrizations(module)
    training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
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
