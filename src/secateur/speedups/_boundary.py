"""What goes into and comes out of a module, read off the recorded graph."""

from __future__ import annotations

from ..capture import Graph, Source


def boundary(graph: Graph, path: str) -> tuple[list[int], list[int]]:
    """Ids of the activations that a module reads from outside, and of those that are read outside of it.

    In the order of their first use, and of their making. A tensor that is written in place inside
    counts as both.
    """
    prefix = f"{path}." if path else ""
    inside = [node for node in graph.nodes if f"{node.module}.".startswith(prefix)]
    outside = [node for node in graph.nodes if not f"{node.module}.".startswith(prefix)]
    made = {id_ for node in inside for id_ in node.outputs}
    first: dict[int, None] = {}
    seen: set[int] = set()
    for node in inside:
        for id_ in node.inputs:
            if id_ not in seen and graph.values[id_].source in (Source.INPUT, Source.OPERATOR):
                first[id_] = None
        seen.update(node.outputs)
    read = {id_ for node in outside for id_ in node.inputs} | set(graph.outputs.values())
    outputs = [id_ for id_ in dict.fromkeys(id_ for node in inside for id_ in node.outputs) if id_ in read]
    return list(first), outputs or sorted(made)[-1:]
