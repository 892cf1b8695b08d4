"""The engine of a :class:`ModelSpeedup`: its replacers, updaters and rules in the places made for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._snapshot import Settings, Snapshot
from ..axes import TABLE, Analysis, analyse
from ..capture import Detail, Source
from ..masks import Known, Step, Update
from ..surgery import Plan, Undo
from ._customize import MaskUpdater, rules_of
from ._engine import Engine

if TYPE_CHECKING:
    from ._model_speedup import ModelSpeedup


@dataclass
class CustomEngine(Engine):
    """The engine, with the customisations of a :class:`ModelSpeedup`."""

    speedup: ModelSpeedup | None = None
    replacing: Undo | None = field(default=None, repr=False)

    @property
    def _owner(self) -> ModelSpeedup:
        assert self.speedup is not None
        return self.speedup

    def make_snapshot(self) -> Snapshot:
        """Module types of updaters are recorded whole, and their rules apply."""
        return CustomSnapshot(
            "speedup", self.model, self.args, self.kwargs, self.settings, speedup=self._owner
        )

    def updates(self) -> dict[int, Update]:
        """Updaters instead of transfers, for the nodes that they know."""
        found: dict[int, Update] = {}
        for node in self.snapshot.graph.nodes:
            updater = next((u for u in self._owner.mask_updaters if u.detect(self._owner, node)), None)
            if updater is not None:
                found[node.index] = lambda step, u=updater: self._updated(u, step)
        return found

    def _updated(self, updater: MaskUpdater, step: Step) -> Any:
        self._step = step
        return updater.direct_update_process(self._owner, step.node)

    def known_of(self, tensor: int) -> Known:
        """What is known of a tensor at this moment."""
        return self._step.known_of(tensor)

    def mask_of_parameter(self, name: str) -> Tensor | None:
        """1 where a parameter stays and is not masked; None if it is not in the graph."""
        value = next((v for v in self.snapshot.graph.values if name in v.names), None)
        if value is None or value.source is not Source.PARAMETER:
            return None
        mask = self.mask_of_tensor(value.id)
        given = self.masks.parameters.get(value.name)
        return mask if given is None else mask * given.to(mask)

    def mask_of_tensor(self, id_: int) -> Tensor:
        """1 where a tensor stays."""
        shape = self.snapshot.graph.values[id_].shape
        mask = torch.ones(shape)
        for dim, expression in enumerate(self.snapshot.analysis.dims_of(id_)):
            gone = self.constants.addresses.positions(expression, self.removal.removed)
            mask.index_fill_(dim, torch.nonzero(gone).flatten(), 0)
        return mask

    def needed_whole(self) -> Iterable[str]:
        """All parameters, where somebody replaces modules."""
        return self.masks.parameters if self._owner.replacers else ()

    def replace(self, plan: Plan, undo: Undo) -> Plan:
        """Ask the replacers; what they replaced is not cut."""
        self.replacing = undo
        try:
            for replacer in self._owner.replacers:
                replacer.replace_modules(self._owner)
        finally:
            self.replacing = None
        paths = tuple(f"{path}." for path in self._owner.replaced)
        if not paths:
            return plan
        rest = []
        for change in plan.tensors:
            names = tuple(name for name in change.names if not name.startswith(paths))
            if names:
                rest.append(dataclasses.replace(change, names=names))
        attributes = [c for c in plan.attributes if not f"{c.place.module}.".startswith(paths)]
        refits = [r for r in plan.refits if not f"{r.module}.".startswith(paths)]
        return dataclasses.replace(plan, tensors=rest, attributes=attributes, refits=refits)


@dataclass
class CustomSettings(Settings):
    """Module types of mask updaters are recorded as one node each."""

    module_types: tuple[type, ...] = ()

    def detail(self, model: nn.Module) -> Detail:
        """What to record whole."""
        plain = super().detail(model)
        return Detail(
            lambda op: plain.has_rule(op) or (isinstance(op, type) and issubclass(op, self.module_types)),
            plain.is_leaf,
        )


@dataclass
class CustomSnapshot(Snapshot):
    """A snapshot that knows the rules of mask updaters."""

    speedup: ModelSpeedup | None = None

    @cached_property
    def analysis(self) -> Analysis:
        """Dimensions of every tensor, by our rules and those of the updaters."""
        assert self.speedup is not None
        rules = rules_of(self.speedup.mask_updaters, self.speedup, self.graph)
        return analyse(self.graph, {**TABLE, **dict(rules)})
