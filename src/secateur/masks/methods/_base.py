"""The base class of pruning methods, and the container in which several of them stack."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from ..._errors import MaskError
from ._slots import Slot, find_slot, tied_slots


class BasePruningMethod(torch_prune.BasePruningMethod):
    """A ``torch.nn.utils.prune.BasePruningMethod`` that cannot leave a module half pruned.

    A subclass sets ``PRUNING_TYPE`` and defines ``compute_mask(t, default_mask)``, as for torch's class; a
    subclass of torch's methods becomes a safe one with this class as its second base. What is better
    than in torch: see the module :mod:`secateur.masks.methods`.

    Example:
        >>> import torch, secateur.masks as prune
        >>> class FirstRow(prune.BasePruningMethod):
        ...     PRUNING_TYPE = "global"
        ...
        ...     def compute_mask(self, t, default_mask):
        ...         mask = default_mask.clone()
        ...         mask[0] = 0
        ...         return mask
        >>> layer = torch.nn.Linear(2, 3)
        >>> _ = FirstRow.apply(layer, "weight")
        >>> layer.weight_mask
        tensor([[0., 0.],
                [1., 1.],
                [1., 1.]])
    """

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        """Before a forward: see to it that ``module.<name>`` is the masked parameter of this very module.

        It may not be in a replica, or where the module's ``__dict__`` was copied. ``torch.compile``, which
        looks into tensors before it calls anything, gets a plain product, as from torch.
        """
        if torch.compiler.is_dynamo_compiling():
            setattr(module, self._tensor_name, self.apply_mask(module))
        else:
            Slot(module, self._tensor_name).bind()

    @classmethod
    def apply(
        cls,
        module: nn.Module,
        name: str,
        *args: Any,
        importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> torch_prune.BasePruningMethod:
        """Prune ``module.name`` by this method, made from the remaining arguments.

        Args:
            module: the module that owns the parameter. Other owners of the same (tied) parameter are
                masked with it.
            name: name of the parameter; of one that has a mask, the name without ``_orig``.
            *args: arguments of the method.
            importance_scores: of the parameter's shape, used in the place of its values.
            **kwargs: arguments of the method.

        Returns:
            The hook: this method, or the container in which it has joined those before it.

        Raises:
            ParameterNameError: if there is no such parameter.
            MaskError: for scores or masks of another shape. In every case nothing has been changed.
        """
        method = cls(*args, **kwargs)
        method._tensor_name = name
        check_amount(getattr(method, "amount", 0))
        return put_on(method, module, name, importance_scores)

    def remove(self, module: nn.Module) -> None:
        """Make the mask permanent: masked values become zeros of the parameter itself.

        The parameter stays the same object at the same place. torch takes the hook off the module
        after this call; :func:`secateur.masks.remove` does both, for all owners of a tied parameter.
        """
        make_permanent(Slot(module, self._tensor_name))


class PruningContainer(torch_prune.PruningContainer, BasePruningMethod):
    """Several pruning methods on one parameter, in the order in which they came.

    Args:
        *methods: pruning methods, of this package or of torch, or one iterable of them. All of them
            act on the same parameter name.

    Example:
        >>> import torch, secateur.masks as prune
        >>> first, second = prune.L1Unstructured(amount=1), prune.LnStructured(amount=1, n=2, dim=0)
        >>> first._tensor_name = second._tensor_name = "weight"
        >>> [type(method).__name__ for method in prune.PruningContainer(first, second)]
        ['L1Unstructured', 'LnStructured']
    """

    def __init__(self, *methods: Any) -> None:
        self._pruning_methods = ()
        flat: list[Any] = []
        for method in methods:
            many = isinstance(method, Iterable) and not isinstance(method, torch_prune.BasePruningMethod)
            flat.extend(method if many else [method])
        for method in flat:
            if not hasattr(self, "_tensor_name") and hasattr(method, "_tensor_name"):
                self._tensor_name = method._tensor_name
            self.add_pruning_method(method)


def put_on(
    method: torch_prune.BasePruningMethod,
    module: nn.Module,
    name: str,
    scores: Tensor | None = None,
) -> torch_prune.BasePruningMethod:
    """Compute the mask of ``method`` and lay it on the parameter, for all of its owners."""
    slot = find_slot(module, name)
    lay(((slot, method, _new_mask(slot, method, scores)),))
    return slot.hook or method


def _new_mask(slot: Slot, method: torch_prune.BasePruningMethod, scores: Tensor | None) -> Tensor:
    """The mask of a parameter after one more method."""
    module, name, orig, before = slot.module, slot.name, slot.orig, slot.mask
    assert orig is not None  # find_slot has looked
    if scores is not None and scores.shape != orig.shape:
        raise MaskError(
            f"the scores for {name!r} of {type(module).__name__} have shape {tuple(scores.shape)} and the "
            f"parameter {tuple(orig.shape)}; they have to be the same"
        )
    hook = _joined(slot.hook, method)
    with torch.no_grad():
        if scores is None:
            scores = orig if before is None else before.to(orig.dtype) * orig
        start = torch.ones_like(orig) if before is None else before.clone()
        mask: Tensor = cast(Any, hook).compute_mask(scores.detach(), default_mask=start.detach())
    if mask.shape != orig.shape:
        raise MaskError(
            f"{type(method).__name__} made a mask of shape {tuple(mask.shape)} for {name!r} of "
            f"{type(module).__name__}, which has shape {tuple(orig.shape)}"
        )
    return mask


def lay(masks: Sequence[tuple[Slot, torch_prune.BasePruningMethod, Tensor]]) -> None:
    """Lay computed masks on parameters, each for all owners; everything that can fail is done first."""
    places = tied_slots([slot for slot, _, _ in masks])
    for owners in places:
        for place in owners:
            find_slot(place.module, place.name)
    for owners, (_, method, mask) in zip(places, masks, strict=True):
        for place in owners:
            place.put(_joined(place.hook, _named(method, place.name)), mask)


def make_permanent(slot: Slot) -> None:
    """Write the masked values into the parameter and take its mask off, hook excepted."""
    orig, mask = slot.module._parameters[f"{slot.name}_orig"], slot.module._buffers[f"{slot.name}_mask"]
    assert orig is not None
    assert mask is not None
    orig.data.copy_(mask.to(orig.dtype) * orig.data)
    slot.take_off()


def check_amount(amount: Any) -> None:
    """Refuse what is no amount, as torch does, and what torch lets pass: NaN and bool.

    Raises:
        TypeError: for something that is no number.
        ValueError: for a float outside of 0 to 1, or a negative integer.
    """
    if isinstance(amount, bool):
        raise TypeError(f"amount={amount}: an integer says how many, a float which share")
    torch_prune._validate_pruning_amount_init(amount)
    if math.isnan(amount):
        raise ValueError("amount=nan should either be a float in the range [0, 1] or a non-negative integer")


def _joined(
    old: torch_prune.BasePruningMethod | None, new: torch_prune.BasePruningMethod
) -> torch_prune.BasePruningMethod:
    """The hook that is both; neither is changed."""
    if old is None:
        return new
    before = list(old) if isinstance(old, torch_prune.PruningContainer) else [old]
    return PruningContainer(*before, new)


def _named(method: torch_prune.BasePruningMethod, name: str) -> torch_prune.BasePruningMethod:
    """The method as one that acts on a parameter of that name: tied weights may have several."""
    if method._tensor_name == name:
        return method
    other = copy.copy(method)
    other._tensor_name = name
    return other
