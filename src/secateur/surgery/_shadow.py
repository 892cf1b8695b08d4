"""The shadow: a copy of a model in which all tensors are ghosts, at the sizes of whatever plan is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from ..capture import Ghost, ModuleStack, Source, owned_tensors
from ._layers import layers_with_sizes
from ._put import put_tensor
from ._replay import Replay


class Shadow:
    """A model of ghosts that is resized in place; of torch's layers, the sizes that they keep as well.

    Args:
        model: whose tensors are ghosts already.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stack = ModuleStack(model)
        self.paths = {module: path for path, module in self.stack.modules.items()}
        self._slots = list(_slots(model))
        self._layers = list(layers_with_sizes(model))

    def resize(self, replay: Replay) -> None:
        """Put ghosts of the sizes that ``replay`` plans in place of those that have another."""
        for index, (ghost, id_, put) in enumerate(self._slots):
            if ghost.value_id != id_ or ghost.shape != replay.shape(id_):
                new = replay.ghost(id_)
                put(new)
                self._slots[index] = new, id_, put

    def fit_layers(self) -> None:
        """Make the sizes that torch's layers keep fit their parameters, and the numbers put there."""
        for module, sizes_of in self._layers:
            vars(module).update(sizes_of(module))


Slot = tuple[Ghost, int, Callable[[Any], None]]


def _slots(model: nn.Module) -> Iterator[Slot]:
    """Every ghost of a model, the value that it stands for, and what puts another in its place."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for source, name, ghost in owned_tensors(model):
        if not isinstance(ghost, Ghost):
            continue
        owner, _, attribute = name.rpartition(".")
        if source is Source.PARAMETER:
            put = partial(modules[owner]._parameters.__setitem__, attribute)
        elif source is Source.BUFFER:
            put = partial(modules[owner]._buffers.__setitem__, attribute)
        else:
            put = partial(put_tensor, model, source, name)
        yield ghost, ghost.value_id, put
