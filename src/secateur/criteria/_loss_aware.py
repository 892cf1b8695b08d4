"""Loss-aware scores: how much the loss changes when a label's gate closes."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from .._errors import ScoreError
from ..axes import Structure
from ._collector import ScoreCollector
from ._gates import Gate, find_gates
from ._gradients import GateGradients
from ._normalize import Normalize, Scores
from ._samples import ToInputs

if TYPE_CHECKING:
    from .._ir import PruningIR


class Spread(Enum):
    """What is averaged over batches: the square or the absolute value of the gate gradient."""

    SQUARE = "square"
    ABSOLUTE = "absolute"

    @classmethod
    def _missing_(cls, value: object) -> Spread:
        raise ScoreError(f"spread is one of {[s.value for s in cls]}, got {value!r}")


class GateCriterion(ScoreCollector):
    """A collector that is given the gate gradient of every label after each backward.

    ``gates`` says, once the model has been recorded, where each group's gradient is found and
    whether that is exact. Several losses may be propagated for one sample; their gradients add up.
    A batch counts with its number of examples, as fits losses that are means over the batch.
    """

    def __init__(
        self,
        ir: PruningIR,
        snapshot_name: str = "main",
        *,
        normalize: Normalize | str = Normalize.NONE,
        sample_to_model_inputs: ToInputs | None = None,
        grad_scaler: Any = None,
        process_group: Any = None,
    ) -> None:
        super().__init__(
            ir,
            snapshot_name,
            normalize=normalize,
            sample_to_model_inputs=sample_to_model_inputs,
            process_group=process_group,
        )
        self._scaler = grad_scaler
        self._scale = 1.0
        self._gradients: GateGradients | None = None
        self._totals: dict[str, torch.Tensor] = {}
        self.gates: dict[str, Gate] = {}
        self.skipped = 0

    def _start(self, structure: Structure, stack: ExitStack) -> None:
        self.gates = find_gates(structure)
        self.skipped = 0
        self._reset(structure)
        self._gradients = stack.enter_context(GateGradients(self._ir.model, structure, self.gates))

    def _reset(self, structure: Structure) -> None:
        """Begin with nothing taken in."""
        raise NotImplementedError

    def _take(self, gradients: dict[str, torch.Tensor], weight: int) -> None:
        """Take in the gate gradients of one batch."""
        raise NotImplementedError

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._scaler is not None:
            self._scale = float(self._scaler.get_scale())
        return super()._run(args, kwargs)

    def _finish_batch(self, examples: int) -> bool:
        gathered = self._gradients
        assert gathered is not None
        number = self.batches + 1
        if not gathered.pending():
            raise ScoreError(
                f"no gradient reached any group in batch {number}: call backward() on a loss of what the "
                "collector returned, with gradients enabled"
            )
        where = gathered.culprit()
        gradients = gathered.take()
        if not all(torch.isfinite(values).all() for values in gradients.values()):
            if self._scaler is not None:  # the overflow that a GradScaler looks for
                self.skipped += 1
                return False
            raise ScoreError(
                f"the gradient of {where} is not finite in batch {number}: the loss was NaN or infinite there"
            )
        self._take({name: values / self._scale for name, values in gradients.items()}, examples)
        return True

    def _sums(self) -> dict[str, torch.Tensor]:
        assert self._gradients is not None
        unseen = self._gradients.unseen()
        seen = torch.tensor([name not in unseen for name in self.gates], dtype=torch.float64)
        return {_SEEN: seen, **self._totals}

    def _result(self, sums: dict[str, torch.Tensor]) -> Scores:
        unseen = [name for name, seen in zip(self.gates, sums[_SEEN], strict=True) if not seen]
        if unseen:
            names = ", ".join(map(repr, unseen[:6]))
            more = f" and {len(unseen) - 6} more" if len(unseen) > 6 else ""
            place = self.gates[unseen[0]].terms[0]
            raise ScoreError(
                f"no gradient ever reached the groups {names}{more} (looked for at {place}): the loss does "
                "not depend on them, or that part of the model runs without gradients. Put what they feed "
                "into the loss, or leave them alone: PruningIR(model, ignore=[...])"
            )
        return {name: self._score(sums[name] / self.examples) for name in self._totals}

    def _score(self, mean: torch.Tensor) -> torch.Tensor:
        """Scores of one group from the mean over all examples."""
        return mean


_SEEN = ""
"""Name of the sum that counts which groups got a gradient; no group has it."""


class LossAwareCriterion(GateCriterion):
    """First-order Taylor score on the unit gate of each label.

    With a gate on everything that reads a label's signal (1 in the model as it is, 0 without the
    label), the loss changes to first order by ``dL/dgate`` when it closes, which is a sum of
    ``weight * gradient`` (see ``secateur.criteria``, "Gates"). Over batches ``b`` of ``n_b`` examples

        score = sum_b n_b * (dL_b/dgate)^2 / sum_b n_b          (``spread="square"``)
        score = sum_b n_b * |dL_b/dgate| / sum_b n_b            (``spread="absolute"``)

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), with
    the gate at the readers, so that one definition serves convolutions, residual streams,
    attention heads and embeddings.

    Args:
        ir: the model; recorded at the first sample, if it has no snapshot of that name.
        snapshot_name: which snapshot to score.
        spread: square or absolute value, taken of each batch before averaging.
        normalize: how to make groups comparable, see :func:`secateur.criteria.normalize_scores`.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.
        grad_scaler: the ``torch.amp.GradScaler`` that scales the loss; batches in which it
            overflows are skipped and counted in ``skipped``.
        process_group: processes to sum over when ``torch.distributed`` is initialised.

    Raises:
        ScoreError: for a loss that is not finite, a group that no gradient reaches, a sample that no
            backward followed, or no sample at all.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> ir = secateur.PruningIR(model)
        >>> with secateur.LossAwareCriterion(ir) as collect:
        ...     for x in torch.randn(3, 16, 4):
        ...         collect(x).square().mean().backward()
        >>> collect.scores["0"].shape
        torch.Size([8])
    """

    def __init__(
        self,
        ir: PruningIR,
        snapshot_name: str = "main",
        *,
        spread: Spread | str = Spread.SQUARE,
        normalize: Normalize | str = Normalize.NONE,
        sample_to_model_inputs: ToInputs | None = None,
        grad_scaler: Any = None,
        process_group: Any = None,
    ) -> None:
        super().__init__(
            ir,
            snapshot_name,
            normalize=normalize,
            sample_to_model_inputs=sample_to_model_inputs,
            grad_scaler=grad_scaler,
            process_group=process_group,
        )
        self._spread = Spread(spread)

    def _reset(self, structure: Structure) -> None:
        self._totals = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in structure.groups}

    def _take(self, gradients: dict[str, torch.Tensor], weight: int) -> None:
        for name, values in gradients.items():
            one = values.square() if self._spread is Spread.SQUARE else values.abs()
            self._totals[name] += weight * one


class FisherCriterion(GateCriterion):
    """Second-order score from the Fisher information of the gates, whole or diagonal in each group.

    The matrix ``F = sum_b n_b g_b g_b^T / sum_b n_b`` of a group's gate gradients ``g_b`` stands for the
    Hessian of the loss in its gates (empirical Fisher). Closing gate ``c`` alone raises the loss by

        score = F_cc / 2                                   (``blocked=False``)
        score = 1 / (2 * [(F + damping * mean(diag F) * I)^-1]_cc)    (``blocked=True``)

    where the second lets the other gates of the group adjust, so that of two labels that do the
    same neither is dear. Batches of one example give the Fisher information proper, and on data without
    labels :func:`drawn_cross_entropy` does.

    Sources: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning" (2018);
    Hassibi and Stork, "Second order derivatives for network pruning" (1992).

    Args:
        ir: the model.
        snapshot_name: which snapshot to score.
        blocked: whether labels of one group may make up for each other.
        damping: added to the diagonal, as a share of its mean.
        normalize: see :func:`secateur.criteria.normalize_scores`.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.
        grad_scaler: the ``torch.amp.GradScaler`` that scales the loss.
        process_group: processes to sum over when ``torch.distributed`` is initialised.

    Raises:
        ScoreError: as :class:`LossAwareCriterion`; for a damping that is not positive.
    """

    def __init__(
        self,
        ir: PruningIR,
        snapshot_name: str = "main",
        *,
        blocked: bool = True,
        damping: float = 0.1,
        normalize: Normalize | str = Normalize.NONE,
        sample_to_model_inputs: ToInputs | None = None,
        grad_scaler: Any = None,
        process_group: Any = None,
    ) -> None:
        super().__init__(
            ir,
            snapshot_name,
            normalize=normalize,
            sample_to_model_inputs=sample_to_model_inputs,
            grad_scaler=grad_scaler,
            process_group=process_group,
        )
        if not damping > 0:
            raise ScoreError(f"damping is a positive share of the mean of the diagonal, got {damping}")
        self._blocked = blocked
        self._damping = damping

    def _reset(self, structure: Structure) -> None:
        shape = (lambda n: (n, n)) if self._blocked else (lambda n: (n,))
        self._totals = {g.name: torch.zeros(shape(g.size), dtype=torch.float64) for g in structure.groups}

    def _take(self, gradients: dict[str, torch.Tensor], weight: int) -> None:
        for name, values in gradients.items():
            one = torch.outer(values, values) if self._blocked else values.square()
            self._totals[name].add_(one, alpha=weight)

    def _score(self, mean: torch.Tensor) -> torch.Tensor:
        fisher = mean
        if not self._blocked:
            return fisher / 2
        level = self._damping * fisher.diagonal().mean()
        if level == 0:
            return torch.zeros(len(fisher), dtype=torch.float64)
        damped = fisher + level * torch.eye(len(fisher), dtype=torch.float64)
        return 0.5 / torch.cholesky_inverse(torch.linalg.cholesky(damped)).diagonal()
