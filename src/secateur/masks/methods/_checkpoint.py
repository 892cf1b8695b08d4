"""Checkpoints with masks into models without, and masked values that an optimizer leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import MaskError, nearest
from ._functions import identity
from ._slots import Slot, find_slot, masked_slots


def load_state_dict(model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> Any:
    """Load a state dict with masks (``weight_orig``, ``weight_mask``), made by these functions or torch's.

    Parameters that the state dict has masks for get masks first. Loading into a model that has masks where
    the state dict has none is refused: take them off with :func:`remove`.

    Args:
        model: the model, masked or not.
        state: the state dict.
        strict: as for ``nn.Module.load_state_dict``.

    Returns:
        What ``nn.Module.load_state_dict`` returns: missing and unexpected keys.

    Raises:
        MaskError: for a mask whose parameter the model does not have; nothing has been changed.

    Example:
        >>> import torch, secateur.masks as prune
        >>> trained = prune.l1_unstructured(torch.nn.Linear(3, 2), "weight", amount=0.5)
        >>> fresh = torch.nn.Linear(3, 2)
        >>> prune.load_state_dict(fresh, trained.state_dict())
        <All keys matched successfully>
        >>> bool((fresh.weight == trained.weight).all())
        True
    """
    modules = dict(model.named_modules())
    wanted: list[Slot] = []
    for key in state:
        path, _, name = key.removesuffix("_mask").rpartition(".")
        if key.endswith("_mask") and f"{key.removesuffix('_mask')}_orig" in state:
            if path not in modules:
                raise MaskError(f"there is no module {path!r} for the mask {key!r}{nearest(path, modules)}")
            wanted.append(find_slot(modules[path], name))
    masked = {(path, slot.name) for path, module in modules.items() for slot in masked_slots(module)}
    for path, name in sorted(masked):
        plain = f"{path}.{name}" if path else name
        if plain in state:
            raise MaskError(
                f"the model has a mask on {plain!r} and the state dict has none: remove() it first"
            )
    for slot in wanted:
        if not slot.masked:
            identity(slot.module, slot.name)
    return model.load_state_dict(state, strict=strict)


def hold_masked(model: nn.Module, optimizer: torch.optim.Optimizer) -> Handles:
    """Have masked values stay as they are, whatever the optimizer does.

    The gradient of a masked value is zero, but weight decay and momentum move it all the same. That is
    invisible under the mask and seen when the mask is lifted. From now on, each step of the
    optimizer puts masked values back.

    Args:
        model: a model with masks; masks that come later are heeded too.
        optimizer: any ``torch.optim.Optimizer``.

    Returns:
        Handles; ``remove()`` ends it.

    Example:
        >>> import torch, secateur.masks as prune
        >>> layer = torch.nn.Linear(1, 2)
        >>> _ = layer.weight.data.fill_(1)
        >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=1.0)
        >>> _ = prune.custom_from_mask(layer, "weight", torch.tensor([[0.0], [1.0]]))
        >>> handles = prune.hold_masked(layer, sgd)
        >>> layer(torch.ones(1, 1)).sum().backward()
        >>> sgd.step()
        >>> layer.weight_orig.detach().flatten()
        tensor([1.0000, 0.8000])
    """
    held: list[tuple[Tensor, Tensor, Tensor]] = []

    def before(*_: Any) -> None:
        held.clear()
        for module in model.modules():
            for slot in masked_slots(module):
                orig, mask = slot.orig, slot.mask
                assert orig is not None
                assert mask is not None
                gone = mask == 0
                held.append((orig.data, gone, orig.data[gone]))

    def after(*_: Any) -> None:
        for values, gone, old in held:
            values[gone] = old
        held.clear()

    return Handles(optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after))


class Handles:
    """Hooks that can be taken off together."""

    def __init__(self, *handles: Any) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take all of them off."""
        for handle in self._handles:
            handle.remove()
