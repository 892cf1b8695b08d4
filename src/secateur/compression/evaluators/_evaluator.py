"""What compressors know of training: how to run it, what to add to the loss, when a step has been taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from ..._errors import CompressionError
from ._hooks import Hook

LossPatch = Callable[[Tensor, Any], Tensor]
Task = Callable[[], Any]


class Compressor(Protocol):
    """What is at work while an evaluator trains."""

    def patch_loss(self, loss: Tensor, batch: Any) -> Tensor:
        """The loss that is trained with, from that of the user or of a newer compressor."""
        ...

    def step(self) -> None:
        """Called after every step of the optimizer."""
        ...

    def before_training(self, evaluator: Evaluator) -> None:
        """Called when the model is bound, before it is trained."""
        ...

    def after_training(self, evaluator: Evaluator) -> None:
        """Called after the training, however it ended."""
        ...


class Evaluator(ABC):
    """Trains and evaluates a model for a compressor.

    Masks leave parameters where they are, so optimizers and schedulers are the user's own, as they are:
    no class has to be wrapped, nothing is created anew. What a compressor needs is patched while it is at
    work: the loss, and tasks before and after each step of the first optimizer.
    """

    def __init__(self, dummy_input: Any = None) -> None:
        self.model: nn.Module | None = None
        self.dummy_input = dummy_input
        self._loss_patches: list[LossPatch] = []
        self._before: list[Task] = []
        self._after: list[Task] = []
        self._hooks: list[Hook] = []
        self._waiting: list[tuple[str, Tensor]] = []
        self._added: list[tuple[Optimizer, dict[str, Any], Tensor]] = []

    # -- the model ---------------------------------------------------------------------------------

    def bind_model(self, model: nn.Module, param_names_map: Mapping[str, str] | None = None) -> None:
        """Say which model is trained from now on.

        Args:
            model: the model.
            param_names_map: not needed: parameters keep their names here.
        """
        self.model = model

    def unbind_model(self) -> None:
        """Forget the model, with everything that was patched for it."""
        self.revert_loss()
        self.revert_optimizer_step()
        self.revert_optim_param_group()
        self.remove_all_hooks()
        self.model = None

    @property
    def bound(self) -> nn.Module:
        """The model.

        Raises:
            CompressionError: if there is none.
        """
        if self.model is None:
            raise CompressionError(f"{type(self).__name__} has no model: call bind_model(model) first")
        return self.model

    def get_dummy_input(self) -> Any:
        """Inputs to run the model with, or None."""
        return self.dummy_input

    # -- training ----------------------------------------------------------------------------------

    @abstractmethod
    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """Train the bound model, at most so long."""

    @abstractmethod
    def evaluate(self) -> Any:
        """What the user's evaluation says of the bound model."""

    @abstractmethod
    def optimizers(self) -> Sequence[Optimizer]:
        """The user's optimizers; the first is the one whose steps are counted."""

    @property
    def evaluates(self) -> bool:
        """Whether there is an evaluation."""
        return True

    def state(self) -> dict[str, Any]:
        """A copy of what :meth:`set_state` goes back to: optimizers, and what else lasts between
        trainings."""
        return {"optimizers": [deepcopy(optimizer.state_dict()) for optimizer in self.optimizers()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where :meth:`state` was called."""
        for optimizer, saved in zip(self.optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(deepcopy(saved))

    def finetune(self) -> None:
        """Train for as long as the user's own training takes."""
        self.train()

    def score(self) -> float:
        """What :meth:`evaluate` gives, as one number: it, or its entry ``"default"``.

        Raises:
            CompressionError: if there is no such number.
        """
        value = self.evaluate()
        value = value.get("default") if isinstance(value, Mapping) else value
        value = value[0] if isinstance(value, tuple) and value else value
        try:
            return float(value)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError):
            raise CompressionError(
                f"the evaluation has to give a number, or a dict with a number as 'default', got {value!r}"
            ) from None

    @contextmanager
    def compressing(self, model: nn.Module, compressors: Iterable[Compressor]) -> Generator[None]:
        """Let compressors take part in training while the body runs, the newest of them first."""
        compressors = list(compressors)
        self.bind_model(model)
        try:
            for compressor in reversed(compressors):
                self.patch_loss(compressor.patch_loss)
            self.patch_optimizer_step([], [compressor.step for compressor in compressors])
            with ExitStack() as stack:
                for compressor in compressors:
                    compressor.before_training(self)
                    stack.callback(compressor.after_training, self)
                yield
        finally:
            self.unbind_model()

    # -- patches -----------------------------------------------------------------------------------

    def patch_loss(self, patch: LossPatch) -> None:
        """Change the loss from now on: ``patch(loss, batch) -> loss``. Later patches get it first."""
        self._loss_patches.append(patch)

    def revert_loss(self) -> None:
        """Undo all of :meth:`patch_loss`."""
        self._loss_patches.clear()

    def patched_loss(self, result: Any, batch: Any) -> Any:
        """The result of a training step (a loss, a tuple, or a dict with ``"loss"``), its loss patched."""
        if isinstance(result, Mapping):
            return {**result, "loss": self.patched_loss(result["loss"], batch)}
        if isinstance(result, tuple):
            return (self.patched_loss(result[0], batch), *result[1:])
        for patch in reversed(self._loss_patches):
            result = patch(result, batch)
        return result

    def patch_optimizer_step(
        self, before_step_tasks: Sequence[Task], after_step_tasks: Sequence[Task]
    ) -> None:
        """Do something before and after every step of the first optimizer from now on."""
        self._before = [*before_step_tasks, *self._before]
        self._after = [*self._after, *after_step_tasks]

    def revert_optimizer_step(self) -> None:
        """Undo all of :meth:`patch_optimizer_step`."""
        self._before, self._after = [], []

    def patch_optim_param_group(self, module_name_param_dict: Mapping[str, Sequence[Tensor]]) -> None:
        """Let the user's optimizers train more: parameters go to the group that trains the named module.

        Where optimizers are made when the training begins, they are added then. Parameters that an optimizer
        has already stay where they are.

        Args:
            module_name_param_dict: parameters by the path of a module of the model.
        """
        self._waiting += [(name, p) for name, several in module_name_param_dict.items() for p in several]
        self.add_waiting_parameters()

    def add_waiting_parameters(self) -> None:
        """Give the optimizers what :meth:`patch_optim_param_group` could not, if they are there now."""
        optimizers = self.optimizers()
        if not optimizers:
            return
        groups = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
        known = {id(parameter) for _, group in groups for parameter in group["params"]}
        while self._waiting:
            name, parameter = self._waiting.pop(0)
            if id(parameter) not in known:
                owned = {id(other) for other in self.bound.get_submodule(name).parameters()}
                fitting = (pair for pair in groups if any(id(p) in owned for p in pair[1]["params"]))
                optimizer, group = next(fitting, groups[0])
                group["params"].append(parameter)
                self._added.append((optimizer, group, parameter))

    def revert_optim_param_group(self) -> None:
        """Undo all of :meth:`patch_optim_param_group`: the optimizers forget these parameters."""
        self._waiting.clear()
        while self._added:
            optimizer, group, parameter = self._added.pop()
            group["params"] = [other for other in group["params"] if other is not parameter]
            optimizer.state.pop(parameter, None)

    def register_hooks(self, hooks: Sequence[Hook]) -> None:
        """Put hooks on."""
        for hook in hooks:
            hook.register()
            self._hooks.append(hook)

    def remove_all_hooks(self) -> None:
        """Take all hooks off."""
        while self._hooks:
            self._hooks.pop().remove()

    def before_step(self) -> None:
        """Run the tasks before a step."""
        for task in self._before:
            task()

    def after_step(self) -> None:
        """Run the tasks after a step."""
        for task in self._after:
            task()
