"""The verbs: each prunes one parameter of one module, in place, and returns the module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from ..._errors import MaskError
from ._base import check_amount, make_permanent
from ._blocks import LnBlocks, NOfM, Scored, block_of_scores
from ._methods import (
    CustomFromMask,
    Identity,
    L1Unstructured,
    LnStructured,
    RandomStructured,
    RandomUnstructured,
)
from ._slots import Slot, find_slot, masked_slots, tied_slots
from ._units import Block, Of, alive, amount_left, block_along, full_block


def identity(module: nn.Module, name: str) -> nn.Module:
    """Put a mask of ones on ``module.name``.

    >>> import torch
    >>> layer = identity(torch.nn.Linear(2, 2), "weight")
    >>> sorted(layer.state_dict())
    ['bias', 'weight_mask', 'weight_orig']
    """
    Identity.apply(module, name)
    return module


def random_unstructured(module: nn.Module, name: str, amount: float, *, of: Of = "remaining") -> nn.Module:
    """Mask single entries of ``module.name`` at random.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many, a float between 0 and 1 which share (rounded as ``round`` does).
        of: what the amount is of; see :data:`Of`.
    """
    RandomUnstructured.apply(module, name, _amount(module, name, amount, of))
    return module


def l1_unstructured(
    module: nn.Module,
    name: str,
    amount: float,
    importance_scores: Tensor | None = None,
    *,
    of: Of = "remaining",
) -> nn.Module:
    """Mask the entries of ``module.name`` with the lowest magnitudes.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many, a float between 0 and 1 which share (rounded as ``round`` does).
        importance_scores: magnitudes to go by instead, of the parameter's shape.
        of: what the amount is of; see :data:`Of`.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 1)
    >>> layer.weight.data = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    >>> l1_unstructured(layer, "weight", amount=0.5).weight_mask
    tensor([[1., 0., 1., 0.]])
    """
    L1Unstructured.apply(module, name, _amount(module, name, amount, of), importance_scores)
    return module


def random_structured(
    module: nn.Module, name: str, amount: float, dim: int | Sequence[int], *, of: Of = "remaining"
) -> nn.Module:
    """Mask whole channels of ``module.name`` at random.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many channels, a float between 0 and 1 which share.
        dim: the dimension that has the channels, or several: ``(0, 1)`` are the kernels of a convolution.
        of: what the amount is of; see :data:`Of`.
    """
    count = _amount(module, name, amount, of, lambda shape: block_along(shape, dim))
    RandomStructured.apply(module, name, count, cast(Any, dim))
    return module


def ln_structured(
    module: nn.Module,
    name: str,
    amount: float,
    n: Any,
    dim: int | Sequence[int],
    importance_scores: Tensor | None = None,
    *,
    of: Of = "remaining",
) -> nn.Module:
    """Mask the channels of ``module.name`` with the lowest norms.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many channels, a float between 0 and 1 which share.
        n: order of the norm: a number, ``inf``, ``-inf``, ``"fro"`` or ``"nuc"``.
        dim: the dimension that has the channels, or several: ``(0, 1)`` are the kernels of a convolution.
        importance_scores: values to take norms of instead, of the parameter's shape.
        of: what the amount is of; see :data:`Of`.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 3)
    >>> layer.weight.data = torch.tensor([[3.0, 3.0], [1.0, 1.0], [2.0, 2.0]])
    >>> ln_structured(layer, "weight", amount=1, n=2, dim=0).weight_mask
    tensor([[1., 1.],
            [0., 0.],
            [1., 1.]])
    """
    count = _amount(module, name, amount, of, lambda shape: block_along(shape, dim))
    LnStructured.apply(module, name, count, n, dim, importance_scores=importance_scores)
    return module


def ln_blocks(
    module: nn.Module,
    name: str,
    amount: float,
    n: Any,
    block: Sequence[int],
    importance_scores: Tensor | None = None,
    *,
    of: Of = "remaining",
) -> nn.Module:
    """Mask the blocks of ``module.name`` with the lowest norms.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many blocks, a float between 0 and 1 which share.
        n: order of the norm: a number, ``inf``, ``-inf``, ``"fro"`` or ``"nuc"``.
        block: shape of a block: ``(4, 4)`` are tiles of the last two dimensions, -1 is all of a dimension.
        importance_scores: values to take norms of instead, of the parameter's shape.
        of: what the amount is of; see :data:`Of`.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 4)
    >>> int(ln_blocks(layer, "weight", amount=1, n=1, block=(2, 2)).weight_mask.sum())
    12
    """
    count = _amount(module, name, amount, of, lambda shape: full_block(shape, block))
    LnBlocks.apply(module, name, count, n, block, importance_scores=importance_scores)
    return module


def n_of_m(
    module: nn.Module,
    name: str,
    n: int = 2,
    m: int = 4,
    dim: int = 1,
    importance_scores: Tensor | None = None,
) -> nn.Module:
    """Keep the ``n`` largest of every ``m`` consecutive entries of ``module.name`` along ``dim``.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 1)
    >>> layer.weight.data = torch.tensor([[1.0, -4.0, 3.0, 2.0]])
    >>> n_of_m(layer, "weight", 2, 4).weight_mask
    tensor([[0., 1., 1., 0.]])
    """
    NOfM.apply(module, name, n, m, dim, importance_scores=importance_scores)
    return module


def by_score(
    module: nn.Module, name: str, amount: float, scores: Tensor, *, of: Of = "remaining"
) -> nn.Module:
    """Mask the units of ``module.name`` with the lowest scores of your own.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        amount: an integer says how many units, a float between 0 and 1 which share.
        scores: one for each unit, compared as they are (not by magnitude). The shape says what a unit is:
            ``(out, 1, 1, 1)`` or ``(out,)`` are filters, ``(out, in, 1, 1)`` kernels, the parameter's own
            shape single entries.
        of: what the amount is of; see :data:`Of`.

    >>> import torch
    >>> layer = torch.nn.Linear(1, 3)
    >>> by_score(layer, "weight", 1, torch.tensor([0.2, -0.7, 0.1])).weight_mask.flatten()
    tensor([1., 0., 1.])
    """
    count = _amount(module, name, amount, of, lambda shape: block_of_scores(shape, scores))
    Scored.apply(module, name, count, scores)
    return module


def custom_from_mask(module: nn.Module, name: str, mask: Tensor) -> nn.Module:
    """Mask ``module.name`` with a mask that was made elsewhere, on top of the one that it has.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        mask: of the parameter's shape; zeros and ones, or booleans.
    """
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: nn.Module, name: str) -> nn.Module:
    """Make the mask of ``module.name`` permanent: what is masked becomes zero in the parameter itself.

    The parameter stays the same object, at its place among the parameters; all owners of a tied
    parameter lose the mask together. Works on what torch's functions have masked, too.

    Raises:
        ValueError: if the parameter has no mask.

    >>> import torch
    >>> layer = l1_unstructured(torch.nn.Linear(2, 2), "weight", amount=3)
    >>> int(remove(layer, "weight").weight.count_nonzero()), list(layer.state_dict())
    (1, ['weight', 'bias'])
    """
    slot = Slot(module, name)
    if not slot.masked:
        raise MaskError(f"parameter {name!r} of {type(module).__name__} has no mask that could be removed")
    places = [place for place in tied_slots([slot])[0] if place.masked]
    make_permanent(slot)
    for place in places[1:]:
        place.take_off()
    for place in places:
        place.unhook()
    return module


def is_pruned(module: nn.Module) -> bool:
    """Whether the module or one inside it has a mask, ours or torch's.

    >>> import torch
    >>> is_pruned(torch.nn.Sequential(identity(torch.nn.Linear(1, 1), "bias")))
    True
    """
    return any(masked_slots(inner) for inner in module.modules())


def _amount(module: nn.Module, name: str, amount: float, of: Of, units: Any = None) -> float:
    """The amount of what remains that is meant by an amount of ``of``."""
    slot = find_slot(module, name)
    check_amount(amount)
    mask = slot.mask
    if mask is None or of != "original":
        return amount_left(amount, of)
    block: Block = units(mask.shape) if units else (1,) * mask.dim()
    return amount_left(amount, of, alive(mask, block))
