"""Leave no trace: run a model, then give it back exactly as it was."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator, Iterator
from operator import is_
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Run the body in eval mode without gradients; afterwards nothing of the model has changed.

    Training flags, attributes, the registration of parameters, buffers and hooks, the random
    state of every device in use and torch's fused-attention switch come back. Values that an
    operator changes in place are the recorder's to restore: it sees the operator first.
    """
    modules = list(model.modules())
    before = [(attributes, attributes.copy()) for module in modules for attributes in _dicts_of(module)]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Autocast would keep casts of weights that were made here, without gradients, for later use.
    cache = torch.is_autocast_cache_enabled()
    parameters = model.parameters() if torch.cuda.is_initialized() else ()
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            for module in modules:
                vars(module)["training"] = False  # train(False) may be overridden by the user
            torch.backends.mha.set_fastpath_enabled(False)
            torch.set_autocast_cache_enabled(False)
            yield
        finally:
            torch.set_autocast_cache_enabled(cache)
            torch.backends.mha.set_fastpath_enabled(fastpath)
            for attributes, content in before:
                if not _same_items(attributes, content):
                    attributes.clear()
                    attributes.update(content)


@contextlib.contextmanager
def without_gc() -> Generator[None]:
    """Pause Python's cyclic garbage collector, as ``timeit`` does.

    Recording makes many small objects; a full collection that they set off walks all of torch.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _dicts_of(module: nn.Module) -> Iterator[dict[str, Any]]:
    """The attributes of a module, and the dicts in them: forward may write into registries and caches."""
    attributes = vars(module)
    yield attributes
    yield from (value for value in attributes.values() if type(value) is dict)


def _same_items(one: dict[str, Any], other: dict[str, Any]) -> bool:
    # By identity: == on tensors has no truth value.
    return (
        len(one) == len(other) and all(map(is_, one, other)) and all(map(is_, one.values(), other.values()))
    )
