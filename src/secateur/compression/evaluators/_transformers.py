"""The evaluator for the ``Trainer`` of transformers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from ..._errors import CompressionError
from ._evaluator import Evaluator

if TYPE_CHECKING:
    from transformers import Trainer


class TransformersEvaluator(Evaluator):
    """Trains and evaluates with a ``transformers.Trainer``, which is used as it is.

    Args:
        trainer: made in the ordinary way, with the model that is pruned.
        dummy_input: inputs to record the model at: a tensor, a tuple, or a dict.

    Raises:
        CompressionError: for anything else in place of a trainer. Needs
            ``pip install "secateur[transformers]"``.
    """

    def __init__(self, trainer: Trainer, dummy_input: Any = None) -> None:
        super().__init__(dummy_input)
        if not hasattr(trainer, "compute_loss"):
            raise CompressionError(f"trainer is a transformers.Trainer, got {type(trainer).__name__}")
        self.trainer = trainer

    def optimizers(self) -> Sequence[Optimizer]:
        """See :meth:`Evaluator.optimizers`; created if the trainer has not yet done so."""
        if self.trainer.optimizer is None:
            self.trainer.create_optimizer()
        optimizer: Any = self.trainer.optimizer
        return [optimizer]

    def bind_model(self, model: nn.Module, param_names_map: Any = None) -> None:
        """See :meth:`Evaluator.bind_model`."""
        super().bind_model(model)
        self.trainer.model = self.trainer.model_wrapped = model

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """See :meth:`Evaluator.train`."""
        with self._length(max_steps, max_epochs), self._patched():
            self.trainer.train()

    def evaluate(self) -> dict[str, Any]:
        """What ``Trainer.evaluate`` says; ``"default"`` is minus the loss unless ``compute_metrics`` gives
        it."""
        self.trainer.model = self.bound
        metrics: dict[str, Any] = dict(self.trainer.evaluate())
        metrics.setdefault("default", metrics.get("eval_default", -metrics.get("eval_loss", float("nan"))))
        return metrics

    @contextmanager
    def _length(self, max_steps: int | None, max_epochs: int | None) -> Generator[None]:
        arguments = self.trainer.args
        before = arguments.max_steps, arguments.num_train_epochs
        arguments.max_steps = -1 if max_steps is None else max_steps
        if max_steps is None and max_epochs is None:
            arguments.max_steps = before[0]
        arguments.num_train_epochs = before[1] if max_epochs is None else max_epochs
        try:
            yield
        finally:
            arguments.max_steps, arguments.num_train_epochs = before

    @contextmanager
    def _patched(self) -> Generator[None]:
        from transformers import TrainerCallback

        evaluator, compute = self, self.trainer.compute_loss

        class Steps(TrainerCallback):
            def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                evaluator.before_step()

            def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                evaluator.after_step()

        def patched(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return self.patched_loss(compute(model, inputs, *args, **kwargs), inputs)

        steps = Steps()
        self.trainer.add_callback(steps)
        self.trainer.compute_loss = patched
        try:
            yield
        finally:
            self.trainer.remove_callback(steps)
            del self.trainer.compute_loss  # the method of the class is there again
