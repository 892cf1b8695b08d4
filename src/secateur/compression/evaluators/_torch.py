"""The evaluator for training loops in plain PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import wraps
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..._errors import CompressionError
from ._evaluator import Evaluator


class TorchEvaluator(Evaluator):
    """Trains with a function of the user's.

    Args:
        training_func:
            ``training_func(model, optimizers, training_step, lr_schedulers, max_steps, max_epochs)`` trains
            the model: for every batch it calls ``training_step(batch, model)``, ``backward()`` and the
            optimizer's ``step()``, and heeds ``max_steps`` and ``max_epochs``, which may be None.
        optimizers: one optimizer or several, made for the model's parameters in the ordinary way.
        training_step: ``training_step(batch, model, ...)`` returns the loss, a tuple that begins with it, or
            a dict that has it as ``"loss"``.
        lr_schedulers: one scheduler or several, or None.
        dummy_input: inputs to record the model at: a tensor, a tuple, or a dict.
        evaluating_func: ``evaluating_func(model)`` gives a number, or a dict with a number as ``"default"``;
            higher is better.

    Raises:
        CompressionError: for something else in place of an optimizer, or a function that cannot be called
            this way.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> def train(model, optimizers, training_step, lr_schedulers, max_steps, max_epochs):
        ...     for _ in range(max_steps or 10):
        ...         optimizers.zero_grad()
        ...         training_step(torch.randn(8, 2), model).backward()
        ...         optimizers.step()
        >>> optimizer = torch.optim.SGD(net.parameters(), 0.1)
        >>> evaluator = TorchEvaluator(train, optimizer, lambda batch, model: model(batch).square().mean())
        >>> evaluator.bind_model(net)
        >>> evaluator.train(max_steps=3)
    """

    def __init__(
        self,
        training_func: Callable[..., Any],
        optimizers: Optimizer | Sequence[Optimizer],
        training_step: Callable[..., Any],
        lr_schedulers: Any = None,
        dummy_input: Any = None,
        evaluating_func: Callable[[nn.Module], Any] | None = None,
    ) -> None:
        super().__init__(dummy_input)
        several = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        wrong = [type(o).__name__ for o in several if not isinstance(o, Optimizer)]
        if wrong or not several:
            raise CompressionError(
                f"optimizers is an optimizer of torch or a list of them, got {wrong or 'none'}"
            )
        if not inspect.signature(training_step).parameters:
            raise CompressionError("training_step takes the batch first: training_step(batch, model)")
        self.training_func, self.training_step, self.evaluating_func = (
            training_func,
            training_step,
            evaluating_func,
        )
        self._optimizers, self._given = several, optimizers
        self._schedulers = lr_schedulers

    def optimizers(self) -> Sequence[Optimizer]:
        """See :meth:`Evaluator.optimizers`."""
        return self._optimizers

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """See :meth:`Evaluator.train`."""
        first = self._optimizers[0]
        before = first.register_step_pre_hook(lambda *_: self.before_step())
        after = first.register_step_post_hook(lambda *_: self.after_step())
        try:
            self.training_func(
                self.bound, self._given, self._patched_step(), self._schedulers, max_steps, max_epochs
            )
        finally:
            before.remove()
            after.remove()

    @property
    def evaluates(self) -> bool:
        """See :meth:`Evaluator.evaluates`."""
        return self.evaluating_func is not None

    def state(self) -> dict[str, Any]:
        """See :meth:`Evaluator.state`; schedulers too."""
        return super().state() | {"schedulers": [deepcopy(s.state_dict()) for s in self._every_scheduler]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Evaluator.set_state`."""
        super().set_state(state)
        for scheduler, saved in zip(self._every_scheduler, state["schedulers"], strict=True):
            scheduler.load_state_dict(deepcopy(saved))

    @property
    def _every_scheduler(self) -> Sequence[Any]:
        if self._schedulers is None:
            return []
        return self._schedulers if isinstance(self._schedulers, (list, tuple)) else [self._schedulers]

    def _patched_step(self) -> Callable[..., Any]:
        @wraps(self.training_step)
        def step(batch: Any, *args: Any, **kwargs: Any) -> Any:
            return self.patched_loss(self.training_step(batch, *args, **kwargs), batch)

        return step

    def evaluate(self) -> float | Mapping[str, Any] | None:
        """See :meth:`Evaluator.evaluate`.

        Raises:
            CompressionError: if no function was given.
        """
        if self.evaluating_func is None:
            raise CompressionError("this takes an evaluation: give TorchEvaluator(..., evaluating_func=f)")
        return self.evaluating_func(self.bound)
