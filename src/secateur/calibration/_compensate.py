"""Compensation: what removed labels gave on the average, given by what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import nn

from .._errors import LabelError
from ..axes import Keep, Leaf, Positions, batch_norm_of, kept
from ..capture import Node, Source, owned_tensors
from ..criteria import Use, find_uses
from ._moments import Moments, Place

if TYPE_CHECKING:
    from .._snapshot import Snapshot

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class Compensate(Enum):
    """What takes the place of removed labels in the layers that read them.

    - ``mean``: their mean activation, folded into the bias of the reader (or the running mean of the
      BatchNorm behind it).
    - ``least_squares``: the linear combination of the labels that stay that comes nearest to them over
      the calibration data, folded into the reader's weights, and what is left of the mean into the bias.
    """

    MEAN = "mean"
    LEAST_SQUARES = "least_squares"

    @classmethod
    def _missing_(cls, value: object) -> Compensate:
        raise LabelError(f"compensate is None or one of {[c.value for c in cls]}, got {value!r}")


@dataclass
class Compensated:
    """New values for tensors of the model as it is before the cut.

    Attributes:
        values: by the path of a parameter or buffer; of biases that a layer does not have yet too.
        skipped: layers that read removed labels and could not be compensated, with the reason.
    """

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def compensations(
    snapshot: Snapshot,
    keep: Keep,
    moments: Mapping[Place, Moments],
    how: Compensate | str = Compensate.MEAN,
    *,
    damping: float = 1e-2,
) -> Compensated:
    """New weights and biases for a model that is about to be cut.

    With the inputs ``x`` of a layer parted into those that stay, ``x_K``, and those that go, ``x_R``:
    ``W_R x_R`` is replaced by ``W_R (A x_K + b)``, where ``b`` is the mean of ``x_R - A x_K``, and ``A`` is
    zero for ``mean``, or ``C_RK (C_KK + damping * mean(diag C) * I)^-1`` for ``least_squares``. ``A x_K``
    goes into the weights of the layer, ``W_R b`` into its bias; at the border of a zero-padded
    convolution the latter is not exact.

    Source: for the linear combination, Chee et al., "Model preserving compression for neural networks"
    (NeurIPS 2022).

    Args:
        snapshot: the model.
        keep: the positions of every axis that stay.
        moments: what :func:`collect_moments` gathered.
        how: see :class:`Compensate`.
        damping: ridge of the regression, as a share of the mean variance.
    """
    how = Compensate(how)
    work = _Work(snapshot, keep, how, damping)
    seen: set[tuple[int, Place]] = set()
    for uses in find_uses(snapshot.structure).values():
        for use in uses:
            if use.parameter is None or use.activation is None or use.activation not in moments:
                continue
            key = (use.node.index, use.activation)
            if key not in seen:
                seen.add(key)
                work.use(use, moments[use.activation])
    return work.result


class _Work:
    """Goes through the readers and collects what changes."""

    def __init__(self, snapshot: Snapshot, keep: Keep, how: Compensate, damping: float) -> None:
        self.result = Compensated()
        self._analysis = snapshot.structure.analysis
        self._keep: dict[Leaf, Positions] = dict(keep)
        self._how, self._damping = how, damping
        self._model = snapshot.model
        self._owned = {name: tensor for _, name, tensor in owned_tensors(snapshot.model)}
        self._readers = self._analysis.graph.readers()

    def use(self, use: Use, moments: Moments) -> None:
        """Compensate one reader, if something that it reads goes."""
        assert use.parameter is not None
        assert use.activation is not None
        id_, dim = use.activation
        stay = kept(self._analysis.dims_of(id_)[dim], self._keep)
        if stay is None:
            return
        name = use.parameter.parameter
        weight = self._value(name)
        size = len(moments.total)
        if weight.shape[use.parameter.dim] != size:
            self.result.skipped[name] = "its inputs are in groups"
            return
        alike = [n for n in self._readers[self._id_of(name)] if n is not use.node]
        if alike:
            self.result.skipped[name] = f"its weight is read by {alike[0]} as well"
            return
        here = torch.from_numpy(stay)
        gone = torch.ones(size, dtype=torch.bool)
        gone[here] = False
        there = torch.nonzero(gone).flatten()
        mix, rest = self._combination(moments, here, there)
        columns = weight.movedim(use.parameter.dim, 0).clone()
        lost = columns[there]
        columns[here] += torch.tensordot(mix.t(), lost, 1)
        self._add_bias(use.node, name, use.parameter.dim, torch.tensordot(rest, lost, 1))
        self.result.values[name] = columns.movedim(0, use.parameter.dim)

    def _combination(
        self, moments: Moments, here: torch.Tensor, there: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``A`` of shape (gone, stays) and ``b`` of shape (gone,)."""
        mean = moments.mean
        if self._how is Compensate.MEAN:
            return torch.zeros(len(there), len(here), dtype=torch.float64), mean[there]
        covariance = moments.covariance
        own = covariance[here][:, here]
        ridge = self._damping * covariance.diagonal().mean().clamp_min(1e-30)
        own = own + ridge * torch.eye(len(here), dtype=torch.float64)
        mix = torch.linalg.solve(own, covariance[here][:, there]).t()
        return mix, mean[there] - mix @ mean[here]

    def _value(self, name: str) -> torch.Tensor:
        known = self.result.values.get(name)
        return self._owned[name].detach().double().cpu() if known is None else known

    def _id_of(self, name: str) -> int:
        return next(v.id for v in self._analysis.graph.state(Source.PARAMETER) if v.name == name)

    def _add_bias(self, node: Node, weight: str, dim: int, change: torch.Tensor) -> None:
        """``change`` has the dimensions of the weight without the one that is read: outputs, then taps."""
        outputs = change.flatten(1).sum(1) if change.dim() > 1 else change
        operator = self._analysis.operators[node.index]
        assert operator is not None
        bias = operator.arguments.get("bias")
        if bias is None and "mat2" in operator.arguments:  # addmm: the bias comes first
            bias = operator.arguments.get("self")
        if bias is not None and self._analysis.graph.values[bias.id].source is Source.PARAMETER:
            name = self._analysis.graph.values[bias.id].name
            self.result.values[name] = self._value(name) + outputs
            return
        running = self._mean_behind(node)
        if running is not None:
            self.result.values[running] = self._value(running) - outputs
            return
        module = self._model.get_submodule(node.module)
        path = f"{node.module}.bias".lstrip(".")
        if isinstance(module, LAYERS) and module.bias is None and dim == 1 and path not in self._owned:
            known = self.result.values.get(path, torch.zeros(len(outputs), dtype=torch.float64))
            self.result.values[path] = known + outputs
        else:
            self.result.skipped[weight] = "there is no bias that could take the mean"

    def _mean_behind(self, node: Node) -> str | None:
        """The running mean of the BatchNorm that is all that reads a node's result."""
        (out,) = node.outputs
        readers = self._readers[out]
        norm = batch_norm_of(self._analysis, readers[0]) if len(readers) == 1 else None
        return norm.mean.name if norm is not None and norm.mean.source is Source.BUFFER else None
