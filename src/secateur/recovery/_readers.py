"""What is solved for: operators with weights of their own that read a pruned axis, or what comes of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from ..axes import Analysis, Keep, Operator, Positions, kept, kept_size
from ..capture import Graph, Node
from ..criteria import Origins
from ._layouts import Convolution, Dense, Stacked
from ._problems import Channels, Problem, Results, Weights
from ._sums import Sum, further_projections, hidden_projection, weighted_sum


@dataclass(frozen=True)
class Candidate:
    """A weighted sum of the original that reads a pruned axis, or what layers before it give that do.

    Attributes:
        name: of its weight, without the ``.weight``.
        sum: the operator.
        features: weights that an output of the small model's has.
        results: outputs of the small model's, of all groups.
        problem: what is unknown.
        shown: id of what is looked at in the original: the result, or else the input.
        seen: index of the node at which it can be looked at.
        places: what stays of the dimensions of its input that are cut though it does not sum over them.
    """

    name: str
    sum: Sum
    features: int
    results: int
    problem: Problem
    shown: int
    seen: int
    places: dict[int, Positions]

    @property
    def node(self) -> Node:
        """Its place in the graph."""
        return self.sum.node

    def staying(self, x: torch.Tensor) -> torch.Tensor:
        """The part of an input, or of a tensor with the shape of the result, that the small model has."""
        for dim, rows in self.places.items():
            x = x.index_select(dim, torch.from_numpy(rows).to(x.device))
        return x


def find_candidates(
    analysis: Analysis, keep: Keep, most_features: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Weighted sums that see something of the cut, and those that cannot be solved, with the reason.

    These are the readers of what ``keep`` shortens, and all that work on results of such readers. Of
    layers with more than ``most_features`` unknowns an output only the mixing of channels is solved, or,
    where that is no convolution, only the bias.
    """
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    origins, readers = Origins(analysis), analysis.graph.readers()
    changed = _changed_values(analysis, keep)
    for operator in analysis.operators:
        own = weighted_sum(operator) or hidden_projection(operator)
        if own is not None and own.hidden and _reads_cut_inputs(analysis, own, keep):
            skipped[f"{own.node.module}.in_proj"] = "it is inside a module that is recorded whole"
        if own is None:
            skipped |= _unknown_sums(analysis, operator, origins, keep)
        if own is None or not _is_layer(origins, own):
            continue
        for weight in further_projections(operator):
            if kept(analysis.dims_of(weight)[1], keep) is not None:
                name = _path(origins, weight, own.node)
                skipped[name] = "of a recurrent layer only the first projection is solved for"
        reads_cut = kept(_features(analysis, own), keep) is not None
        if not reads_cut and (own.hidden or own.activation not in changed):
            continue
        name = _name(origins, own)
        after = [] if own.result is None else readers[own.result][:1]
        why = _unsolvable(analysis, own, keep, after)
        if why and reads_cut:  # the others are as good as they were
            skipped[name] = why
        elif not why:
            found.append(_candidate(analysis, own, keep, name, most_features, after))
    return found, skipped


def find_twin_sums(candidates: Iterable[Candidate], original: Graph, small: Analysis) -> dict[int, Sum]:
    """The weighted sum of the small model that stands for each candidate, by the index of its node.

    It is the one that uses the weight of that name; where several do, the one at the same place.
    """
    twins, origins = find_twins(original, small.graph), Origins(small)
    named: dict[str, list[Sum]] = defaultdict(list)
    for operator in small.operators:
        own = weighted_sum(operator)
        if own is not None:
            named[_name(origins, own)].append(own)
    found: dict[int, Sum] = {}
    for candidate in candidates:
        node, alike = candidate.node.index, named[candidate.name]
        at_its_place = weighted_sum(small.operators[twins[node]]) if node in twins else None
        twin = alike[0] if len(alike) == 1 else at_its_place
        if twin is not None:
            found[node] = twin
    return found


def find_twins(original: Graph, small: Graph) -> dict[int, int]:
    """The node of the small model that stands for each node of the original, by their indices.

    Operators are matched by module, by name, and by their order in the module.
    """
    places = {place: node.index for place, node in _placed(small)}
    return {node.index: places[place] for place, node in _placed(original) if place in places}


def _placed(graph: Graph) -> Iterator[tuple[tuple[str, str, int], Node]]:
    """Every node with its module, its operator, and how many of them the module has run before."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for node in graph.nodes:
        key = (node.module, str(node.op))
        yield (*key, counts[key]), node
        counts[key] += 1


# -- what is pruned of them ------------------------------------------------------------------------


def _unknown_sums(
    analysis: Analysis, operator: Operator | None, origins: Origins, keep: Keep
) -> dict[str, str]:
    """Weights with which an operator reads what is cut in a way that is not solved for."""
    inputs = [] if operator is None else operator.node.inputs
    # What works on parameters alone, as a norm of weights, is no layer.
    if operator is None or all(origins.parameter(id_) is not None for id_ in inputs):
        return {}
    why = f"{operator.node.op} is not solved for"
    resolve = analysis.algebra.resolve
    read = (total.operands for total in operator.sums if kept(resolve(total.dim), keep) is not None)
    names = (origins.parameter(id_) for ids in read for id_ in ids)
    return {name.removesuffix(".weight"): why for name in names if name is not None}


def _changed_values(analysis: Analysis, keep: Keep) -> set[int]:
    """Results of weighted sums that read what is cut, and all that is computed from them."""
    changed: set[int] = set()
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        own = weighted_sum(operator) or hidden_projection(operator)
        reads_cut = own is not None and kept(_features(analysis, own), keep) is not None
        if reads_cut or not changed.isdisjoint(node.inputs):
            changed.update(node.outputs)
    return changed


def _reads_cut_inputs(analysis: Analysis, own: Sum, keep: Keep) -> bool:
    """Whether the input projections of an attention that is recorded whole read what is cut."""
    operator = analysis.operators[own.node.index]
    given = {} if operator is None else operator.arguments
    inputs = [given[name].id for name in ("query", "key", "value") if name in given]
    return any(kept(analysis.dims_of(id_)[-1], keep) is not None for id_ in inputs)


def _is_layer(origins: Origins, own: Sum) -> bool:
    """Whether it has a weight or a bias of the model's, and is no product of two activations."""
    return any(id_ is not None and origins.parameter(id_) is not None for id_ in (own.weight, own.bias))


def _name(origins: Origins, own: Sum) -> str:
    return _path(origins, own.weight, own.node)


def _path(origins: Origins, weight: int, node: Node) -> str:
    return (origins.parameter(weight) or node.module).removesuffix(".weight")


def _candidate(
    analysis: Analysis, own: Sum, keep: Keep, name: str, most_features: int, after: Sequence[Node]
) -> Candidate:
    outputs = _outputs(analysis, own, keep)
    weight = analysis.dims_of(own.weight)
    results = own.layout.outputs([dim.size for dim in weight]) if outputs is None else len(outputs)
    features = max(1, prod(kept_size(dim, keep) for dim in weight) // max(1, results))
    size, inputs = _features(analysis, own).size, kept(_features(analysis, own), keep)
    mixable = isinstance(own.layout, Convolution) and own.layout.groups == 1 and not own.layout.transposed
    if features > most_features and mixable:
        inputs = np.arange(size) if inputs is None else inputs
        problem = Channels(outputs, inputs)
        return Candidate(name, own, len(inputs), size, problem, own.activation, own.node.index, {})
    groups, places = _groups(analysis, own, keep), _cut_places(analysis, own, keep)
    mean = features * groups**0.5 > most_features
    features = 1 if mean else features
    if own.result is None or not after:
        problem = Weights(outputs, groups, mean=mean)
        return Candidate(name, own, features, results, problem, own.activation, own.node.index, places)
    # The results are there already, if one waits for the node that reads them.
    problem = Results(outputs, groups, mean=mean)
    return Candidate(name, own, features, results, problem, own.result, after[0].index, places)


def _features(analysis: Analysis, own: Sum) -> Any:
    if own.hidden:
        return analysis.dims_of(own.weight)[1]
    return analysis.dims_of(own.activation)[own.layout.channel]


def _outputs(analysis: Analysis, own: Sum, keep: Keep) -> Positions | None:
    """Features of the result that stay; with stacked weights, of all groups in a row."""
    weight = analysis.dims_of(own.weight)
    if isinstance(own.layout, Stacked):
        return _product([weight[0], weight[2]], keep)
    if isinstance(own.layout, Convolution):
        result = analysis.dims_of(own.node.outputs[0])
        return kept(result[own.layout.channel], keep)
    return kept(weight[1 if isinstance(own.layout, Dense) and own.layout.transposed else 0], keep)


def _product(dims: list[Any], keep: Keep) -> Positions | None:
    rows = [kept(dim, keep) for dim in dims]
    if all(row is None for row in rows):
        return None
    first, second = (np.arange(d.size) if r is None else r for d, r in zip(dims, rows, strict=True))
    return (first[:, None] * dims[1].size + second).reshape(-1)


def _groups(analysis: Analysis, own: Sum, keep: Keep) -> int:
    if isinstance(own.layout, Stacked):
        return kept_size(analysis.dims_of(own.weight)[0], keep)
    if not isinstance(own.layout, Convolution) or own.layout.groups == 1:
        return 1
    # The inputs of a group: channels of the weight, or of a transposed one what its groups leave.
    inputs = kept_size(_features(analysis, own), keep)
    if own.layout.transposed:
        outputs = kept_size(analysis.dims_of(own.node.outputs[0])[own.layout.channel], keep)
        return outputs // kept_size(analysis.dims_of(own.weight)[1], keep)
    return inputs // kept_size(analysis.dims_of(own.weight)[1], keep)


def _cut_places(analysis: Analysis, own: Sum, keep: Keep) -> dict[int, Positions]:
    """What stays of dimensions of the input that are not summed over; of stacked weights not the groups."""
    dims = analysis.dims_of(own.activation)
    channel = own.layout.channel % len(dims)
    first = 1 if isinstance(own.layout, Stacked) else 0
    found = {place: kept(dim, keep) for place, dim in enumerate(dims) if first <= place != channel}
    return {place: rows for place, rows in found.items() if rows is not None}


def _unsolvable(analysis: Analysis, own: Sum, keep: Keep, after: Sequence[Node]) -> str:
    """Why the weights cannot be solved for, or an empty string."""
    graph = analysis.graph
    if own.hidden and not after:
        return "nothing reads its result"
    if isinstance(own.layout, Convolution) and _cut_places(analysis, own, keep):
        return "the positions that it works on are cut too"
    readers = [node for node in graph.nodes if own.weight in node.inputs]
    return f"its weights are used {len(readers)} times" if len(readers) > 1 else ""
