"""AMC: an agent that learns how much each layer should lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ..._snapshot import Snapshot
from ...cost import module_macs
from ._agent import Agent, AgentSettings
from ._driving import SearchingPruner
from ._pruner import Masks
from ._single import algorithm
from ._splits import Part, find_parts, with_ratios

if TYPE_CHECKING:
    from ..evaluators import Evaluator


class AMCPruner(SearchingPruner):
    """Learns the split of a total over the layers by reinforcement; granularity is the algorithm's.

    In every episode the agent goes through the layers and says for each which share it loses; the lowest
    share that it may choose is what still lets the rest of the layers reach the goal. At the end the masked
    model is evaluated, and ``score - 1`` is the reward of all steps. A layer is described by its place, its
    kind, its sizes, stride and kernel, what it costs, what has been saved, what is left, and the last action.
    The best masks are on the model at the end. Source: He et al., "AMC: AutoML for model compression and
    acceleration on mobile devices" (ECCV 2018).

    A layer's cost falls here with its own masks; that the layers behind it get cheaper too is not counted, so
    the speed-up saves more than the goal.

    Args:
        total_episode: number of episodes.
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`; the ratios are the total, as a share of the cost of their targets.
        evaluator: evaluates; higher is better.
        pruning_algorithm: see :class:`LotteryTicketPruner`.
        log_dir: folder for what is kept.
        keep_intermediate_result: write weights and masks of every episode there.
        ddpg_params: settings of the agent, see :class:`AgentSettings`.
        pruning_params: further arguments of the algorithm.
        target: what the total is of: ``"flops"`` or ``"params"``.
        speedup: evaluate smaller copies, see :class:`SearchingPruner`.
        seed: of the agent; the global random state is not used.
        dummy_input: inputs to count operations at; by default the evaluator's.

    Raises:
        PruningError: for an unknown algorithm, target or setting, no episode, or layers whose bounds rule the
            total out.
    """

    def __init__(
        self,
        total_episode: int,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        pruning_algorithm: str = "l1",
        log_dir: str | Path = ".",
        keep_intermediate_result: bool = False,
        ddpg_params: Mapping[str, Any] | None = None,
        pruning_params: Mapping[str, Any] | None = None,
        target: str = "flops",
        speedup: bool = False,
        *,
        seed: int = 0,
        dummy_input: Any = None,
    ) -> None:
        if target not in ("flops", "params") or total_episode < 1:
            raise PruningError(
                f"target is 'flops' or 'params', total_episode at least 1: got {target!r}, {total_episode}"
            )
        settings = _settings(ddpg_params or {})
        params = {"dummy_input": dummy_input, "evaluator": evaluator, **(pruning_params or {})}
        pruner = algorithm(pruning_algorithm)(model, config_list, **params)
        super().__init__(pruner, evaluator, log_dir, keep_intermediate_result, speedup)
        self.total_episode = total_episode
        self.parts = find_parts(pruner)
        self.costs = self._costs(target)
        self._wanted = sum(part.goal * cost for part, cost in zip(self.parts, self.costs, strict=True))
        reachable = sum(part.most * cost for part, cost in zip(self.parts, self.costs, strict=True))
        if reachable < self._wanted * (1 - 1e-6):
            raise PruningError(
                f"the bounds of the layers allow {reachable / sum(self.costs):.3f} of their {target} to "
                f"be saved, and {self._wanted / sum(self.costs):.3f} is asked for"
            )
        self._features = self._describe()
        self.agent = Agent(self._features.shape[1] + 3, settings, seed)

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, Masks]:
        """All episodes."""
        if max_steps is not None or max_epochs is not None:
            raise PruningError("AMCPruner does not train the model: call compress() without arguments")
        self.wrap_model()
        if self.pruner.trains:
            self.pruner.compress()  # collects what the scores are made of
        for _ in range(self.total_episode):
            self.episode()
        self.set_goals(with_ratios(self.goal, self.parts, self._ratios_of_best()))
        self.update_masks(self._best().masks)
        return self.bound_model, self.get_masks()

    def episode(self) -> float:
        """One walk through the layers; returns the score."""
        states: list[Tensor] = []
        actions: list[float] = []
        saved = 0.0
        for number, part in enumerate(self.parts):
            state = self._state_at(number, saved, actions)
            low = max(part.least, self._least(number, saved))
            action = self.agent.act(state, min(low, part.most), part.most)
            states.append(state)
            actions.append(action)
            saved += action * self.costs[number]
        self.set_goals(with_ratios(self.goal, self.parts, actions))
        self.generate_masks()
        score = self.evaluate()
        self.remember(score)
        self.agent.learn(states, actions, score - 1)
        return score

    def _ratios_of_best(self) -> list[float]:
        best = self._best().ratios
        return [best[part.targets[0].module, part.targets[0].name] for part in self.parts]

    def _least(self, number: int, saved: float) -> float:
        """The share of this layer that is needed even if all later ones lose all they may."""
        rest = zip(self.parts[number + 1 :], self.costs[number + 1 :], strict=True)
        later = sum(part.most * cost for part, cost in rest)
        return (self._wanted - saved - later) / self.costs[number]

    def _costs(self, target: str) -> list[float]:
        if target == "params":
            return [float(part.size) for part in self.parts]
        args, kwargs = self.inputs("target='flops' counts operations")
        self.unwrap_model()
        try:
            macs = module_macs(Snapshot("amc", self.bound_model, args, kwargs).analysis)
        finally:
            self.wrap_model()
        costs = [float(sum(macs.get(t.module, 0) for t in part.targets)) for part in self.parts]
        idle = next((p for p, cost in zip(self.parts, costs, strict=True) if not cost), None)
        if idle is not None:
            name = idle.targets[0].module
            raise PruningError(f"{name} has no multiplications to save: exclude it, or take target='params'")
        return costs

    def _describe(self) -> Tensor:
        """One row a layer, every column between 0 and 1."""
        rows = [
            [number, *_layer(self.bound_model, part), cost]
            for number, (part, cost) in enumerate(zip(self.parts, self.costs, strict=True))
        ]
        table = torch.tensor(rows, dtype=torch.float32)
        low, high = table.amin(0), table.amax(0)
        return (table - low) / (high - low).clamp_min(1e-12)

    def _state_at(self, number: int, saved: float, actions: Sequence[float]) -> Tensor:
        total = sum(self.costs)
        moving = [saved / total, sum(self.costs[number + 1 :]) / total, actions[-1] if actions else 0.0]
        return torch.cat([self._features[number], torch.tensor(moving)])


def _layer(model: nn.Module, part: Part) -> list[float]:
    """Kind, input and output size, stride, kernel and number of weights of the first layer of a part."""
    module = model.get_submodule(part.targets[0].module)
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    shape = tuple(part.targets[0].shape or ())
    stride = module.stride[0] if convolution else 0
    kernel = module.kernel_size[0] if convolution else 1
    return [
        float(convolution),
        shape[1] if len(shape) > 1 else 1,
        shape[0] if shape else 1,
        stride,
        kernel,
        part.size,
    ]


def _settings(given: Mapping[str, Any]) -> AgentSettings:
    known = AgentSettings.__dataclass_fields__
    wrong = sorted(set(given) - set(known))
    if wrong:
        raise PruningError(f"ddpg_params has unknown settings {wrong}; known are {sorted(known)}")
    return AgentSettings(**given)
