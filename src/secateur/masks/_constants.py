"""Forward through the recorded graph: what is known of every tensor, given the masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..axes import STATE, Analysis
from ..axes._analysis import key_of
from ..capture import Node, Source, Value, owned_tensors
from . import _attention, _elementwise, _movement, _norms, _pooling, _whole_layers
from ._addresses import Addresses
from ._known import EXACTLY, Known, compress, spread, unknown
from ._layers import LAYERS, Layered, Place
from ._transfer import TRANSFERS, Results, Step, arguments_of, packet_of
from ._zeros import ZerosByFlow

FAMILIES = (_attention, _elementwise, _movement, _norms, _pooling, _whole_layers)
"""The modules that fill the tables of transfers and layers."""

Masks = Mapping[str, Tensor]
"""By the path of a parameter: True where it is kept."""

Update = Callable[[Step], Results]


@dataclass
class Constants:
    """What is known of every tensor at the time an operator reads or makes it.

    Attributes:
        analysis: the analysed graph.
        layers: by the index of a node, what it sums over with its weights.
        seen: by the index of a node, what was known of its operands.
        made: by the index of a node, what is known of its results.
        failed: by the index of a node, why its transfer gave up; it is unknown then.
    """

    analysis: Analysis
    addresses: Addresses
    layers: dict[int, Layered] = field(default_factory=dict)
    seen: dict[int, dict[int, Known]] = field(default_factory=dict)
    made: dict[int, list[Known]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


_IS_EXACT = torch.tensor(EXACTLY, dtype=torch.uint8)
_NOT_MASKED = torch.tensor(False)


class Forward:
    """Goes through a graph in the order that it ran.

    Args:
        analysis: the analysed graph of the model.
        model: the model, whose parameters need not be masked yet.
        masks: by the path of a parameter, True where it is kept. A zero is only taken for one
            where a mask put it: a parameter that happens to be zero may be trained.
        updates: by the index of a node, a function to use instead of the operator's own transfer.
    """

    def __init__(
        self,
        analysis: Analysis,
        model: nn.Module,
        masks: Masks,
        updates: Mapping[int, Update] | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        self._analysis = analysis
        self._model = model
        self._masks = masks
        self._updates = updates or {}
        self._owned = {name: tensor for _, name, tensor in owned_tensors(model)}
        self._known: dict[int, Known] = {}
        self._normalised: set[int] = set()
        self._readers = Counter(id_ for node in analysis.graph.nodes for id_ in set(node.inputs))
        self._memory = _memory(analysis)
        self._sharing: dict[int, list[int]] = defaultdict(list)
        for id_, base in self._memory.items():
            self._sharing[base].append(id_)
        self.constants = Constants(analysis, addresses or Addresses())
        self._by_flow = ZerosByFlow(analysis, self.constants.addresses, self.known_of)

    def run(self) -> Constants:
        """All nodes."""
        for node in self._analysis.graph.nodes:
            self.update(node)
        return self.constants

    def known_of(self, id_: int) -> Known:
        """What is known of a tensor at this moment of the run."""
        known = self._known.get(id_)
        if known is None:
            known = self._known[id_] = self._source(self._analysis.graph.values[id_])
        return known

    def _source(self, value: Value) -> Known:
        if value.source not in STATE or value.name not in self._owned:
            return unknown(value.shape)
        tensor = self._owned[value.name].detach()
        state = spread(_IS_EXACT, value.shape)
        if value.source is not Source.PARAMETER:
            return Known(tensor, state)
        mask = next((self._masks[name] for name in value.names if name in self._masks), None)
        masked = _NOT_MASKED if mask is None else ~compress(mask)[0]
        return Known(tensor, state, spread(masked, value.shape))

    def update(self, node: Node) -> None:
        """What is known of the results of one node."""
        inputs = node.inputs
        results = self._results(node)
        self.constants.seen[node.index] = {id_: self.known_of(id_) for id_ in inputs}
        self.constants.made[node.index] = results
        for id_, known in zip(node.outputs, results, strict=True):
            if id_ in inputs:  # in place: whatever else looks at the memory is out of date
                for other in self._sharing[self._memory[id_]]:
                    self._known[other] = unknown(self._analysis.graph.values[other].shape)
            self._known[id_] = known

    def _results(self, node: Node) -> list[Known]:
        shapes = [self._analysis.graph.values[id_].shape for id_ in node.outputs]
        if not shapes:
            return []
        dtypes = [self._analysis.graph.values[id_].dtype for id_ in node.outputs]
        step = Step(node, arguments_of(node), shapes, dtypes, self.known_of, self._normalised)
        try:
            found = self._found(step)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            self.constants.failed[node.index] = f"{node}: {type(error).__name__}: {error}"
            found = None
        if found is None:
            return self._by_flow.results(node)
        results = [found] if isinstance(found, Known) else list(found)
        return [unknown(s) if k is None else k for k, s in zip(results, shapes, strict=True)]

    def _found(self, step: Step) -> Results:
        node = step.node
        if node.index in self._updates:
            return self._updates[node.index](step)
        if self._analysis.operators[node.index] is None:
            return [None] * len(step.shapes)
        key = packet_of(key_of(node))
        if key in LAYERS:
            graph = self._analysis.graph
            place = Place(
                step, self._analysis.dims_of, graph.values.__getitem__, self._model, self._readers.__getitem__
            )
            layered = LAYERS[key](place)
            if layered is not None:
                self.constants.layers[node.index] = layered
                return layered.results
        transfer = TRANSFERS.get(key)
        return None if transfer is None else transfer(step)


def _memory(analysis: Analysis) -> dict[int, int]:
    """For every tensor the first one that it may share memory with.

    The recorder lets any composite operator share with its operand. That is safe, but makes one of
    all activations, and every in-place activation function would wipe out all that is known.
    """
    memory = {value.id: value.id for value in analysis.graph.values}
    for node in analysis.graph.nodes:
        key = packet_of(key_of(node))
        new = key in LAYERS or (key in TRANSFERS and TRANSFERS[key] not in _SHARES)
        for id_ in node.outputs:
            base = analysis.graph.values[id_].base
            if not new and base != id_ and id_ not in node.inputs and node.inputs:
                memory[id_] = memory[node.inputs[0]]
    return memory


_SHARES = {_elementwise.same, _movement.view, _movement.regroup, _movement.expand_as}
