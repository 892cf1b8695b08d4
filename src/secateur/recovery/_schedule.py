"""How many batches may be inside the model at once, and how many rows each gives to a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import torch

from ..axes import Analysis
from ..capture import Node, Source
from ..criteria import Origins

FEWEST = 2048
"""Positions that are taken, where they fit, even of layers with few unknowns: a depthwise kernel has nine."""


@dataclass(frozen=True)
class Schedule:
    """For each stop, in the order that they run: batches that have been let in by then, rows of each.

    Batches that come in later run through the stops before without a pause: the layers there are
    solved already. So early layers, whose activations are large and whose rows are many, are solved by
    few batches, and late ones by all.
    """

    batches: dict[int, int]
    rows: dict[int, int]


def plan_schedule(
    analysis: Analysis,
    features: Mapping[int, int],
    *,
    batches: int,
    share: float,
    memory: int,
    per_feature: int,
    fewest: int = FEWEST,
) -> Schedule:
    """A schedule within a limit of memory.

    Args:
        analysis: of the model, as it was recorded.
        features: how many weights an output has, for the index of each node that is a stop.
        batches: how many there are.
        share: examples of a batch for each that was recorded.
        memory: bytes that activations may take.
        per_feature: rows for each feature, as far as there are so many.
        fewest: rows of a layer with few features.
    """
    alive = live_bytes(analysis)
    admitted: dict[int, int] = {}
    most = batches
    for stop in sorted(features, reverse=True):
        # What is let in now stays until the end: what comes later must fit too.
        most = max(1, min(most, int(memory / max(1.0, alive[stop] * share))))
        admitted[stop] = most
    rows = {stop: ceil(max(fewest, per_feature * features[stop]) / admitted[stop]) for stop in features}
    return Schedule(admitted, rows)


def live_bytes(analysis: Analysis) -> list[int]:
    """Bytes of activations that are there when each node runs, by the node's index.

    A tensor is there as long as it is needed, and as long as a module runs that was called with it: the
    caller's variables hold it.
    """
    graph, origins = analysis.graph, Origins(analysis)
    ends = {path: node.index for node in graph.nodes for path in _modules_around(node)}
    made_in: dict[int, set[str]] = {}
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for node in graph.nodes:
        for id_ in (*node.inputs, *node.outputs):
            base = origins.root(id_)
            whole = graph.values[base]
            if whole.source is not Source.OPERATOR:
                continue
            sizes[base] = prod(whole.shape) * whole.dtype.itemsize
            first.setdefault(base, node.index)
            around = _modules_around(node)
            entered = around - made_in.setdefault(base, around)
            last[base] = max([node.index, last.get(base, 0), *(ends[path] for path in entered)])
    changes = [0] * (len(graph.nodes) + 1)
    for base, size in sizes.items():
        changes[first[base]] += size
        changes[last[base] + 1] -= size
    alive: list[int] = []
    total = 0
    for change in changes[:-1]:
        total += change
        alive.append(total)
    return alive


def _modules_around(node: Node) -> set[str]:
    """Paths of all modules whose code calls a node, but the model itself."""
    parts = node.module.split(".") if node.module else []
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def sampled_positions(count: int, wanted: int, seed: Sequence[int]) -> torch.Tensor:
    """About ``wanted`` of ``count`` positions, spread evenly and shifted at random, rising.

    >>> sampled_positions(3, 10, (0, 0))
    tensor([0, 1, 2])
    >>> len(sampled_positions(1000, 10, (0, 1)))
    10
    """
    if count <= wanted:
        return torch.arange(count)
    draw = torch.Generator().manual_seed(hash(tuple(seed)) & 0xFFFFFFFF)
    places = torch.arange(wanted, dtype=torch.float64)
    shifted = places + torch.rand(wanted, generator=draw, dtype=torch.float64)
    return (shifted * count / wanted).long().clamp_max(count - 1)
