"""Language models without the keys and values that they keep of earlier tokens."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def without_caches(model: nn.Module) -> Generator[None]:
    """While the body runs, models of transformers do not give back what ``use_cache`` of their config says.

    It is an object that no runtime knows, and no file takes it as an input.
    """
    configs = {
        id(config): config for module in model.modules() if (config := getattr(module, "config", None))
    }
    with ExitStack() as stack:
        for config in configs.values():
            if getattr(config, "use_cache", None) is True:
                stack.callback(setattr, config, "use_cache", True)
                config.use_cache = False
        yield
