"""``module.weight`` of a pruned parameter: mask times original, computed when it is read.

``torch.nn.utils.prune`` keeps the product as a plain tensor that a hook renews before each forward.
That tensor is old as soon as the optimizer has made a step, belongs to a graph (so the module cannot
be copied, and who reads it past the hook, as ``nn.MultiheadAttention`` reads ``out_proj.weight``, goes
backward through the same graph twice) and does not follow ``load_state_dict``. This one has no value
of its own: whoever reads it gets a new product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_IN_PLACE_OPERATORS = frozenset(
    f"__{name}__"
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")
)
# Made once: an operator call here would be seen by whoever records the model's.
_NOTHING = torch.empty(0)
# The setters of attributes such as ``.data``, and item assignment.
_SETTERS = frozenset({"__set__", "__delete__", "__setitem__"})


class MaskedParameter(Tensor):
    """What a pruned parameter is replaced by: ``mask * original``, computed by whoever reads it.

    What is written to it in place (``torch.nn.init`` under ``no_grad``, say) is written to the original.

    Args:
        owner: the module.
        name: name of the parameter; the module has ``<name>_orig`` and ``<name>_mask``.

    Example:
        >>> import torch, secateur.masks as prune
        >>> layer = prune.l1_unstructured(torch.nn.Linear(3, 2), "weight", amount=2)
        >>> with torch.no_grad():
        ...     _ = layer.weight_orig.fill_(5)
        >>> int((layer.weight == 5).sum())
        4
    """

    _owner: nn.Module
    _attribute: str

    def __new__(cls, owner: nn.Module, name: str) -> MaskedParameter:
        """A tensor without storage that knows where its values come from."""
        self = torch.Tensor._make_subclass(cls, _NOTHING)
        self._owner, self._attribute = owner, name
        return self

    def belongs_to(self, module: nn.Module) -> bool:
        """Whether this is the parameter of ``module`` (and not of the one it is a replica of)."""
        return self._owner is module

    def original(self) -> Tensor:
        """The parameter below the mask; the parameter itself if the mask has been removed."""
        orig = getattr(self._owner, f"{self._attribute}_orig", None)
        return self._owner._parameters[self._attribute] if orig is None else orig  # type: ignore[return-value]

    def product(self) -> Tensor:
        """The original times its mask, as a plain tensor in the graph of the original."""
        orig = self.original()
        mask = getattr(self._owner, f"{self._attribute}_mask", None)
        return orig if mask is None else mask.to(dtype=orig.dtype) * orig

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with products in the place of masked parameters."""
        kwargs = kwargs or {}
        # What is written to is the first argument; torch.nn.init hands it on by name.
        target = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(target, MaskedParameter) or not _writes(func.__name__):
            return func(*_plain(args), **_plain(kwargs))
        below = target.original()
        if args:
            result = func(below, *_plain(args[1:]), **_plain(kwargs))
        else:
            result = func(**{**_plain(kwargs), next(iter(kwargs)): below})
        return target if result is below else result

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskedParameter:
        """The same parameter of the copied module."""
        if id(self) not in memo:
            memo[id(self)] = MaskedParameter(copy.deepcopy(self._owner, memo), self._attribute)
        return memo[id(self)]

    def __reduce_ex__(self, proto: Any) -> tuple[Any, ...]:
        """Pickled as the place it reads from."""
        return MaskedParameter, (self._owner, self._attribute)


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _SETTERS or name in _IN_PLACE_OPERATORS


def _plain(value: Any) -> Any:
    """``value`` with every masked parameter in it replaced by its product."""
    if isinstance(value, MaskedParameter):
        return value.product()
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
