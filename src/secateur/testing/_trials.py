"""All that is tried on one operator call to hold its rule against it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..axes import Dim, Leaf, Operator, Positions, Rule, kept_size
from ..axes import number_value as written
from ..axes._flow import NONE, ZERO, Axes, Flow, Signal, multiply
from ..capture import ModuleCall, Node, Ref, map_tree, named_tensors
from ._cuts import Cut, close, half, parts
from ._verdict import Kind, Verdict

UNINITIALISED = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted",
}  # fmt: skip
# Kernels that crash on operands that do not fit together: their pinned axes are not tried.
UNCHECKED = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
ERRORS = (RuntimeError, ValueError, IndexError, TypeError)


class _Wrong(Exception):
    """The operator denies what the rule states."""


class _Untestable(Exception):
    """Zeros make the call invalid, or data decides the shape of its result."""


@dataclass
class Trials:
    """All that is tried on one call."""

    module: Any
    node: Node
    operator: Operator
    rule: Rule
    tensors: dict[int, torch.Tensor]
    names: dict[int, str]
    dims: dict[int, list[Dim]]

    def verdicts(self) -> list[Verdict]:
        """One for every axis, and one for all free axes at once if that goes wrong."""
        free = [axis for axis in self.places if axis not in self.pinned]
        found = [self._judge(axis) for axis in free]
        together = self._balanced({axis: half(axis) for axis in free})
        if len(free) > 1 and together:
            with_others = self._verdict(Kind.INCORRECT, None, self._objection(together))
            found += [with_others] if with_others.detail else []
        return found + [self._judge_pinned(axis) for axis in self.places if axis in self.pinned]

    def _verdict(self, kind: Kind, axis: Leaf | None, detail: str) -> Verdict:
        place, size = (self.places[axis], axis.size) if axis else ("all free axes at once", 0)
        return Verdict(kind, str(self.node.op), place, size, detail)

    # -- the axes of the call ----------------------------------------------------------------------

    @cached_property
    def places(self) -> dict[Leaf, str]:
        """Every axis, with the name of the dimension where it is met first."""
        places: dict[Leaf, str] = {}
        for id_, dims in self.dims.items():
            for position, dim in enumerate(dims):
                for axis in self.operator.algebra.leaves(dim):
                    places.setdefault(axis, f"{self.names.get(id_, 'result')}[{position}]")
        return places

    @cached_property
    def pinned(self) -> dict[Leaf, str]:
        """Axes that the rule says may not be cut, and why."""
        algebra = self.operator.algebra
        return {axis: why for dim, why, _ in algebra.pins for axis in algebra.leaves(dim)}

    @cached_property
    def inexact(self) -> dict[Leaf, str]:
        """Axes whose removal the rule says to change the result, and why."""
        leaves = self.operator.algebra.leaves
        return {a: why for dim, why in self.operator.inexact_dims for a in leaves(dim)}

    @cached_property
    def random(self) -> bool:
        """Whether the values of the result are drawn, or whatever the memory held."""
        if self._packet in UNINITIALISED:
            return True
        first, second = (self._run(self.tensors, seed=seed) for seed in (0, 1))
        return not all(map(close, first, second))

    @property
    def _packet(self) -> str:
        return str(getattr(self.node.op, "overloadpacket", "")).removeprefix("aten.")

    # -- judging -----------------------------------------------------------------------------------

    def _judge(self, axis: Leaf) -> Verdict:
        cuts = [cut for keep in parts(axis) if (cut := self._balanced({axis: keep}))]
        for cut in cuts:
            if why := self._objection(cut):
                return self._verdict(Kind.INCORRECT, axis, why)
        if axis not in self.inexact:
            return self._verdict(Kind.OK, axis, "any part can go" if cuts else "cannot go alone")
        if not self.random and all(self._holds(cut, self._results) for cut in cuts):
            return self._verdict(Kind.MISSING, axis, f"called inexact: {self.inexact[axis]}")
        return self._verdict(Kind.OK, axis, f"inexact: {self.inexact[axis]}")

    def _judge_pinned(self, axis: Leaf) -> Verdict:
        """Would every cut of a pinned axis be right, if results of its size were cut with it?"""
        operands = {
            a for id_ in self.tensors for d in self.dims[id_] for a in self.operator.algebra.leaves(d)
        }
        follow = [[axis if d.size == axis.size else d for d in dims] for dims in self._results]
        cuts = [Cut({axis: keep}) for keep in parts(axis)]
        if axis in operands and not self.random and self._packet not in UNCHECKED:
            for results in (self._results, follow):
                if all(self._holds(cut, results) for cut in cuts):
                    return self._verdict(Kind.MISSING, axis, f"pinned: {self.pinned[axis]}")
        return self._verdict(Kind.OK, axis, f"pinned: {self.pinned[axis]}")

    def _objection(self, cut: Cut) -> str:
        """What speaks against a cut that the rule allows; empty if nothing does."""
        for clean in self._choices(cut):
            try:
                self._try(cut, clean, self._results, exact=self._claims_exact(cut, clean))
                self._check_zeros(cut, clean)
            except _Wrong as wrong:
                zeroed = ", ".join(self.names[id_] for id_ in clean) or "nothing"
                return f"{cut}, {zeroed} zeroed at what goes: {wrong}"
            except _Untestable:
                continue
        return ""

    def _holds(self, cut: Cut, results: Sequence[Sequence[Dim]]) -> bool:
        try:
            self._try(cut, self._maskable(cut), results, exact=True)
        except (_Wrong, _Untestable):
            return False
        return True

    def _try(self, cut: Cut, clean: Iterable[int], results: Sequence[Sequence[Dim]], *, exact: bool) -> None:
        """Compare what remains of the full run with the run on what remains of the operands."""
        masked = self._masked(cut, clean)
        full = self._full_run(masked)
        try:
            small = self._run(self._rescaled(cut, masked), cut)
        except ERRORS as error:
            raise _Wrong(f"the operator refuses the shortened operands: {error}") from error
        for number, (dims, before, after) in enumerate(zip(results, full, small, strict=True)):
            shape = cut.shape(dims)
            if shape != tuple(after.shape):
                raise _Wrong(f"the rule states {shape}, the operator returns {tuple(after.shape)}")
            if not exact or self.random or not self._loose(number).isdisjoint(cut.keep):
                continue
            if self.operator.averages and number == 0:
                after = after * self._averaged(cut)
            if not close(cut.slice(before, dims), after):
                raise _Wrong("what remains of the result is not the result of what remains")

    def _full_run(self, masked: dict[int, torch.Tensor]) -> list[torch.Tensor]:
        try:
            full = self._run(masked)
        except ERRORS as error:
            raise _Untestable from error
        shapes = [tuple(dim.size for dim in dims) for dims in self._results]
        if shapes != [tuple(result.shape) for result in full]:
            raise _Untestable
        return full

    def _check_zeros(self, cut: Cut, clean: Iterable[int]) -> None:
        """Where the flow says that the result is zero, it must be."""
        signals = self._signals(cut, clean)
        stated = self.rule.flow(Flow(self.operator.arguments, signals.__getitem__))
        results = self._full_run(self._masked(cut, clean))
        for number, (dims, result) in enumerate(zip(self._results, results, strict=True)):
            carried = self._carried(cut, dims)
            known = carried if stated is ZERO else carried & stated.carried
            zero = known - stated.dirty
            # Where another axis is dirty, nothing is said of what this one loses.
            unknown = Cut({a: keep for a, keep in cut.keep.items() if a in carried - zero})
            for axis in zero - self._loose(number):
                removed = Cut({axis: cut.keep[axis]}).removed(dims) & ~unknown.removed(dims)
                if result[removed].count_nonzero():
                    raise _Wrong("the flow says that the result is zero there, and it is not")

    def _claims_exact(self, cut: Cut, clean: Iterable[int]) -> bool:
        if not self.inexact.keys().isdisjoint(cut.keep):
            return False
        signals = self._signals(cut, clean)
        sums = [(total.dim, total.operands) for total in self.operator.sums]
        sums += [(average.dim, (average.operand,)) for average in self.operator.averages]
        for dim, operands in sums:
            dirty = multiply(*(signals[id_] for id_ in operands)).dirty
            if not dirty.isdisjoint(self.operator.algebra.leaves(dim)):
                return False
        return True

    # -- cuts and operands -------------------------------------------------------------------------

    @property
    def _results(self) -> list[list[Dim]]:
        return [self.dims[id_] for id_ in self.node.outputs]

    def _carried(self, cut: Cut, dims: Sequence[Dim]) -> Axes:
        return frozenset(a for d in dims for a in self.operator.algebra.leaves(d) if a in cut.keep)

    def _loose(self, result: int) -> Axes:
        """Axes that make the model inexact if it uses this result."""
        stated = ((number, dim) for number, dim, _ in self.operator.inexact_if)
        leaves = self.operator.algebra.leaves
        return frozenset(a for number, dim in stated if number == result for a in leaves(dim))

    def _maskable(self, cut: Cut) -> list[int]:
        """Operands that carry an axis of the cut, and that the masked model has zeros in."""
        leaves = self.operator.algebra.leaves
        spared = {id_ for id_, dim in self.operator.spared if any(a in cut.keep for a in leaves(dim))}
        return [
            id_ for id_ in self.tensors
            if id_ not in spared and self._carried(cut, self.dims[id_])
        ]  # fmt: skip

    def _signals(self, cut: Cut, clean: Iterable[int]) -> dict[int, Signal]:
        carried = {id_: self._carried(cut, self.dims[id_]) for id_ in self.tensors}
        return {id_: Signal(axes, NONE if id_ in clean else axes) for id_, axes in carried.items()}

    def _choices(self, cut: Cut) -> Iterator[tuple[int, ...]]:
        """Which operands are zero where labels go: every combination, for up to four of them."""
        carriers = self._maskable(cut)
        some = range(len(carriers) + 1) if len(carriers) <= 4 else (0, 1, len(carriers) - 1, len(carriers))
        for count in some:
            yield from itertools.combinations(carriers, count)

    def _masked(self, cut: Cut, clean: Iterable[int]) -> dict[int, torch.Tensor]:
        return {
            id_: t.masked_fill(cut.removed(self.dims[id_]), 0) if id_ in clean else t
            for id_, t in self.tensors.items()
        }

    def _rescaled(self, cut: Cut, masked: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        small = {id_: cut.slice(tensor, self.dims[id_]) for id_, tensor in masked.items()}
        for scale in self.operator.rescales:
            dim = self.operator.algebra.resolve(scale.dim)
            small[scale.operand] = small[scale.operand] * (dim.size / kept_size(dim, cut.keep)) ** scale.power
        for average in self.operator.averages:
            if average.normalises:
                small[average.operand] = small[average.operand] * self._grown(average.dim, cut) ** -0.5
        return small

    def _grown(self, dim: Dim, cut: Cut) -> float:
        """How much larger a mean over ``dim`` is where only what the cut keeps is left."""
        dim = self.operator.algebra.resolve(dim)
        return dim.size / kept_size(dim, cut.keep)

    def _averaged(self, cut: Cut) -> float:
        """What the result has to be multiplied by, since averages were taken over less."""
        factor = 1.0
        for average in self.operator.averages:
            factor *= self._grown(average.dim, cut) ** (0.5 if average.normalises else -1)
        return factor

    def _balanced(self, keep: dict[Leaf, Positions]) -> Cut | None:
        """The cut with what the balances ask for: other positions, in the same number."""
        algebra, keep = self.operator.algebra, dict(keep)
        for dims, _ in algebra.balances:
            rows = [list(dict.fromkeys(algebra.leaves(dim))) for dim in dims]
            for axes in itertools.permutations(rows, 2):
                for axis, other in zip(*axes, strict=False):
                    if axis in keep and axis.size == other.size and other not in self.pinned:
                        keep.setdefault(other, np.sort(other.size - 1 - keep[axis]))
            if len({kept_size(algebra.resolve(dim), keep) for dim in dims}) > 1:
                return None
        if any(kept_size(algebra.resolve(dim), keep) < least for dim, least in algebra.floors):
            return None
        return Cut(keep)

    # -- running -----------------------------------------------------------------------------------

    def _run(
        self, tensors: dict[int, torch.Tensor], cut: Cut | None = None, seed: int = 0
    ) -> list[torch.Tensor]:
        own = {id_: tensor.clone() for id_, tensor in tensors.items()}
        args = map_tree(self.node.args, Ref, lambda ref: own[ref.id])
        kwargs = map_tree(self.node.kwargs, Ref, lambda ref: own[ref.id])
        if cut is not None:
            args, kwargs = self._rewritten(args, kwargs, cut)
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed queues work for CUDA
        try:
            with torch.no_grad():
                if isinstance(self.node.op, ModuleCall):
                    state = kwargs.pop("module")
                    result = torch.func.functional_call(self.module, state, tuple(args), kwargs)
                else:
                    result = self.node.op(*args, **kwargs)
        finally:
            torch.default_generator.set_state(before)
        return [tensor for _, tensor in named_tensors(result)]

    def _rewritten(self, args: Any, kwargs: Any, cut: Cut) -> tuple[Any, Any]:
        """The arguments with the numbers that the rule says to be sizes."""
        assert self.rule.signature is not None
        names = list(self.rule.signature.parameters)[1:]
        args, kwargs = list(args), dict(kwargs)
        for number in self.operator.numbers:
            value = written(self.node, number, self.operator.arguments)
            if value is None:
                continue
            dim = self.operator.algebra.resolve(number.dim)
            if value != number.at(dim.size):
                raise _Wrong(f"{number.argument} is {value}, for the rule a size of {dim.size}")
            place, holder = names.index(number.argument), args
            if place >= len(args):
                place, holder = number.argument, kwargs
            new = number.at(kept_size(dim, cut.keep))
            if number.position is not None:
                items = list(holder[place])
                items[number.position] = new
                new = items
            holder[place] = new
        return args, kwargs
