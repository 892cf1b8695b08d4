"""Pruners that look at what the layers put out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..._errors import PruningError
from ..config import Target, TargetKind
from ..sites import Sites, key_of
from ._collecting import CollectingPruner

if TYPE_CHECKING:
    from ..evaluators import Evaluator

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "relu6": F.relu6}


class _OutputPruner(CollectingPruner):
    """Scores the channels of a layer by its output behind an activation function."""

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        training_steps: int = 1,
        activation: str = "relu",
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise PruningError(f"activation is one of {sorted(ACTIVATIONS)}, got {activation!r}")
        self._activation = ACTIVATIONS[activation]
        self._handles: list[RemovableHandle] = []
        super().__init__(
            model,
            config_list,
            evaluator,
            training_steps,
            existed_wrappers,
            mode=mode,
            dummy_input=dummy_input,
        )

    @abstractmethod
    def _statistic(self, activations: Tensor) -> Tensor:
        """What is averaged over samples and positions."""

    def begin(self) -> None:
        """See :meth:`CollectingPruner.begin`."""
        super().begin()
        self._seen, self._parts = {}, {}
        for target in () if self._handles else self.resolved.targets:
            if target.settings.active:
                module = self.bound_model.get_submodule(target.module)
                self._handles.append(module.register_forward_hook(partial(self._gather, target)))

    _parts: dict[tuple[str, str], int]

    def end(self) -> None:
        """See :meth:`CollectingPruner.end`."""
        while self._handles:
            self._handles.pop().remove()

    def _gather(self, target: Target, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise PruningError(f"{target.module}: {type(self).__name__} needs a layer with one output tensor")
        dim = channel_dim(module, output)
        statistic = self._statistic(self._activation(output.detach())).float()
        rows = statistic.movedim(dim, 0).flatten(1)
        key = key_of(target)
        self._seen[key] = self._seen.get(key, 0) + rows.sum(1)
        self._parts[key] = self._parts.get(key, 0) + rows.shape[1]

    def _scores(self, target: Target) -> Tensor:
        key = key_of(target)
        if key not in self._seen:
            raise PruningError(f"{target.module} has not been run: is it used in the model's forward?")
        mean = self._seen[key] / self._parts[key]
        count = prod(self.counts(target))
        if len(mean) % count:
            raise PruningError(
                f"{target.module}.{target.name} has {count} blocks, and its layer {len(mean)} channels; "
                f"{type(self).__name__} scores channels, so take granularity 'out_channel'"
            )
        return mean.reshape(count, -1).mean(1)

    def _check(self) -> None:
        for target in self.resolved.targets:
            if target.settings.active and target.kind in (TargetKind.INPUT, TargetKind.BUFFER):
                raise PruningError(
                    f"{target.module}, target {target.name!r}: {type(self).__name__} scores what "
                    "layers put out; choose a weight or an output"
                )

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"parts": {".".join(key): count for key, count in self._parts.items()}}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        for target in self.resolved.targets:
            if ".".join(key_of(target)) in state["parts"]:
                self._parts[key_of(target)] = state["parts"][".".join(key_of(target))]


def channel_dim(module: nn.Module, output: Tensor) -> int:
    """Which dimension of an output has the channels."""
    convolutional = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
    return 1 if isinstance(module, convolutional) or output.dim() == 4 else -1


class ActivationAPoZRankPruner(_OutputPruner):
    """The channels with the highest share of zeros go; default granularity ``out_channel``.

    Score of a channel: ``1 - mean over samples and positions of [act(output) == 0]``. Outputs may be images,
    rows of features, or sequences ``(batch, positions, features)``. Source: Hu et al., "Network trimming: a
    data-driven neuron pruning approach" (2016).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: trains; not needed by who calls :meth:`step` himself.
        training_steps: steps to collect for.
        activation: what follows the layer: ``"relu"``, ``"gelu"`` or ``"relu6"``.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: for inputs and buffers as targets, or another activation.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.ReLU())
        >>> net[0].weight.data, net[0].bias.data = torch.zeros(3, 1), torch.tensor([1.0, -1.0, 1.0])
        >>> pruner = ActivationAPoZRankPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.4}])
        >>> _ = net(torch.randn(5, 1))
        >>> pruner.step()
        >>> pruner.get_masks()["0"]["bias"]
        tensor([1., 0., 1.])
    """

    def _statistic(self, activations: Tensor) -> Tensor:
        return activations != 0


class ActivationMeanRankPruner(_OutputPruner):
    """The channels with the smallest mean activation go; default granularity ``out_channel``.

    Score of a channel: ``mean over samples and positions of act(output)``. Source: Molchanov et al., "Pruning
    convolutional neural networks for resource efficient inference" (ICLR 2017). Arguments: see
    :class:`ActivationAPoZRankPruner`.
    """

    def _statistic(self, activations: Tensor) -> Tensor:
        return activations
