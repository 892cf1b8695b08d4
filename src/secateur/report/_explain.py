"""Why a model cannot be cut further: pinned axes, operators without a rule, and how to write one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..axes import Analysis, Structure
from ..capture import ModuleCall, Node
from ._tables import render


def explain_structure(structure: Structure) -> str:
    """A table of everything that is pinned, and the skeleton of a rule for every unknown operator."""
    rows = [[pin.name, pin.size, pin.reason, pin.operator, pin.module, pin.site] for pin in structure.pins]
    text = render(["axis", "size", "why", "operator", "module", "line"], rows, title="pinned axes")
    inexact = [[g.name, g.size, "; ".join(g.reasons)] for g in structure.groups if g.reasons]
    if inexact:
        text += render(["group", "size", "why it is not exact"], inexact, title="inexact groups")
    skeletons = list(_skeletons(structure.analysis))
    if skeletons:
        text += "\nOperators without a rule. What they touch is pinned; a rule sets it free:\n\n"
        text += "\n\n".join(skeletons) + "\n"
    return text


def _skeletons(analysis: Analysis) -> Iterator[str]:
    seen: set[Any] = set()
    for index, why in analysis.opaque.items():
        node = analysis.graph.nodes[index]
        kind = node.op.type if isinstance(node.op, ModuleCall) else node.op
        if kind not in seen and not getattr(node.op, "opaque", False):
            seen.add(kind)
            calls = sum(analysis.graph.nodes[i].op == node.op for i in analysis.opaque)
            yield _skeleton(analysis, node, f"{why}; {calls} such calls, the first at {node.site}")


def _skeleton(analysis: Analysis, node: Node, why: str) -> str:
    """A rule to fill in, with the shapes of the recorded call."""
    values = analysis.graph.values
    schema = getattr(node.op, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else ["*args", "**kwargs"]
    inputs = ", ".join(str(values[id_].shape) for id_ in node.inputs)
    outputs = ", ".join(str(values[id_].shape) for id_ in node.outputs)
    register = f"torch.ops.{node.op}" if schema else node.op.type.__qualname__
    several = "s, a list for each" if len(node.outputs) > 1 else ""
    return (
        f"# {why}\n"
        f"@secateur.register_rule({register})\n"
        f"def _(op, {', '.join(names)}):\n"
        f"    # operands here: {inputs}; results: {outputs}\n"
        "    # op.unify(a[0], b[1]): the same positions. op.pin(a[0], 'why'): not to be cut.\n"
        f"    return [...]  # the dimensions of the result{several}"
    )
