"""Leave no trace: run a model, then give it back exactly as it was."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator
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
    before = [_shallow_state(module) for module in modules]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Autocast would keep casts of weights that were made here, without gradients, for later use.
    cache = torch.is_autocast_cache_enabled()
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            for module in modules:
                module.training = False  # train(False) may be overridden by the user
            torch.backends.mha.set_fastpath_enabled(False)
            torch.set_autocast_cache_enabled(False)
            yield
        finally:
            torch.set_autocast_cache_enabled(cache)
            torch.backends.mha.set_fastpath_enabled(fastpath)
            for module, state in zip(modules, before, strict=True):
                _restore(module, state)


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


def _shallow_state(module: nn.Module) -> dict[str, Any]:
    # Dicts are copied one level deep: forward may write into registries and caches.
    return {key: (value, dict(value) if type(value) is dict else None) for key, value in vars(module).items()}


def _restore(module: nn.Module, state: dict[str, Any]) -> None:
    current = vars(module)
    for key in [key for key in current if key not in state]:
        del current[key]
    for key, (value, content) in state.items():
        if current.get(key) is not value:
            current[key] = value
        if content is not None and not _same_items(value, content):
            value.clear()
            value.update(content)


def _same_items(value: dict[Any, Any], content: dict[Any, Any]) -> bool:
    # By identity: == on tensors has no truth value.
    return len(value) == len(content) and all(value.get(k) is item for k, item in content.items())
