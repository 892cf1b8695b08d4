"""Replay: follow the model's code through the recorded graph at other sizes, without computing.

The code of the operated model is run on ghosts. Every operator that it dispatches is held against
the recorded one: same operator, same tensors, and the integers that the planned sizes ask for.
Where the code asks for another size, the difference is noted and the run goes on with the planned
one, so a single run finds everything that has to follow. Values that the code reads (``item``)
are those of the recorded run, so it takes the same path. Costs some 30 microseconds an operator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..axes import Analysis, Keep, Number, kept_size
from ..capture import (
    Detail,
    Ghost,
    ModuleStack,
    Node,
    Ref,
    Site,
    Source,
    below_autograd,
    call_site,
    is_composite,
    is_inplace_view,
    map_tensors,
    map_tree,
    untouched,
)
from ._arguments import PathChanged, pairs
from ._fold import Fold, packet
from ._own import FEW, NOT_FOLLOWED, OwnTensors


@dataclass(slots=True)
class Reader:
    """A frame of the model's code that led to an operator: a module in it, and the names it reads."""

    module: nn.Module
    names: tuple[str, ...]


@dataclass(slots=True)
class Mismatch:
    """An integer or factor that the code wrote into a call, and that should have been another.

    ``number`` is None for a number that the rule of the operator does not know as a size. ``tensor`` is the
    id of the tensor that held the number, where one did.
    """

    node: Node
    number: Number | None
    recorded: Any
    actual: Any
    wanted: Any
    site: Site | None
    readers: list[Reader]
    tensor: int | None = None

    def __str__(self) -> str:
        where = f" ({self.site})" if self.site else ""
        return (
            f"{self.node.op} in module {self.node.module!r}{where} was called with {self.actual}, "
            f"and {self.wanted} is needed (it was {self.recorded} before)"
        )


@dataclass(frozen=True)
class Scale:
    """Parameter rows that have to be multiplied by a factor."""

    fold: Fold
    factor: float


@dataclass
class Replayed:
    """What a replay found.

    ``scales`` are factors that the code computes from sizes and that parameters can take in;
    ``error`` is what ended the replay before its time, at node ``reached``.
    """

    mismatches: list[Mismatch] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    error: Exception | None = None
    reached: int = 0

    @property
    def clean(self) -> bool:
        """Whether the code follows the plan all through."""
        return not self.mismatches and self.error is None


class Replay(TorchDispatchMode):
    """Runs a model's code on ghosts along a recorded graph."""

    def __init__(self, analysis: Analysis, keep: Keep, detail: Detail) -> None:
        super().__init__()
        self.found = Replayed()
        self._analysis = analysis
        self._graph = analysis.graph
        self._keep = keep
        self._detail = detail
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._same: dict[int, int] = {}
        self._written: dict[int, tuple[torch.Tensor, int]] = {}
        self._own = OwnTensors(analysis.graph)

    def shape(self, id_: int) -> tuple[int, ...]:
        """The planned shape of a graph value."""
        shape = self._shapes.get(id_)
        if shape is None:
            dims = self._analysis.dims_of(id_)
            shape = self._shapes[id_] = tuple([kept_size(dim, self._keep) for dim in dims])
        return shape

    def ghost(self, id_: int) -> Ghost:
        """A ghost of a graph value, at its planned shape.

        Each is made anew: torch copies what a factory operator returns unless nobody else holds it.
        """
        value, shape = self._graph.values[id_], self.shape(id_)
        strides = value.strides and strides_like(value.strides, value.shape, shape)
        return Ghost(shape, value.dtype, value.device, id_, strides)

    def run(self, stack: ModuleStack, args: Any, kwargs: Any) -> Replayed:
        """Follow a model, whose tensors are ghosts of this replay, through the whole graph."""
        model = stack.modules[""]
        inputs = self._graph.inputs
        # The recorder registered positional inputs as "args[0]...": the paths find their ids.
        paths = iter([*inputs.values()])
        args, kwargs = map_tensors((tuple(args), dict(kwargs)), lambda _: self.ghost(next(paths)))
        with untouched(model), stack.watching():
            for path, module in stack.modules.items():
                call = self._detail.call_of(path, module)
                if call is not None:
                    module.forward = self._whole(call)
            try:
                with below_autograd(), self:
                    model(*args, **kwargs)
                if any(not _skipped(node, None) for node in self._graph.nodes[self.found.reached :]):
                    raise PathChanged("the code ended before the recorded run did")
            except Exception as error:
                self.found.error = error
        return self.found

    def _whole(self, call: Any) -> Callable[..., Any]:
        def replayed(*args: Any, **kwargs: Any) -> Any:
            return self._step(call, args, kwargs)

        return replayed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_composite(func) and not self._detail.has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return self._step(func, args, kwargs)

    def _step(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op == _ALIAS and self._upcoming() == _SLICE:
            # What Python's indexing makes of a range that covers everything.
            node = self._graph.nodes[self.found.reached]
            op, args = _SLICE, _whole_slice(node, args[0])
        node = self._next(op)
        if _is_reflected(node, op, args):
            op, args = node.op, args[::-1]
        if node.op != op:
            raise PathChanged(f"{op} was called where {node} was recorded")
        self.found.reached += 1
        result = self._own.run(node, args, kwargs)
        if result is not NOT_FOLLOWED:
            return result
        self._compare(node, args, kwargs)
        result = map_tree(node.result, Ref, self._planned)
        if is_inplace_view(node.op) and isinstance(args[0], Ghost):
            return args[0].become(result)
        if isinstance(node.result, Ref) and args and _is_written(op, args[0]):
            # The code goes on with the tensor that it made and that is written into here.
            self._written[id(args[0])] = args[0], node.result.id
        return result

    def _planned(self, ref: Ref) -> Ghost:
        return self.ghost(self._same.get(ref.id, ref.id))

    def _upcoming(self) -> Any:
        nodes = self._graph.nodes
        return nodes[self.found.reached].op if self.found.reached < len(nodes) else None

    def _next(self, op: Any) -> Node:
        nodes = self._graph.nodes
        while self.found.reached < len(nodes) and _skipped(nodes[self.found.reached], op):
            # What torch gives back without dispatching anything: ghosts that are contiguous already,
            # and a range that covers everything.
            node = nodes[self.found.reached]
            self._same[node.outputs[0]] = self._same.get(node.inputs[0], node.inputs[0])
            self.found.reached += 1
            if node.op == _SLICE:
                self._compare(node, _whole_slice(node, self.ghost(node.inputs[0])), {})
        self._skip_identities(op)
        if self.found.reached >= len(nodes):
            raise PathChanged(f"{op} was called after the recorded run's end")
        return nodes[self.found.reached]

    def _skip_identities(self, op: Any) -> None:
        """Pass over recorded steps that the code leaves out where they change nothing.

        ``if n_rep == 1: return x`` is such code: expanding and reshaping by one gives back what
        went in. A step is passed over if it keeps the order of the elements, and what comes out at
        the end has the planned shape of what went in.
        """
        nodes, ahead = self._graph.nodes, self.found.reached
        roots: dict[int, int] = {}
        while ahead < len(nodes) and nodes[ahead].op != op and packet(nodes[ahead]) in _IN_ORDER:
            (out,), source = nodes[ahead].outputs, nodes[ahead].inputs[0]
            roots[out] = roots.get(source, source)
            ahead += 1
        if ahead < len(nodes) and nodes[ahead].op == op and ahead > self.found.reached:
            for out, root in roots.items():
                if self.ghost(out).shape == self.ghost(root).shape:
                    self._same[out] = self._same.get(root, root)
            self.found.reached = ahead

    # -- comparison --------------------------------------------------------------------------------

    def _compare(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        operator = self._analysis.operators[node.index]
        numbers: dict[tuple[str, int | None], Number] = {}
        names: tuple[str, ...] = ()
        if operator is not None:
            numbers = {(n.argument, n.position): n for n in operator.numbers}
            names = tuple(operator.arguments)
        sizes = {name for name, _ in numbers}
        for (name, position), recorded, actual in pairs(node, names, sizes, args, kwargs):
            if isinstance(recorded, Ref):
                self._same_tensor(node, recorded, actual)
            elif isinstance(recorded, (bool, int, float)) and isinstance(actual, (bool, int, float)):
                number = numbers.get((name, position))
                wanted = self._wanted(number, recorded)
                if actual != wanted and not (name == "enable_gqa" and _equal_heads(args)):
                    self.found.mismatches.append(
                        Mismatch(node, number, recorded, actual, wanted, call_site(), list(_readers()))
                    )

    def _wanted(self, number: Number | None, recorded: Any) -> Any:
        if number is None or not isinstance(recorded, int) or recorded == -1:
            return recorded
        if abs(recorded) != abs(number.at(number.dim.size)):
            return recorded  # an end past the last position, for instance
        size = kept_size(self._analysis.algebra.resolve(number.dim), self._keep)
        return number.at(size)

    def _same_tensor(self, node: Node, ref: Ref, actual: Any) -> None:
        if isinstance(actual, Ghost):
            if actual.value_id != self._same.get(ref.id, ref.id):
                raise PathChanged(f"{node} reads another tensor than it did when recorded")
        elif id(actual) in self._written and self._written[id(actual)][1] == ref.id:
            return
        elif self._graph.values[ref.id].source is not Source.CONSTANT and self._own.id_of(actual) != ref.id:
            raise PathChanged(f"{node} reads a tensor that was not followed")
        elif isinstance(actual, torch.Tensor) and actual.numel() <= FEW:
            self._same_values(node, ref.id, actual)

    def _same_values(self, node: Node, id_: int, actual: torch.Tensor) -> None:
        """A tensor that the code makes of numbers (``torch.tensor(width)``) has to stay what it was."""
        recorded = self._own.recorded(id_)
        if recorded is None or recorded.dtype != actual.dtype:
            return
        with _disable_current_modes():
            before, now = recorded.tolist(), actual.tolist()
        if before != now:
            self.found.mismatches.append(Mismatch(node, None, before, now, before, call_site(), [], id_))


def strides_like(
    strides: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int, ...]:
    """Strides of a tensor of another size that lies in memory in the same order, without gaps.

    >>> strides_like((1, 4), (4, 3), (2, 3))
    (1, 2)
    """
    if before == after:
        return strides
    new, step = [0] * len(strides), 1
    for dim in sorted(range(len(strides)), key=lambda dim: (strides[dim], -dim)):
        if strides[dim]:  # an expanded dimension stays one
            new[dim], step = step, step * max(1, after[dim])
    return tuple(new)


def _is_written(op: Any, target: Any) -> bool:
    """Whether an operator writes into a tensor that is no ghost."""
    mutable = isinstance(target, torch.Tensor) and not isinstance(target, Ghost)
    return mutable and hasattr(op, "_schema") and op._schema.name.endswith("_")


def _is_reflected(node: Node, op: Any, args: tuple[Any, ...]) -> bool:
    """Whether a comparison was recorded the other way round.

    Python asks the operand of a subclass first, so ``constant < ghost`` becomes ``ghost > constant``.
    """
    if len(args) != 2 or _REFLECTED.get(op) != node.op:
        return False
    first = getattr(args[0], "value_id", -1)
    return node.op != op or Ref(first) == node.args[1] != node.args[0]


def _equal_heads(args: tuple[Any, ...]) -> bool:
    """Whether attention has as many key heads as query heads: then sharing them says nothing."""
    return args[0].dim() > 3 and args[0].shape[-3] == args[1].shape[-3]


def _skipped(node: Node, op: Any) -> bool:
    """Whether the recorded node is one that torch need not dispatch."""
    return node.op in (_SLICE, torch.ops.aten.contiguous.default) and node.op != op


def _whole_slice(node: Node, ghost: torch.Tensor) -> tuple[Any, ...]:
    """The arguments of a slice that covers everything, in the form of the recorded one."""
    dim = node.args[1] if len(node.args) > 1 else 0
    return (ghost, dim, 0, ghost.shape[dim], 1)[: len(node.args)]


_IN_ORDER = {
    getattr(torch.ops.aten, name)
    for name in (
        "unsqueeze",
        "squeeze",
        "expand",
        "reshape",
        "view",
        "flatten",
        "repeat_interleave",
        "repeat",
    )
}
_REFLECTED = {
    getattr(torch.ops.aten, one).Tensor: getattr(torch.ops.aten, other).Tensor
    for one, other in (("lt", "gt"), ("gt", "lt"), ("le", "ge"), ("ge", "le"), ("eq", "eq"), ("ne", "ne"))
}
_SLICE, _ALIAS = torch.ops.aten.slice.Tensor, torch.ops.aten.alias.default
_HERE = str(Path(__file__).parent.parent) + "/"
_ATTENTION = str(Path(__file__).with_name("_attention.py"))  # a module of ours that models contain
_PLUMBING = ("_call_impl", "_wrapped_call_impl", "__torch_dispatch__")


def _readers(depth: int = 40) -> Iterator[Reader]:
    """Frames of the model's code, innermost first, with every module that a local variable holds."""
    frame = sys._getframe(3)
    while frame is not None and depth:
        yield from readers_in(frame)
        frame, depth = frame.f_back, depth - 1


def readers_in(frame: FrameType) -> Iterator[Reader]:
    """The modules that a frame of the model's code holds; none for a frame of ours or of torch's calls."""
    code = frame.f_code
    theirs = not code.co_filename.startswith(_HERE) or code.co_filename == _ATTENTION
    if theirs and code.co_name not in _PLUMBING:
        for local in frame.f_locals.values():
            if isinstance(local, nn.Module):
                yield Reader(local, code.co_names)
