"""What is unknown of a layer: its weights, or, for a layer with very many, a mixing of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from ..axes import Positions
from ._layouts import Layout


class Problem(ABC):
    """A least squares problem for one layer: which rows, which results, and what its solution changes.

    Args:
        outputs: features of the original's result that stay, of all groups in a row; None for all.
        groups: groups of the small layer.
        mean: only the bias is unknown: there are too many weights.
    """

    streams = True
    """Whether results can make good for the stream that they are added to."""

    def __init__(self, outputs: Positions | None, groups: int, *, mean: bool = False) -> None:
        self._outputs = outputs
        self.groups = groups
        self.mean = mean

    def unknowns(self, rows: torch.Tensor) -> torch.Tensor:
        """The columns of (groups, positions, features) whose weights are unknown."""
        return rows[..., :0] if self.mean else rows

    def staying(self, rows: torch.Tensor) -> torch.Tensor:
        """The columns of (rows, outputs) that stay."""
        if self._outputs is None:
            return rows
        return rows[..., torch.from_numpy(self._outputs).to(rows.device)]

    @abstractmethod
    def positions(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor) -> int:
        """How many rows an input has."""

    def places(self, layout: Layout, seen: torch.Tensor, weight: torch.Tensor | None) -> int:
        """How many there are of what is looked at in the original; its weight only with its input."""
        assert weight is not None
        return self.positions(layout, seen, weight)

    @abstractmethod
    def wanted(
        self,
        layout: Layout,
        seen: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        at: torch.Tensor,
    ) -> torch.Tensor:
        """From the original: (groups, positions, results) in the small layer's arrangement."""

    @abstractmethod
    def rows(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """From the small model: (groups, positions, features)."""

    @abstractmethod
    def made(
        self, layout: Layout, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """What the small layer makes of its rows as it is."""

    @abstractmethod
    def changes(
        self, layout: Layout, change: torch.Tensor, shift: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """From a solution (groups, features, results) and its intercept to weight and bias of the layer."""


class Weights(Problem):
    """All weights of the layer are unknown."""

    def positions(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor) -> int:
        """Places of the result."""
        return layout.positions(x, weight)

    def wanted(
        self,
        layout: Layout,
        seen: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        at: torch.Tensor,
    ) -> torch.Tensor:
        """Results of the original layer, from its inputs."""
        assert weight is not None
        y = self.made(layout, layout.rows(seen, weight, at).float(), weight, bias)
        rows = self.staying(y.transpose(0, 1).flatten(1))
        return rows.reshape(len(rows), self.groups, -1).transpose(0, 1)

    def rows(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Inputs of the small layer."""
        return layout.rows(x, weight, at).float()

    def made(
        self, layout: Layout, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Its results."""
        y = rows @ layout.matrix(weight).float()
        return y if bias is None else y + bias.float().reshape(len(y), 1, -1)

    def changes(
        self, layout: Layout, change: torch.Tensor, shift: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The solution itself."""
        return torch.zeros_like(weight) if self.mean else layout.weight(change, weight), shift


class Results(Weights):
    """All weights of the layer are unknown, and the original's results themselves can be looked at."""

    def places(self, layout: Layout, seen: torch.Tensor, weight: torch.Tensor | None) -> int:
        """Of a result."""
        return layout.places(seen)

    def wanted(
        self,
        layout: Layout,
        seen: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        at: torch.Tensor,
    ) -> torch.Tensor:
        """The results themselves."""
        rows = self.staying(layout.results(seen, at).float())
        return rows.reshape(len(rows), self.groups, -1).transpose(0, 1)


class Channels(Problem):
    """A mixing of channels in front of the layer is unknown: ``x`` is replaced by ``M x' + m``.

    ``M`` goes into the weights, ``m`` into the bias. It has as many unknowns a channel as there are
    channels, however large the kernel is. The results that are wanted are the inputs of the original.

    Args:
        outputs: as for any problem.
        inputs: channels of the original's input that stay.
    """

    streams = False

    def __init__(self, outputs: Positions | None, inputs: Positions) -> None:
        super().__init__(outputs, 1)
        self._inputs = inputs
        self._full: torch.Tensor | None = None

    def positions(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor) -> int:
        """Places of the input."""
        return x.numel() // x.shape[layout.channel]

    def wanted(
        self,
        layout: Layout,
        seen: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        at: torch.Tensor,
    ) -> torch.Tensor:
        """Inputs of the original layer, whose weights are kept for the end."""
        assert weight is not None
        if self._full is None:
            rows = None if self._outputs is None else torch.from_numpy(self._outputs).to(weight.device)
            self._full = (weight if rows is None else weight[rows]).double()
        return layout.inputs(seen, at).float()[None]

    def rows(self, layout: Layout, x: torch.Tensor, weight: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Inputs of the small layer."""
        return layout.inputs(x, at).float()[None]

    def made(
        self, layout: Layout, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """The small layer's inputs in the places of the original's, zeros for what was cut."""
        assert self._full is not None
        wide = rows.new_zeros(1, rows.shape[1], self._full.shape[1])
        wide[..., torch.from_numpy(self._inputs).to(rows.device)] = rows
        return wide

    def changes(
        self, layout: Layout, change: torch.Tensor, shift: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mixing taken into the weights, the intercept into the bias."""
        assert self._full is not None
        full = self._full.to(change.device)
        mixed = torch.einsum("kc,oc...->ok...", change[0], full)
        if shift is None:
            return mixed, None
        return mixed, torch.einsum("c,oct->o", shift[0], full.flatten(2))
