"""The judge of operator rules: what a rule states, held against what the operator does.

For every axis that the rule leaves free, labels are taken off: the operator runs in full with the
operands zeroed there (the *masked* run), and it runs on the shortened operands with the rule's
numbers rewritten. What remains of the first result must be the second. Zeros are tried in every
combination of operands, so that what a rule says about sums and about zeros is judged as well.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .._errors import RuleError
from ..axes import TABLE, analyse, has_rule
from ..axes._table import overloads
from ..capture import Detail, ModuleCall, named_tensors, record
from ._calls import Call, calls_of, copied
from ._trials import Trials
from ._verdict import Kind, Verdict


def judge_rule(operator: Any, *args: Any, **kwargs: Any) -> list[Verdict]:
    """Hold the rule of an operator against the operator itself, on one call.

    Args:
        operator: an operator (``torch.ops.mylib.op``), a function that leads to one or several
            (each is judged), or a module whose class has a rule.
        args: its arguments; none for the samples that its rule was registered with. Any axis of any
            tensor may be cut, so take sizes that tell dimensions apart (3, 4, 5 rather than 2, 2, 2),
            and float64.
        kwargs: its keyword arguments.

    Returns:
        One verdict an axis of each call.
    """
    samples = [] if args or kwargs else _samples_of(operator)
    calls = [call for given in samples or [args] for call in calls_of(operator, *given, **kwargs)]
    return [verdict for call in calls for verdict in judge_call(call)]


def _samples_of(operator: Any) -> list[tuple[Any, ...]]:
    """Arguments from the ``samples=`` of the rules of an operator."""
    makers = {rule.samples: None for o in overloads(operator) if (rule := TABLE.get(o)) and rule.samples}
    return [tuple(args) for make in makers for args in make()]


def check_rule(operator: Any, *args: Any, **kwargs: Any) -> list[Verdict]:
    """As :func:`judge_rule`, but raise where a rule is missing, does not fit, or is wrong.

    Raises:
        RuleError: naming every axis for which the rule states what the operator denies.

    Example:
        >>> import torch
        >>> from secateur.testing import check_rule
        >>> for verdict in check_rule(torch.mm, torch.randn(3, 4).double(), torch.randn(4, 5).double()):
        ...     print(verdict)
        ok: aten.mm.default axis args[0][0] of 3: any part can go
        ok: aten.mm.default axis args[0][1] of 4: any part can go
        ok: aten.mm.default axis args[1][1] of 5: any part can go
    """
    verdicts = judge_rule(operator, *args, **kwargs)
    bad = [v for v in verdicts if v.kind in (Kind.INCORRECT, Kind.OPAQUE)]
    if bad:
        raise RuleError("\n".join(map(str, bad)))
    return verdicts


def judge_call(call: Call) -> list[Verdict]:
    """The verdicts on one call."""
    holder = _Holder(call)
    graph = record(holder, detail=Detail(has_rule))
    analysis = analyse(graph)
    # Nodes after the first can only be copies that torch makes of a result.
    node = graph.nodes[0] if graph.nodes else None
    if node is None or (node.op is not call.op and not isinstance(node.op, ModuleCall)):
        ran = ", ".join(str(node.op) for node in graph.nodes) or "nothing"
        return [Verdict(Kind.OPAQUE, str(call.op), detail=f"no rule: it is recorded as {ran}")]
    operator, rule = analysis.operators[0], analysis.rule_of(node)
    if operator is None or rule is None:
        return [Verdict(Kind.OPAQUE, str(node.op), detail=analysis.opaque.get(0, "no rule"))]
    owned = {name: t for name, t in [*holder.named_buffers(), *holder.named_parameters()]}
    tensors = {id_: owned[graph.values[id_].names[0]] for id_ in node.inputs}
    names = {id_: graph.values[id_].name.removeprefix("op.") for id_ in node.inputs}
    dims = {id_: analysis.dims_of(id_) for id_ in (*node.inputs, *node.outputs)}
    return Trials(holder.op, node, operator, rule, tensors, names, dims).verdicts()


class _Holder(nn.Module):
    """Owns the tensors of a call, so that none of their axes is pinned as a model's input."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.op = call.op
        self.args, self.kwargs = copied(call.args, call.kwargs)
        for path, tensor in [*named_tensors(self.args, "args"), *named_tensors(self.kwargs)]:
            if not any(tensor is buffer for buffer in self.buffers()):
                self.register_buffer(path, tensor)

    def forward(self) -> None:
        """Run the call; what it returns is no output of a model, so nothing of it is pinned."""
        self.op(*self.args, **self.kwargs)
