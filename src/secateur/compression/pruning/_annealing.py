"""Simulated annealing over how much each layer loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..._errors import PruningError
from ..config import Resolved
from ._driving import SearchingPruner
from ._pruner import Masks
from ._single import algorithm
from ._splits import find_parts, fit, with_ratios

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class SimulatedAnnealingPruner(SearchingPruner):
    """Searches the split of a total over the layers by simulated annealing; granularity is the algorithm's.

    It begins with random ratios, larger ones for larger layers. At temperature ``T`` every ratio is moved by
    up to ``perturbation_magnitude * T / start_temperature``, all are shifted to the total again, and the
    masks are evaluated: a better score is accepted, a worse one with probability ``exp(-difference / T)``;
    after every acceptance ``T`` is multiplied by ``cool_down_rate``. The best masks are on the model at the
    end. No layer is emptied. Source: Liu et al., "AutoCompress" (AAAI 2020), section on the heuristic search.

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`; the ratios are the total over all their targets, by elements.
        evaluator: evaluates; higher is better.
        start_temperature: the first ``T``.
        stop_temperature: the search ends below it.
        cool_down_rate: see above.
        perturbation_magnitude: see above.
        pruning_algorithm: see :class:`LotteryTicketPruner`; ``"l1"`` for whole channels.
        pruning_params: further arguments of the algorithm.
        log_dir: folder for what is kept.
        keep_intermediate_result: write weights and masks of every trial there.
        speedup: evaluate smaller copies, see :class:`SearchingPruner`.
        seed: of the search; the global random state is not used.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: without an evaluator, for temperatures or a rate that never end, an unknown algorithm,
            or layers whose bounds rule the total out.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        start_temperature: float = 100,
        stop_temperature: float = 20,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        pruning_algorithm: str = "level",
        pruning_params: Mapping[str, Any] | None = None,
        log_dir: str | Path = ".",
        keep_intermediate_result: bool = False,
        speedup: bool = False,
        *,
        seed: int = 0,
        dummy_input: Any = None,
    ) -> None:
        if not (0 < stop_temperature <= start_temperature and 0 < cool_down_rate < 1):
            raise PruningError(
                "0 < stop_temperature <= start_temperature and 0 < cool_down_rate < 1, got "
                f"{stop_temperature}, {start_temperature}, {cool_down_rate}"
            )
        params = {"dummy_input": dummy_input, "evaluator": evaluator, **(pruning_params or {})}
        pruner = algorithm(pruning_algorithm)(model, config_list, **params)
        super().__init__(pruner, evaluator, log_dir, keep_intermediate_result, speedup)
        self.start_temperature, self.stop_temperature = start_temperature, stop_temperature
        self.cool_down_rate, self.perturbation_magnitude = cool_down_rate, perturbation_magnitude
        self._seed = seed
        self.restart(self.goal)

    def restart(self, goal: Resolved) -> None:
        """Begin anew, with another total."""
        self.set_goals(goal)
        self.goal, self.results = goal, []
        self.parts = find_parts(self.pruner)
        self._random = torch.Generator().manual_seed(self._seed)
        fit([part.goal for part in self.parts], self.parts)

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, Masks]:
        """The whole search."""
        if max_steps is not None or max_epochs is not None:
            raise PruningError("SimulatedAnnealingPruner does not train: call compress() without arguments")
        self.wrap_model()
        if self.pruner.trains:
            self.pruner.compress()  # collects what the scores are made of
        temperature = float(self.start_temperature)
        current = self._first()
        score = self._try(current)
        while temperature >= self.stop_temperature:
            ratios = self._neighbour(current, temperature)
            new = self._try(ratios)
            if new > score or self._draw() < exp(-abs(new - score) / temperature):
                current, score = ratios, new
                temperature *= self.cool_down_rate
        self._take_best()
        return self.bound_model, self.get_masks()

    def _take_best(self) -> None:
        best = self._best()
        ratios = [best.ratios[part.targets[0].module, part.targets[0].name] for part in self.parts]
        self.set_goals(with_ratios(self.goal, self.parts, ratios))
        self.update_masks(best.masks)

    def _try(self, ratios: Sequence[float]) -> float:
        self.set_goals(with_ratios(self.goal, self.parts, ratios))
        self.generate_masks()
        score = self.evaluate()
        self.remember(score)
        return score

    def _first(self) -> list[float]:
        """Random ratios, the larger the larger the layer."""
        drawn = sorted(self._draw() for _ in self.parts)
        order = sorted(range(len(self.parts)), key=lambda number: self.parts[number].size)
        ratios = [0.0] * len(self.parts)
        for ratio, number in zip(drawn, order, strict=True):
            ratios[number] = ratio
        return fit(ratios, self.parts)

    def _neighbour(self, ratios: Sequence[float], temperature: float) -> list[float]:
        magnitude = self.perturbation_magnitude * temperature / self.start_temperature
        return fit([ratio + magnitude * (2 * self._draw() - 1) for ratio in ratios], self.parts)

    def _draw(self) -> float:
        return float(torch.rand((), generator=self._random))

    def _state(self) -> dict[str, Any]:
        return {"random": self._random.get_state(), "pruner": super()._state()}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state["pruner"])
        self._random.set_state(state["random"])
