"""Scores from activations: what the readers of a label see, over a few batches and without gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..axes import Structure, labels_at
from ..capture import Source, Watch, owned_tensors
from ._collector import ScoreCollector
from ._gates import Use, find_uses
from ._normalize import Scores
from ._weights import label_rows


class ActivationCriterion(ScoreCollector):
    """A collector that looks at the tensors that the readers of each label get.

    The model runs in eval mode without gradients; no loss is needed. Where several layers read a
    label (the branches of a residual stream), the scores at all of them are added. A group whose
    readers cannot be seen has no score, is listed in ``missing``, and selectors leave it alone.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> ir = secateur.PruningIR(model)
        >>> with secateur.criteria.MeanActivationCriterion(ir) as collect:
        ...     for x in torch.randn(3, 16, 4):
        ...         _ = collect(x)
        >>> collect.scores["0"].shape
        torch.Size([8])
    """

    _structure: Structure
    _uses: dict[str, list[Use]]
    _found: dict[tuple[int, int], torch.Tensor]
    _counts: dict[tuple[int, int], torch.Tensor]
    missing: dict[str, str]

    @abstractmethod
    def _statistic(self, rows: torch.Tensor) -> torch.Tensor:
        """From rows, one a position of the axis, of shape ``(positions, elements)``, what is added up."""

    def _of_use(self, mean: torch.Tensor, use: Use, group: str) -> torch.Tensor:
        """Scores of the labels of a group at one reader, from the mean of the statistic per position."""
        activation = use.activation
        assert activation is not None
        return self._by_label(mean, activation[0], activation[1], group)

    def _start(self, structure: Structure, stack: ExitStack) -> None:
        self._structure = structure
        found = find_uses(structure)
        self._uses = {
            group.name: [use for use in found.get(group.axis, ()) if use.activation is not None]
            for group in structure.groups
        }
        self.missing = {
            name: "what reads it is inside of a module that was recorded whole"
            for name, uses in self._uses.items()
            if not uses
        }
        self._found, self._counts = {}, {}
        for uses in self._uses.values():
            for use in uses:
                self._register(use)

    def _register(self, use: Use) -> None:
        assert use.activation is not None
        id_, dim = use.activation
        size = self._structure.analysis.graph.values[id_].shape[dim]
        self._found.setdefault((id_, dim), torch.zeros(size, dtype=torch.float64))
        self._counts.setdefault((id_, dim), torch.zeros((), dtype=torch.float64))

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        snapshot = self._snapshot
        wanted: dict[int, dict[int, Callable[[torch.Tensor], None]]] = {}
        taken: set[tuple[int, int]] = set()
        for uses in self._uses.values():
            for use in uses:
                assert use.activation is not None
                if use.activation not in taken:  # a tensor that many layers read is looked at once
                    taken.add(use.activation)
                    looks = wanted.setdefault(use.node.index, {})
                    looks[use.activation[0]] = _both(looks.get(use.activation[0]), self._look(use.activation))
        watch = Watch(snapshot.graph, snapshot.settings.detail(snapshot.model), wanted)
        return watch.run(self._ir.model, args, kwargs)

    def _look(self, key: tuple[int, int]) -> Callable[[torch.Tensor], None]:
        dim = key[1] - len(self._structure.analysis.graph.values[key[0]].shape)

        def add(tensor: torch.Tensor) -> None:
            rows = tensor.movedim(dim, 0).flatten(1).float()
            self._found[key] += self._statistic(rows).double().cpu()
            self._counts[key] += rows.shape[1]

        return add

    def _finish_batch(self, examples: int) -> bool:
        return True

    def _sums(self) -> dict[str, torch.Tensor]:
        sums = {f"{key} sum": value for key, value in self._found.items()}
        return sums | {f"{key} count": value for key, value in self._counts.items()}

    def _result(self, sums: dict[str, torch.Tensor]) -> Scores:
        means = {key: value / self._counts[key].clamp_min(1) for key, value in self._found.items()}
        scores: Scores = {}
        for name, uses in self._uses.items():
            if uses:
                found = [self._of_use(means[u.activation], u, name) for u in uses if u.activation]
                scores[name] = torch.stack(found).sum(0)
        return scores

    def _by_label(self, values: torch.Tensor, id_: int, dim: int, group: str) -> torch.Tensor:
        """Means over the positions of each label."""
        own = self._structure.group(group)
        labels = labels_at(self._structure.analysis.dims_of(id_)[dim], own.axis)
        return label_rows(values, 0, labels, own.size).mean(1)


def _both(
    first: Callable[[torch.Tensor], None] | None, second: Callable[[torch.Tensor], None]
) -> Callable[[torch.Tensor], None]:
    def look(tensor: torch.Tensor) -> None:
        if first is not None:
            first(tensor)
        second(tensor)

    return look


class MeanActivationCriterion(ActivationCriterion):
    """Mean absolute activation of each label, where it is read.

    Source: Molchanov et al., "Pruning convolutional neural networks for resource efficient
    inference" (ICLR 2017), the mean activation criterion, here of absolute values.
    """

    def _statistic(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.abs().sum(1)


class APoZCriterion(ActivationCriterion):
    """Share of activations that are not zero: labels with a high average percentage of zeros go first.

    Source: Hu et al., "Network trimming" (2016). Says something of ReLU and its kin only.
    """

    def _statistic(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows != 0).sum(1)


class WandaCriterion(ActivationCriterion):
    """Norm of the activation times the absolute weights that read it, summed over the readers.

    For label ``c`` with inputs ``x_c`` and weights ``W[:, c]``: ``sum |W[:, c]| * ||x_c||``, with the root
    mean square for the norm. Where two activations are multiplied (queries and keys), the
    activation counts alone.

    Source: Sun et al., "A simple and effective pruning approach for large language models"
    (ICLR 2024), summed over the structure that a label is.
    """

    def _statistic(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.square().sum(1)

    def _of_use(self, mean: torch.Tensor, use: Use, group: str) -> torch.Tensor:
        norm = super()._of_use(mean, use, group).sqrt()
        if use.parameter is None:
            return norm
        return norm * self._absolute_weights(use.parameter.parameter, use.parameter.dim, group)

    def _absolute_weights(self, parameter: str, dim: int, group: str) -> torch.Tensor:
        own, analysis = self._structure.group(group), self._structure.analysis
        tensor = next(t for _, name, t in owned_tensors(self._ir.model) if name == parameter)
        value = next(v for v in analysis.graph.state(Source.PARAMETER) if v.name == parameter)
        labels = labels_at(analysis.dims_of(value.id)[dim], own.axis)
        return label_rows(tensor, dim, labels, own.size).abs().sum(1).double().cpu()
