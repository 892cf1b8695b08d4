"""Network slimming: factors of channels, pushed towards zero while the model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..._errors import PruningError
from ...criteria import l1_norm
from ..config import Target, TargetKind
from ..sites import Sites, block_rows, key_of, spread
from ._collecting import CollectingPruner
from ._gates import Gates

if TYPE_CHECKING:
    from ..evaluators import Evaluator

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class SlimPruner(CollectingPruner):
    """The channels with the smallest factors go; default granularity ``out_channel``.

    The factors of a norm layer are its own weights (network slimming proper); any other parameter gets
    a factor for each of its blocks, 1 at first, trained by an Adam of its own. The loss is given
    ``regular_scale * mean over targets of sum |factor|``, and the score of a block is ``|factor|``. Added
    factors are part of what the model computes, so :meth:`unwrap_model` multiplies them into the weights.
    Source: Liu et al., "Learning efficient convolutional networks through network slimming" (ICCV 2017).

    Args:
        model: see :class:`Pruner`.
        config_list: see :class:`Pruner`.
        evaluator: trains; in a loop of one's own add :meth:`penalty` to the loss and call :meth:`step`.
        training_steps: steps to train the factors for.
        regular_scale: weight of the penalty.
        existed_wrappers: see :class:`Pruner`.
        mode: see :class:`Pruner`.
        dummy_input: see :class:`Pruner`.

    Raises:
        PruningError: for inputs, outputs and buffers as targets.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3))
        >>> net[1].weight.data = torch.tensor([2.0, -0.5, 1.0])
        >>> pruner = SlimPruner(net, [{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.4}])
        >>> pruner.generate_masks()["1"]["bias"]
        tensor([1., 0., 1.])
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        training_steps: int = 1,
        regular_scale: float = 1.0,
        existed_wrappers: Sites | None = None,
        *,
        mode: str = "normal",
        dummy_input: Any = None,
    ) -> None:
        self.regular_scale = regular_scale
        super().__init__(
            model,
            config_list,
            evaluator,
            training_steps,
            existed_wrappers,
            mode=mode,
            dummy_input=dummy_input,
        )

    _gates: Gates | None = None

    def _check(self) -> None:
        for target in self.resolved.targets:
            if target.settings.active and target.kind is not TargetKind.PARAMETER:
                raise PruningError(
                    f"{target.module}, target {target.name!r}: SlimPruner puts factors on parameters. "
                    "Choose the weight of the layer, or of the norm behind it"
                )

    def begin(self) -> None:
        """See :meth:`CollectingPruner.begin`."""
        super().begin()
        if self._gates is None:
            added = [t for t in self.resolved.targets if t.settings.active and not self._own_factor(t)]
            self._gates = Gates(self.sites, added, 1.0, scale=True)
        self._gates.train(True)

    def end(self) -> None:
        """See :meth:`CollectingPruner.end`."""
        if self._gates is not None:
            self._gates.train(False)

    def penalty(self) -> Tensor:
        """Weighted mean over the targets of the sums of absolute factors; zero when they are trained."""
        factors = [*self._added.values(), *self._own_factors()]
        if not factors or self.collected >= self.training_steps:
            return torch.zeros(())
        return self.regular_scale * torch.stack([factor.abs().sum() for factor in factors]).mean()

    @property
    def _added(self) -> Mapping[tuple[str, str], Tensor]:
        return self._gates.values if self._gates is not None else {}

    def _own_factor(self, target: Target) -> bool:
        return isinstance(self.bound_model.get_submodule(target.module), _NORMS)

    def _own_factors(self) -> list[Tensor]:
        found: list[Tensor] = []
        for target in self.resolved.targets:
            parameter = self.bound_model.get_submodule(target.module)._parameters.get(target.name)
            if target.settings.active and parameter is not None and self._own_factor(target):
                found.append(parameter)
        return found

    def _observe(self, grad_scale: float) -> None:
        if self._gates is not None:
            self._gates.step(grad_scale)

    def _scores(self, target: Target) -> Tensor:
        added = self._added.get(key_of(target))
        if added is not None:
            return added.detach().abs()
        value = self.value(target)
        return l1_norm(block_rows(value, target.blocks(tuple(value.shape))))

    def _fold(self) -> None:
        super()._fold()
        if self._gates is None:
            return
        self._gates.remove()
        with torch.no_grad():
            for target in self.resolved.targets:
                factor = self._added.get(key_of(target))
                if factor is not None:
                    value = self.value(target)
                    value.mul_(spread(factor.to(value), value.shape, target.blocks(tuple(value.shape))))
                    factor.fill_(1.0)

    def _wrapped(self) -> None:
        if self._gates is not None:
            self._gates.put()

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"gates": self._gates.state() if self._gates else {}}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        if self._gates is not None:
            self._gates.set_state(state["gates"])
            self._gates.train(self.collected < self.training_steps)
