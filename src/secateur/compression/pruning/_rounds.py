"""Pruners that train and prune in rounds: lottery tickets and AutoCompress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ._admm import ADMMPruner
from ._annealing import SimulatedAnnealingPruner
from ._driving import Round, SearchingPruner
from ._pruner import Masks
from ._single import algorithm
from ._splits import with_share

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class LotteryTicketPruner(SearchingPruner):
    """Train, prune, rewind the weights to where they began, and again; granularity is that of the algorithm.

    After round ``i`` of ``n`` a share ``1 - (1 - P)**(i / n)`` is masked, ``P`` the goal: every round takes
    the same share of what is left. What remains at the end, with its first weights, is the ticket, which the
    user then trains. Source: Frankle and Carbin, "The lottery ticket hypothesis: finding sparse, trainable
    neural networks" (ICLR 2019).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        pruning_algorithm: what makes the masks: ``"level"``, ``"l1"``, ``"l2"``, ``"fpgm"``, ``"slim"``,
            ``"taylorfo"``, ``"apoz"``, ``"mean_activation"`` or ``"admm"``.
        total_iteration: number of rounds.
        log_dir: folder for what is kept.
        keep_intermediate_result: write weights and masks of every round there.
        evaluator: trains for :meth:`Evaluator.finetune`'s length, and evaluates if it can; in a loop of one's
            own train and call :meth:`next_round`.
        speedup: evaluate smaller copies, see :class:`SearchingPruner`.
        reset_weight: whether weights are rewound.
        pruning_params: further arguments of the algorithm.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: for an unknown algorithm, or no round.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        pruning_algorithm: str = "level",
        total_iteration: int = 3,
        log_dir: str | Path = ".",
        keep_intermediate_result: bool = False,
        evaluator: Evaluator | None = None,
        speedup: bool = False,
        reset_weight: bool = True,
        pruning_params: Mapping[str, Any] | None = None,
        *,
        dummy_input: Any = None,
    ) -> None:
        if total_iteration < 1:
            raise PruningError(f"total_iteration is at least 1, got {total_iteration}")
        params = {"dummy_input": dummy_input, "evaluator": evaluator, **(pruning_params or {})}
        pruner = algorithm(pruning_algorithm)(model, config_list, **params)
        super().__init__(pruner, evaluator, log_dir, keep_intermediate_result, speedup)
        self.total_iteration, self.reset_weight = total_iteration, reset_weight
        self.round = 0
        self._start = _values(self.bound_model, self.get_masks())
        self._training = evaluator.state() if evaluator is not None else {}

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, Masks]:
        """All rounds; ``max_steps`` or ``max_epochs`` is the length of the training in each."""
        self.wrap_model()
        while self.round < self.total_iteration:
            self._train(max_steps, max_epochs)
            self.next_round()
        return self.bound_model, self.get_masks()

    def next_round(self) -> Round:
        """The model has been trained: prune it, and rewind what is left."""
        if self.round >= self.total_iteration:
            raise PruningError(f"all {self.total_iteration} rounds are over")
        self.round += 1
        self.set_goals(with_share(self.goal, self.round / self.total_iteration))
        self.pruner.begin()
        self.pruner.compress()
        result = self.remember(self.evaluate() if self._evaluates else None)
        if self.reset_weight:
            _put(self.bound_model, self._start)
            if self.evaluator is not None:
                self.evaluator.set_state(self._training)
        return result

    @property
    def _evaluates(self) -> bool:
        return self.evaluator is not None and self.evaluator.evaluates

    def _best(self) -> Round:
        return self.results[-1]  # the rounds before it have not pruned enough

    def _state(self) -> dict[str, Any]:
        return {"round": self.round, "start": self._start, "pruner": super()._state()}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state["pruner"])
        self.round, self._start = int(state["round"]), dict(state["start"])
        self.set_goals(with_share(self.goal, self.round / self.total_iteration))


class AutoCompressPruner(SearchingPruner):
    """Rounds in which simulated annealing finds the split over layers, and ADMM prunes by it.

    After round ``i`` of ``n`` a share ``1 - (1 - P)**(i / n)`` is masked. Default granularity: single
    elements, that of ADMM. Source: Liu et al., "AutoCompress: an automatic DNN structured pruning framework
    for ultra-high compression rates" (AAAI 2020).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`; the ratios are the total, which is split.
        total_iteration: number of rounds.
        admm_params: arguments of :class:`ADMMPruner`, such as ``iterations`` and ``training_epochs``.
        sa_params: arguments of :class:`SimulatedAnnealingPruner`, such as ``start_temperature``.
        log_dir: folder for what is kept.
        keep_intermediate_result: write weights and masks of every round there.
        evaluator: trains and evaluates.
        speedup: evaluate smaller copies, see :class:`SearchingPruner`.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: without an evaluator, or for no round.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        total_iteration: int,
        admm_params: Mapping[str, Any] | None = None,
        sa_params: Mapping[str, Any] | None = None,
        log_dir: str | Path = ".",
        keep_intermediate_result: bool = False,
        evaluator: Evaluator | None = None,
        speedup: bool = False,
        *,
        dummy_input: Any = None,
    ) -> None:
        if total_iteration < 1 or evaluator is None:
            raise PruningError("AutoCompressPruner needs an evaluator, and at least one round")
        admm: dict[str, Any] = {"evaluator": evaluator, "dummy_input": dummy_input, **(admm_params or {})}
        self._admm = ADMMPruner(model, config_list, **admm)
        super().__init__(self._admm, evaluator, log_dir, keep_intermediate_result, speedup)
        params: dict[str, Any] = {
            "evaluator": evaluator,
            "dummy_input": dummy_input,
            "speedup": speedup,
            **(sa_params or {}),
        }
        algorithm_params = {"existed_wrappers": self.sites, **params.pop("pruning_params", {})}
        self._annealing = SimulatedAnnealingPruner(
            self.bound_model, config_list, pruning_params=algorithm_params, **params
        )
        self.total_iteration = total_iteration

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, Masks]:
        """All rounds; how long ADMM trains is among its arguments."""
        if max_steps is not None or max_epochs is not None:
            raise PruningError(
                "AutoCompressPruner trains as long as admm_params say: call compress() without arguments"
            )
        for done in range(1, self.total_iteration + 1):
            self._annealing.restart(with_share(self.goal, done / self.total_iteration))
            self._annealing.compress()
            self.set_goals(self._annealing.resolved)
            self.update_masks(
                {m: {n: torch.ones_like(x) for n, x in t.items()} for m, t in self.get_masks().items()}
            )
            self._admm.begin()
            self._admm.compress()
            self.remember(self.evaluate())
        return self.bound_model, self.get_masks()

    def _best(self) -> Round:
        return self.results[-1]  # the rounds before it have not pruned enough


def _values(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Copies of all parameters and buffers but masks."""
    own = {f"{m}.{name}_mask".lstrip(".") for m, targets in masks.items() for name in targets}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in own}


def _put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        current = model.state_dict()
        for name, value in values.items():
            current[name].copy_(value)
