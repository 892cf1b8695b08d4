"""What both layer-wise distillers share: a teacher runs beside the student, and their layers are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import DistillationError, SecateurError
from ...capture import unwrap
from ..base import Compressor
from ..config import DISTILLATION
from ..sites import Sites
from ._links import Link, find_links
from ._memory import Memory
from ._projections import Projections
from ._taps import Tap, tapped
from ._teacher import asked

if TYPE_CHECKING:
    from ..evaluators import Evaluator

TeacherPredict = Callable[[Any, nn.Module], Any]
"""``teacher_predict(batch, teacher_model)`` runs the teacher on a batch; what it returns does not matter."""


class TeacherModelBasedDistiller(Compressor):
    """A student learns to compute inside what a teacher computes.

    ``L' = origin_loss_lambda * L + sum over targets of lambda * D``, with ``L`` the loss of the user's own
    training step and ``D`` the distance between a target of the student and what it is linked to. A target is
    an output (the default, ``_output_``), an item of one (``_output_1``, ``_output_logits``) or an input
    (``_input_``, ``_input_hidden_states``) of any module.

    The teacher runs once for each loss, in eval mode and without gradients; its flags come back, and it
    carries no hooks in between. A module that runs several times is compared call by call, in the mean.
    Losses are computed in float32. Under ``torch.no_grad()``, as in an evaluation, nothing is kept and added.

    In a loop of one's own: ``loss = distiller.patch_loss(loss, batch)`` before ``backward()``.

    Args:
        model: the student; it stays the user's own, with a hook on each target until :meth:`unwrap_model`.
        config_list: what is compared; see ``docs/distillation.md``.
        evaluator: trains; None for a loop of one's own.
        teacher_model: the model to be like; not the student itself.
        teacher_predict: ``teacher_predict(batch, teacher_model)`` runs it on a batch of the training.
        origin_loss_lambda: weight of the user's own loss.
        existed_wrappers: see :class:`~secateur.compression.base.Compressor`.
        dummy_input: inputs at which both models can be run to see shapes before training; by default those of
            the evaluator. Without any, the first batch shows them.
        remember_teacher: ask the teacher once for a batch whose very tensors come again, epoch after epoch;
            what it answered is kept as long as the batch. For a list of batches, not for a loader that
            makes new ones.

    Raises:
        ConfigError: naming everything that is wrong with the list, links included.
        DistillationError: for what cannot be compared. The model is as it was.
    """

    mode = DISTILLATION
    trains = True
    error = DistillationError

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None,
        teacher_model: nn.Module,
        teacher_predict: TeacherPredict,
        origin_loss_lambda: float = 1.0,
        existed_wrappers: Sites | None = None,
        *,
        dummy_input: Any = None,
        remember_teacher: bool = False,
    ) -> None:
        if not (isfinite(origin_loss_lambda) and origin_loss_lambda >= 0):
            raise DistillationError(f"origin_loss_lambda is a number from 0 on, got {origin_loss_lambda}")
        self.teacher_model, self.teacher_predict = teacher_model, teacher_predict
        self.origin_loss_lambda = origin_loss_lambda
        self._memory: Memory[list[list[list[Tensor]]]] | None = Memory() if remember_teacher else None
        self._projections = Projections()
        self._at_work: Evaluator | None = None
        super().__init__(model, config_list, evaluator, existed_wrappers, dummy_input=dummy_input)

    def _check(self) -> None:
        teacher = unwrap(self.teacher_model)
        self.links = find_links(self.resolved.targets, self.bound_model, teacher)
        own = set(self.bound_model.modules())
        self._check_links()
        for link in self.links:
            for tap in link.teachers:
                if tap.module in own:
                    raise DistillationError(
                        f"{tap.where}: the student has this very module; give a teacher of its own, "
                        "copy.deepcopy(model)"
                    )

    def _check_links(self) -> None:
        """Refuse links that this distiller has no use for."""

    def _add_sites(self) -> None:
        """Nothing of the model is replaced: what is compared, hooks read."""

    # -- shapes ------------------------------------------------------------------------------------

    def track_forward(self, *args: Any, **kwargs: Any) -> None:
        """Run student and teacher once, to see whether their shapes fit, and to make what is needed for it.

        Raises:
            DistillationError: naming what does not fit.
        """
        probes = [link.probe() for link in self.links]
        with tapped(probes):
            super().track_forward(*args, **kwargs)
            ours = [probe.take() for probe in probes]
        theirs = self._ask(lambda: self.teacher_model(*args, **kwargs))
        for link, values, wanted in zip(self.links, ours, theirs, strict=True):
            self._fit_calls(link, values, wanted)

    def _see_shapes(self) -> None:
        """Look at shapes before training where there are inputs that both models take."""
        try:
            args, kwargs = self.inputs("shapes are to be seen before training")
        except DistillationError:
            return  # there are none: the first batch shows them
        try:
            self.track_forward(*args, **kwargs)
        except SecateurError:
            raise
        except Exception:  # of the model's code: a teacher that takes other inputs than its student
            return  # teacher_predict knows better, at the first batch

    def _fit_calls(self, link: Link, values: list[Tensor], wanted: list[list[Tensor]]) -> None:
        for tap, others in zip(link.teachers, wanted, strict=True):
            if len(values) != len(others):
                raise DistillationError(
                    f"{link.student.where} was run {len(values)} times for this loss, and {tap.where} "
                    f"{len(others)} times: run models under torch.no_grad() where no loss is made of it"
                )
            for value, other in zip(values, others, strict=True):
                self._fit(link, value, other, tap)

    @abstractmethod
    def _fit(self, link: Link, student: Tensor, teacher: Tensor, at: Tap) -> None:
        """See to it that the two can be compared, or refuse them."""

    # -- the loss ----------------------------------------------------------------------------------

    def patch_loss(self, loss: Tensor, batch: Any) -> Tensor:
        """The loss with the distances added: what is to be trained by.

        Args:
            loss: of the student on a batch.
            batch: the batch, which ``teacher_predict`` gets.

        Raises:
            DistillationError: if a target was not run, or cannot be compared.
        """
        if not torch.is_grad_enabled():
            return loss
        return self.origin_loss_lambda * loss + self.distances(batch)

    def distances(self, batch: Any) -> Tensor:
        """``sum over targets of lambda * D`` for what the student was run on since the last loss."""
        try:
            ours = [link.student.take() for link in self.links]
        finally:
            for link in self.links:
                link.student.values = []
        theirs = self._answers(batch)
        total = ours[0][0].new_zeros((), dtype=torch.float32)
        for link, values, wanted in zip(self.links, ours, theirs, strict=True):
            self._fit_calls(link, values, wanted)
            calls = zip(values, *wanted, strict=True)
            found = torch.stack([self._distance(link, value, others) for value, *others in calls]).mean()
            total = total + link.target.settings.weight * found.to(total.device)
        return total

    def _answers(self, batch: Any) -> list[list[list[Tensor]]]:
        def ask() -> list[list[list[Tensor]]]:
            return self._ask(lambda: self.teacher_predict(batch, self.teacher_model))

        return ask() if self._memory is None else self._memory.of(batch, ask)

    @abstractmethod
    def _distance(self, link: Link, student: Tensor, teachers: list[Tensor]) -> Tensor:
        """The distance of one call."""

    def _ask(self, run: Callable[[], Any]) -> list[list[list[Tensor]]]:
        """What the teacher gives: for each link, for each module of the teacher, call by call."""
        taps = [tap for link in self.links for tap in link.teachers]
        with tapped(taps), asked(self.teacher_model):
            run()
            return [[tap.take() for tap in link.teachers] for link in self.links]

    # -- training ----------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """What is trained beside the student; evaluators give it to the optimizer themselves."""
        return list(self._projections.parameters())

    def before_training(self, evaluator: Evaluator) -> None:
        """See :meth:`~secateur.compression.base.Compressor.before_training`."""
        for link in self.links:  # behind the hooks of all others: masked and quantised values are compared
            link.student.take_off()
            link.student.put_on()
        self._at_work = evaluator
        for link in self.links:
            self._train_projection(link)
        self._see_shapes()

    def after_training(self, evaluator: Evaluator) -> None:
        """See :meth:`~secateur.compression.base.Compressor.after_training`."""
        self._at_work = None

    def _train_projection(self, link: Link) -> None:
        """Let the optimizer that trains the module train its projection."""
        projection = self._projections.of(link.target.path)
        if projection is not None and self._at_work is not None:
            self._at_work.patch_optim_param_group({link.target.module: list(projection.parameters())})

    def _wrapped(self) -> None:
        for link in self.links:
            link.student.put_on()

    def _fold(self) -> None:
        for link in self.links:
            link.student.take_off()

    def _state(self) -> dict[str, Any]:
        return self._projections.state()

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self._projections.set_state(state)
