"""Taylor scores: what the loss would lose with a block, to first order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._errors import PruningError
from ..config import Target, TargetKind
from ..sites import Key, block_rows, key_of
from ._collecting import CollectingPruner
from ._gates import Gates


class TaylorFOWeightPruner(CollectingPruner):
    """The blocks go that the loss would miss least, to first order; default granularity ``out_channel``.

    Score of block b: ``sum over its elements of mean over steps of (w * dL/dw)**2``; of a channel of an input
    or output ``mean over steps of (sum a * dL/da)**2``. Source: Molchanov et al., "Importance estimation for
    neural network pruning" (CVPR 2019), equation 8 and its gates. NNI 3.0 calls it ``TaylorPruner``.

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: trains; not needed by who calls :meth:`step` himself.
        training_steps: steps to collect for; masks are made at the end of the last.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), 0.1)
        >>> pruner = TaylorFOWeightPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}], training_steps=3)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     net(torch.randn(16, 4)).square().mean().backward()
        ...     optimizer.step()
        ...     pruner.step()
        >>> int(pruner.get_masks()["0"]["bias"].sum())
        4
    """

    _handles: list[Any]

    def begin(self) -> None:
        """See :meth:`CollectingPruner.begin`."""
        super().begin()
        self._seen, self._pending = {}, {}
        self._handles = getattr(self, "_handles", [])
        if self._handles:
            return
        activations: list[Target] = []
        for target in self.resolved.targets:
            if target.settings.active and target.kind is TargetKind.PARAMETER:
                self._handles.append(self._parameter(target).register_hook(partial(self._gather, target)))
            elif target.settings.active:
                activations.append(target)
        if activations:
            self._see()
        self._gates = Gates(self.sites, activations, 1.0, scale=False)
        self._handles.append(_Removable(self._gates.remove))

    def end(self) -> None:
        """See :meth:`CollectingPruner.end`."""
        while self._handles:
            self._handles.pop().remove()

    def _parameter(self, target: Target) -> torch.nn.Parameter:
        parameter = self.bound_model.get_submodule(target.module)._parameters[target.name]
        assert parameter is not None
        if not parameter.requires_grad:
            raise PruningError(
                f"{target.path} is frozen (requires_grad=False), so it has no gradient to score by"
            )
        return parameter

    _pending: dict[Key, Tensor]

    def _gather(self, target: Target, gradient: Tensor) -> None:
        value = self.value(target)
        squares = block_rows((gradient.detach() * value).square(), target.blocks(tuple(value.shape)))
        total = squares.float().sum(1)
        key = key_of(target)
        self._pending[key] = self._pending[key] + total if key in self._pending else total

    def _observe(self, grad_scale: float) -> None:
        found = {key: gradient.square() for key, gradient in self._gates.take_gradients().items()}
        for key, squares in (self._pending | found).items():
            scores = squares / grad_scale**2
            self._seen[key] = self._seen[key] + scores if key in self._seen else scores
        self._pending = {}

    def _scores(self, target: Target) -> Tensor:
        if key_of(target) not in self._seen:
            raise PruningError(
                f"{target.path} got no gradient: is the module used, and was backward() called?"
            )
        return self._seen[key_of(target)] / max(1, self.collected)


TaylorPruner = TaylorFOWeightPruner


class _Removable:
    def __init__(self, remove: Callable[[], None]) -> None:
        self.remove = remove
