"""Pruning over several parameters at once: one ranking, of entries or of channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from ..._errors import MaskError
from ._base import check_amount, lay
from ._blocks import mean_magnitudes
from ._methods import CustomFromMask
from ._slots import Slot, find_slot
from ._units import Block, Of, alive, amount_left, block_along, block_norms, from_grid

Parameters = Iterable[tuple[nn.Module, str]]
Scores = Mapping[tuple[nn.Module, str], Tensor]


def global_unstructured(
    parameters: Parameters,
    pruning_method: type[torch_prune.BasePruningMethod],
    importance_scores: Scores | None = None,
    *,
    of: Of = "remaining",
    **kwargs: Any,
) -> None:
    """Prune single entries of several parameters, ranked as if they were one.

    Args:
        parameters: (module, name) of each; a parameter that is tied and listed twice counts once.
        pruning_method: a class with ``PRUNING_TYPE = "unstructured"``, of this package, torch's or yours.
        importance_scores: by (module, name), used in the place of a parameter's values.
        of: what ``amount`` is of, all parameters together; see :data:`Of`.
        **kwargs: arguments of the method, such as ``amount``.

    Raises:
        TypeError: for a method that is not unstructured, or where an argument is of a wrong type.
        MaskError: for scores of another shape. In every case nothing has been changed.

    Example:
        >>> import torch, secateur.masks as prune
        >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> a.weight.data, b.weight.data = torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 3.0]])
        >>> prune.global_unstructured([(a, "weight"), (b, "weight")], prune.L1Unstructured, amount=0.5)
        >>> a.weight_mask, b.weight_mask
        (tensor([[0., 1.]]), tensor([[0., 1.]]))
    """
    slots = _slots(parameters, "global_unstructured")
    values = [_values(slot, _scores_of(slot, importance_scores)).flatten() for slot in slots]
    masks = [_mask(slot).flatten() for slot in slots]
    if "amount" in kwargs:
        check_amount(kwargs["amount"])
        kwargs["amount"] = amount_left(kwargs["amount"], of, torch.cat([mask != 0 for mask in masks]))
    method: Any = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f'global_unstructured() takes methods with PRUNING_TYPE "unstructured"; that of '
            f'{pruning_method.__name__} is "{method.PRUNING_TYPE}". For channels there is global_structured()'
        )
    mask = torch.cat(masks)
    left = mask != 0
    mask[left] = method.compute_mask(torch.cat(values)[left], default_mask=mask[left]).to(mask.dtype)
    parts = mask.split([len(value) for value in values])
    _put(slots, [part.reshape(_mask(slot).shape) for part, slot in zip(parts, slots, strict=True)])


def global_structured(
    parameters: Parameters,
    amount: float,
    n: Any = 2,
    dim: int | Sequence[int] = 0,
    importance_scores: Scores | None = None,
    *,
    normalize: Literal["size", "mean", "none"] = "size",
    keep: int = 1,
    of: Of = "remaining",
) -> None:
    """Prune whole channels of several parameters, in one ranking.

    A norm grows with the number of entries that it is of, so channels of different layers are compared
    after normalisation.

    Args:
        parameters: (module, name) of each; a parameter that is tied and listed twice counts once.
        amount: an integer says how many channels, a float between 0 and 1 which share of all channels.
        n: order of the norm: a number, ``inf``, ``-inf``, ``"fro"`` or ``"nuc"``.
        dim: the dimension that has the channels, or several.
        importance_scores: by (module, name), values to take norms of instead, of the parameter's shape.
        normalize: ``"size"`` takes the norm per element (the root mean square for n=2), ``"mean"`` divides by
            the mean over the channels of the parameter that are left, ``"none"`` compares raw norms.
        keep: how many channels every parameter keeps, whatever their scores.
        of: what the amount is of, all parameters together; see :data:`Of`.

    Raises:
        ValueError: if fewer channels can go than are to go.

    Example:
        >>> import torch, secateur.masks as prune
        >>> a, b = torch.nn.Linear(1, 2), torch.nn.Linear(100, 2)
        >>> a.weight.data = torch.tensor([[3.0], [1.0]])
        >>> b.weight.data = torch.ones(2, 100) * torch.tensor([[2.0], [0.5]])
        >>> prune.global_structured([(a, "weight"), (b, "weight")], amount=2)
        >>> a.weight_mask[:, 0], b.weight_mask[:, 0]
        (tensor([1., 0.]), tensor([1., 0.]))
    """
    check_amount(amount)
    slots = _slots(parameters, "global_structured")
    masks = [_mask(slot) for slot in slots]
    blocks = [block_along(mask.shape, dim) for mask in masks]
    left = [alive(mask, block).flatten() for mask, block in zip(masks, blocks, strict=True)]
    scores = []
    for slot, block, here in zip(slots, blocks, left, strict=True):
        values = _values(slot, _scores_of(slot, importance_scores))
        scores.append(_free(_ranked(values, block, n, normalize, here), here, keep))
    everywhere = torch.cat(left)
    wanted = amount_left(amount, of, everywhere)
    count = int(torch_prune._compute_nparams_toprune(wanted, int(everywhere.sum())))
    ranking = torch.cat(scores)
    free = int((ranking < torch.inf).sum())
    if count > free:
        raise MaskError(
            f"{count} channels are to go, and {free} can: {int(everywhere.sum())} are left in "
            f"{len(slots)} parameters, of which each keeps {keep}"
        )
    stay = torch.ones_like(everywhere)
    stay[ranking.topk(count, largest=False).indices] = False
    parts = stay.split([len(here) for here in left])
    new = [
        mask * from_grid(part.reshape(_grid(mask.shape, block)), block).to(mask.dtype)
        for mask, block, part in zip(masks, blocks, parts, strict=True)
    ]
    _put(slots, new)


def _ranked(values: Tensor, block: Block, n: Any, normalize: str, left: Tensor) -> Tensor:
    """Comparable norms of the blocks of one parameter."""
    if normalize not in ("size", "mean", "none"):
        raise MaskError(f"normalize is 'size', 'mean' or 'none', got {normalize!r}")
    if normalize == "size":
        return mean_magnitudes(values, block, n).flatten().double()
    norms = block_norms(values, block, n).flatten().double()
    if normalize == "none" or not bool(left.any()):
        return norms
    return norms / norms[left].mean().clamp_min(torch.finfo(norms.dtype).tiny)


def _free(scores: Tensor, left: Tensor, keep: int) -> Tensor:
    """Scores with infinity where nothing may go: blocks that are gone, and the ``keep`` best."""
    scores = scores.masked_fill(~left, -torch.inf)
    best = scores.topk(min(keep, len(scores))).indices
    scores = scores.masked_fill(~left, torch.inf)
    scores[best] = torch.inf
    return scores


def _slots(parameters: Parameters, caller: str) -> list[Slot]:
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{caller}(): parameters is an iterable of (module, name), got {parameters!r}")
    slots: dict[int, Slot] = {}
    for module, name in parameters:
        slot = find_slot(module, name)
        slots.setdefault(id(slot.orig), slot)
    if not slots:
        raise MaskError(f"{caller}(): there is no parameter to prune")
    return list(slots.values())


def _scores_of(slot: Slot, scores: Scores | None) -> Tensor | None:
    if scores is None:
        return None
    if not isinstance(scores, Mapping):
        raise TypeError(
            f"importance_scores is a dict {{(module, name): tensor}}, got {type(scores).__name__}"
        )
    return scores.get((slot.module, slot.name))


def _values(slot: Slot, scores: Tensor | None) -> Tensor:
    """What a parameter is ranked by: its scores, or its masked values."""
    orig, mask = slot.orig, slot.mask
    assert orig is not None
    if scores is None:
        return (orig if mask is None else mask.to(orig.dtype) * orig).detach()
    if scores.shape != orig.shape:
        raise MaskError(
            f"the scores for {slot.name!r} of {type(slot.module).__name__} have shape {tuple(scores.shape)} "
            f"and the parameter {tuple(orig.shape)}; they have to be the same"
        )
    return scores.detach()


def _mask(slot: Slot) -> Tensor:
    assert slot.orig is not None
    return torch.ones_like(slot.orig).detach() if slot.mask is None else slot.mask


def _grid(shape: Sequence[int], block: Block) -> list[int]:
    return [size // part for size, part in zip(shape, block, strict=True)]


def _put(slots: Sequence[Slot], masks: Sequence[Tensor]) -> None:
    methods = []
    for slot, mask in zip(slots, masks, strict=True):
        method = CustomFromMask(mask.clone())
        method._tensor_name = slot.name
        methods.append((slot, method, method.mask))
    lay(methods)
