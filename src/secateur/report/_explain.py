"""Why a model cannot be cut further: pinned axes, operators without a rule, and how to write one."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter, Signature, signature
from typing import Any

from ..axes import Analysis, Structure, has_rule
from ..axes._analysis import key_of
from ..capture import ModuleCall, Node, Ref
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
    """A rule to fill in, with the shapes of the recorded call. As it is, it pins all that it is given."""
    values = analysis.graph.values
    schema = getattr(node.op, "_schema", None)
    parameters = _schema_parameters(schema) if schema else _forward_parameters(node.op.type)
    names = [p.name for p in parameters if p.kind is not Parameter.KEYWORD_ONLY]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    pins = [line for name, value in given.items() if name != "module" for line in _pins(name, value)]
    inputs = ", ".join(str(values[id_].shape) for id_ in node.inputs)
    outputs = ", ".join(str(values[id_].shape) for id_ in node.outputs)
    register = f"torch.ops.{node.op}" if schema else node.op.type.__qualname__
    fixed = '[op.fixed(size, "not stated yet") for size in {}]'
    result = fixed.format("op.shape")
    if not isinstance(node.result, Ref):
        result = f"[{fixed.format('shape')} for shape in op.shapes]"
    # A rule that does not fit the call is in the way of another.
    away = [f"secateur.axes.unregister_rule({register})"] if has_rule(key_of(node)) else []
    return "\n".join([
        f"# {why}",
        *away,
        f"@secateur.register_rule({register})",
        f"def _{Signature([Parameter('op', Parameter.POSITIONAL_OR_KEYWORD), *parameters])}:",
        f"    # operands here: {inputs}; results: {outputs}",
        "    # State how their dimensions relate: op.unify(x[0], y[1]) for the same positions. Then take",
        "    # off the pins, and return the dimensions of the result: list(x) for an element-wise operator.",
        *pins,
        f"    return {result}",
    ])  # fmt: skip


def _schema_parameters(schema: Any) -> list[Parameter]:
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [
        Parameter(
            argument.name,
            kinds[argument.kwarg_only],
            default=argument.default_value if argument.has_default_value() else Parameter.empty,
        )
        for argument in schema.arguments
    ]


def _forward_parameters(kind: type) -> list[Parameter]:
    """Those of a module's forward, and ``module``, which holds its parameters by name."""
    found = [p.replace(annotation=Parameter.empty) for p in signature(kind.forward).parameters.values()][1:]
    module = Parameter("module", Parameter.KEYWORD_ONLY)
    last = [p for p in found if p.kind is Parameter.VAR_KEYWORD]
    return [*(p for p in found if p.kind is not Parameter.VAR_KEYWORD), module, *last]


def _pins(name: str, value: Any) -> Iterator[str]:
    """Lines that pin a tensor argument, or all tensors of a list."""
    if isinstance(value, Ref):
        yield f'    op.pin({name}, "not stated yet")'
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Ref) for item in value):
        yield f"    for tensor in {name}:"
        yield '        op.pin(tensor, "not stated yet")'
