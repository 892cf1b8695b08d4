"""The evaluator for Lightning."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from ..._errors import CompressionError
from ._evaluator import Evaluator

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class LightningEvaluator(Evaluator):
    """Trains and evaluates with a ``lightning.pytorch.Trainer``.

    The model that is pruned is the ``LightningModule`` itself. Optimizers are those of its
    ``configure_optimizers``. The score is the logged metric ``"default"`` of the validation, or minus its
    loss.

    Args:
        trainer: made in the ordinary way; its length is that of :meth:`finetune`.
        data_module: a ``LightningDataModule``, or a data loader for training.
        dummy_input: inputs to record the model at: a tensor, a tuple, or a dict.

    Raises:
        CompressionError: for anything else in place of a trainer. Needs
            ``pip install "secateur[lightning]"``.
    """

    def __init__(self, trainer: Trainer, data_module: Any, dummy_input: Any = None) -> None:
        super().__init__(dummy_input)
        if not hasattr(trainer, "fit_loop"):
            raise CompressionError(f"trainer is a lightning.pytorch.Trainer, got {type(trainer).__name__}")
        self.trainer, self.data_module = trainer, data_module

    @property
    def _module(self) -> LightningModule:
        from lightning.pytorch import LightningModule

        if not isinstance(self.bound, LightningModule):
            raise CompressionError(f"the model is a LightningModule, got {type(self.bound).__name__}")
        return self.bound

    def optimizers(self) -> Sequence[Optimizer]:
        """See :meth:`Evaluator.optimizers`; Lightning makes them anew for every training."""
        return self.trainer.optimizers

    def state(self) -> dict[str, Any]:
        """Nothing: Lightning makes optimizers anew for every training."""
        return {}

    def set_state(self, state: Any) -> None:
        """Nothing to do: see :meth:`state`."""

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """See :meth:`Evaluator.train`."""
        with self._length(max_steps, max_epochs), self._patched():
            self.trainer.fit(self._module, **self._data())

    def evaluate(self) -> dict[str, Any]:
        """The metrics that the validation logged."""
        (metrics,) = self.trainer.validate(self._module, **self._data(validating=True), verbose=False)
        found: dict[str, Any] = dict(metrics)
        losses = [value for name, value in found.items() if "loss" in name]
        if losses:
            found.setdefault("default", -losses[0])
        return found

    def _data(self, *, validating: bool = False) -> dict[str, Any]:
        from lightning.pytorch import LightningDataModule

        if isinstance(self.data_module, LightningDataModule):
            return {"datamodule": self.data_module}
        return {"dataloaders" if validating else "train_dataloaders": self.data_module}

    @contextmanager
    def _length(self, max_steps: int | None, max_epochs: int | None) -> Generator[None]:
        loop = self.trainer.fit_loop
        before = loop.max_epochs, loop.epoch_loop.max_steps
        done = self.trainer.global_step, self.trainer.current_epoch
        if max_steps is not None:
            loop.epoch_loop.max_steps, loop.max_epochs = done[0] + max_steps, -1
        if max_epochs is not None:
            loop.max_epochs = done[1] + max_epochs
            loop.epoch_loop.max_steps = -1 if max_steps is None else loop.epoch_loop.max_steps
        try:
            yield
        finally:
            loop.max_epochs, loop.epoch_loop.max_steps = before

    @contextmanager
    def _patched(self) -> Generator[None]:
        from lightning.pytorch import Callback

        evaluator, module = self, self._module
        training_step = module.training_step
        handles: list[Any] = []

        class Steps(Callback):
            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                evaluator.add_waiting_parameters()
                first = trainer.optimizers[0]
                handles.append(first.register_step_pre_hook(lambda *_: evaluator.before_step()))
                handles.append(first.register_step_post_hook(lambda *_: evaluator.after_step()))

        def patched(batch: Any, *args: Any, **kwargs: Any) -> Any:
            return self.patched_loss(training_step(batch, *args, **kwargs), batch)

        steps = Steps()
        self.trainer.callbacks.append(steps)  # pyright: ignore[reportAttributeAccessIssue]
        module.training_step = patched
        try:
            yield
        finally:
            self.trainer.callbacks.remove(steps)  # pyright: ignore[reportAttributeAccessIssue]
            del module.training_step  # the method of the class is there again
            for handle in handles:
                handle.remove()
