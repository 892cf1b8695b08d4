"""The plain case: a small model learns to answer as the one that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..._errors import DistillationError, nearest
from ...criteria import ToInputs, model_inputs
from ._losses import LOSSES, TEMPERATURE, LossFunction, kl
from ._memory import Memory
from ._teacher import asked


class LogitsDistillation:
    """The loss of a student's outputs against those of a teacher, for a loop of one's own.

    The teacher runs in eval mode and without gradients, on the same batch, and is otherwise left alone: its
    training flags come back, and it is no part of the student. Where the student is to learn from labels too,
    add their loss.

    Args:
        teacher: the model to be like, such as ``copy.deepcopy(model)`` from before a cut.
        method: ``"kl"`` for logits, ``"mse"`` or ``"cosine"`` for embeddings, or a function of yours,
            ``f(student, teacher) -> loss``.
        temperature: of ``"kl"``; high ones make the unlikely classes count.
        sample_to_model_inputs: a function from a batch to ``(args, kwargs)`` for the teacher. By default a
            dict is keyword arguments, a tuple positional ones, of which the teacher gets as many as it has.
        read: which tensor of an output is meant; by default the output itself, its ``logits``, or its first.
        remember_teacher: ask the teacher once for a batch whose very tensors come again.

    Raises:
        DistillationError: for an unknown method, or outputs of different shapes.

    Example:
        >>> import copy, torch
        >>> _ = torch.manual_seed(0)
        >>> student = nn.Linear(4, 3)
        >>> distillation = LogitsDistillation(copy.deepcopy(student))
        >>> batch = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
        >>> distillation(student(batch[0]), batch).item() < 1e-6
        True
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        method: str | LossFunction = "kl",
        temperature: float = TEMPERATURE,
        sample_to_model_inputs: ToInputs | None = None,
        read: Callable[[Any], Tensor] | None = None,
        remember_teacher: bool = False,
    ) -> None:
        if isinstance(method, str) and method not in LOSSES:
            raise DistillationError(
                f"method is one of {sorted(LOSSES)} or a function, got {method!r}{nearest(method, LOSSES)}"
            )
        if temperature <= 0:
            raise DistillationError(f"temperature is above 0, got {temperature}")
        self.teacher, self.method, self.temperature = teacher, method, temperature
        self._to_inputs = sample_to_model_inputs or (lambda sample: model_inputs(teacher, sample))
        self._read = read or output_tensor
        self._memory: Memory[Tensor] | None = Memory() if remember_teacher else None

    def __call__(self, output: Any, batch: Any) -> Tensor:
        """The loss of what the student gave for a batch, a number.

        Args:
            output: of the student; its tensor has shape ``(batch, ..., classes)``.
            batch: what the data loader gave.
        """
        wanted = (
            self._ask(batch) if self._memory is None else self._memory.of(batch, lambda: self._ask(batch))
        )
        found = self._read(output)
        if not isinstance(self.method, str):
            return self.method(found, wanted)
        if found.shape != wanted.shape:
            raise DistillationError(
                f"the student gives {tuple(found.shape)} and the teacher {tuple(wanted.shape)}: name the "
                "outputs that belong together, read=lambda output: ..."
            )
        if self.method == "kl":
            return kl(found, wanted, -1, self.temperature)
        return LOSSES[self.method](found, wanted, -1)

    def _ask(self, batch: Any) -> Tensor:
        with asked(self.teacher):
            args, kwargs = self._to_inputs(batch)
            return self._read(self.teacher(*args, **kwargs))


def distill(
    student: nn.Module,
    teacher: nn.Module,
    loader: Iterable[Any],
    optimizer: Optimizer,
    *,
    epochs: int = 1,
    loss: Callable[[Any, Any], Tensor] | None = None,
    weight: float = 1.0,
    scheduler: Any = None,
    method: str | LossFunction = "kl",
    temperature: float = TEMPERATURE,
    sample_to_model_inputs: ToInputs | None = None,
    remember_teacher: bool = False,
) -> list[float]:
    """Train a student to give what a teacher gives; no labels are needed.

    ``L = weight * distillation(student, teacher) + loss(output, batch)``. The student is trained in the modes
    that its modules are in: call ``student.train()`` for dropout and for the statistics of batches; a small
    model fresh from a cut is often better left in eval mode.

    Args:
        student: the small model; trained in place.
        teacher: see :class:`LogitsDistillation`.
        loader: batches; iterated once an epoch.
        optimizer: of the student's parameters.
        epochs: how often the loader is gone through.
        loss: what labels say, ``loss(output, batch)``; by default labels say nothing.
        weight: of the distillation.
        scheduler: of the learning rate; its ``step()`` follows each of the optimizer.
        method: see :class:`LogitsDistillation`.
        temperature: see :class:`LogitsDistillation`.
        sample_to_model_inputs: a function from a batch to ``(args, kwargs)``, for both models.
        remember_teacher: see :class:`LogitsDistillation`.

    Returns:
        The mean loss of every epoch.

    Raises:
        DistillationError: if an epoch has no batch, the two models are one, or outputs do not fit.

    Example:
        >>> import copy, torch
        >>> _ = torch.manual_seed(0)
        >>> teacher = nn.Linear(4, 3)
        >>> student = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
        >>> optimizer = torch.optim.Adam(student.parameters(), 1e-2)
        >>> losses = distill(student, teacher, torch.randn(5, 16, 4), optimizer, epochs=20)
        >>> losses[-1] < losses[0]
        True
    """
    if student is teacher:
        raise DistillationError("student and teacher are one model: give a copy, copy.deepcopy(model)")
    distillation = LogitsDistillation(
        teacher,
        method=method,
        temperature=temperature,
        sample_to_model_inputs=sample_to_model_inputs,
        remember_teacher=remember_teacher,
    )
    to_inputs = sample_to_model_inputs or (lambda sample: model_inputs(student, sample))
    means: list[float] = []
    for _ in range(epochs):
        values: list[Tensor] = []
        for batch in loader:
            optimizer.zero_grad()
            args, kwargs = to_inputs(batch)
            output = student(*args, **kwargs)
            total = weight * distillation(output, batch)
            if loss is not None:
                total = total + loss(output, batch)
            total.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            values.append(total.detach())
        if not values:
            raise DistillationError("the loader gave no batch: an iterator can be gone through only once")
        means.append(sum(map(float, values)) / len(values))
    return means


def output_tensor(output: Any) -> Tensor:
    """The tensor that is meant by an output: it, its ``logits``, or the first that it holds.

    Raises:
        DistillationError: if there is none.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    items = output.values() if isinstance(output, Mapping) else output
    for item in items if isinstance(output, (Mapping, tuple, list)) else ():
        if isinstance(item, Tensor):
            return item
    raise DistillationError(
        f"there is no tensor in an output of type {type(output).__name__}: say which is meant, "
        "read=lambda output: ..."
    )
