"""Why masked positions stay, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..axes import Dim, Leaf, Structure
from ..capture import Node, Value
from ..masks import Block, Constants, Known, Masks, Removal, Why, compress, labels_where
from ._report import Staying

_MEETINGS = {
    "add": "the {what} that it is added to is alive",
    "sub": "the {what} that it is added to is alive",
    "mul": "the {what} that it is multiplied with is alive, and it is not zero",
    "cat": "the {what} that it is joined with is alive",
    "layer_norm": "the statistics of a LayerNorm make something of it",
    "group_norm": "the statistics of a GroupNorm make something of it",
    "native_group_norm": "the statistics of a GroupNorm make something of it",
    "rms_norm": "the statistics of an RMSNorm make something of it",
}


_NOT_ALL = "other positions that have to go with it are not masked"


@dataclass
class Explainer:
    """Looks up what keeps masked positions.

    ``joined`` are axes whose labels are removed by way of a joint axis.
    """

    structure: Structure
    constants: Constants
    masks: Masks
    removal: Removal
    model: nn.Module
    joined: set[Leaf] = field(default_factory=set)
    _blocks: dict[Leaf, list[Block]] = field(default_factory=lambda: defaultdict(list))
    _alive: dict[tuple[int, int, Leaf], Tensor | None] = field(default_factory=dict)
    _met: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for block in self.removal.kept_by:
            self._blocks[block.axis].append(block)
        nodes = self.constants.analysis.graph.nodes
        self._nodes = [(node, node.inputs, node.outputs) for node in nodes]
        self._made_by: dict[int, list[Node]] = defaultdict(list)
        self._read_by: dict[int, list[int]] = defaultdict(list)
        for node, inputs, outputs in self._nodes:
            for id_ in outputs:
                self._made_by[id_].append(node)
            for id_ in inputs:
                self._read_by[id_].append(node.index)

    def stays(self) -> list[Staying]:
        """Masked positions that are not removed, by module and reason."""
        values = {value.name: value for value in self.constants.analysis.graph.values if value.names}
        found: list[Staying] = []
        for name, keep in self.masks.parameters.items():
            value = values.get(name)
            if value is not None and not _follows(name, self.masks):
                found += self._of_parameter(value, keep)
        return found

    def scattered(self) -> dict[str, int]:
        """Masked elements that stay as zeros in rows and columns that stay, by parameter."""
        values = {value.name: value for value in self.constants.analysis.graph.values if value.names}
        result = {}
        for name, keep in self.masks.parameters.items():
            (left,) = compress(keep)
            copies = 1
            for dim, expression in enumerate(self.constants.analysis.dims_of(values[name].id)):
                gone = self.constants.addresses.positions(expression, self.removal.removed)
                if left.shape[dim] == 1:
                    copies *= int((~gone).sum())
                elif bool(gone.any()):
                    left = left.index_select(dim, torch.nonzero(~gone).flatten().to(left.device))
            if not bool(left.all()):
                result[name] = int((~left).sum()) * copies
        return result

    def _of_parameter(self, value: Value, keep: Tensor) -> Iterator[Staying]:
        module, _, target = value.name.rpartition(".")
        for dim, expression in enumerate(self.constants.analysis.dims_of(value.id)[:2]):
            others = [d for d in range(keep.dim()) if d != dim]
            (small,) = compress(keep)
            kept = (small.any(dim=others) if others else small).reshape(-1).cpu()
            masked = ~kept.expand(expression.size)
            masked = masked & ~self.constants.addresses.positions(expression, self.removal.removed)
            if bool(masked.any()):
                reasons: dict[str, list[int]] = defaultdict(list)
                for positions, reason in self._reasons(value, expression, masked):
                    reasons[reason] += positions.tolist()
                what = self._word(module, target, dim, keep.dim())
                for reason, numbers in reasons.items():
                    if numbers:
                        yield Staying(module, target, what, tuple(sorted(numbers)), reason)

    def _word(self, module: str, target: str, dim: int, ndim: int) -> str:
        kind = type(self.model.get_submodule(module))
        transposed = issubclass(kind, nn.modules.conv._ConvTransposeNd)
        if ndim > 1 and dim == (0 if transposed else 1):
            return "column" if issubclass(kind, nn.Embedding) else "input channel"
        return (
            "channel"
            if issubclass(kind, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase))
            else "row"
        )

    def _reasons(self, value: Value, expression: Dim, masked: Tensor) -> Iterator[tuple[Tensor, str]]:
        """The numbers of masked positions that stay, with the reason of each lot."""
        every = self.constants.addresses.of(expression)
        addresses = [address for address in every if address[0] not in self.joined]
        # First the axes whose labels are masked as a whole: of these something could have come.
        whole = {i: _whole_labels(axis, at, labels, masked) for i, (axis, at, labels) in enumerate(addresses)}
        left = masked.clone()
        for partly in (False, True):
            for i, (axis, at, labels) in enumerate(addresses):
                here = left[at] & (torch.tensor(partly) | whole[i][labels])
                if not bool(here.any()):
                    continue
                left[at[here]] = False
                if not partly or axis in self.structure.pinned:
                    wanted = torch.zeros(axis.size, dtype=torch.bool)
                    wanted[labels[here]] = True
                    for text, found in self._of_axis(value, axis, wanted):
                        chosen = here & found[labels]
                        yield at[chosen], text
                        here &= ~chosen
                yield at[here], _NOT_ALL
        yield torch.nonzero(left).flatten(), "a dimension of size 1 cannot be shortened"

    def _of_axis(self, value: Value, axis: Leaf, wanted: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What keeps ``wanted`` labels of an axis, and which of them."""
        if axis in self.structure.pinned:
            reason, node = self.structure.pinned[axis][0]
            yield reason + (f" (in {node.module})" if node is not None and node.module else ""), wanted
            return
        for block in self._blocks[axis]:
            kept = wanted & block.labels
            if not bool(kept.any()):
                continue
            wanted = wanted & ~kept
            if block.why is Why.ALIVE:
                for death, labels in self._deaths(value, axis, kept):
                    yield self._text(value, block, death), labels
            else:
                yield self._text(value, block, None), kept

    def _text(self, value: Value, block: Block, death: Node | None) -> str:
        where = _place(block.node)
        if block.why is Why.ALIVE:
            return (
                self._meeting(death)
                if death is not None
                else f"{where} reads it, and it is not constant there"
            )
        if block.why is Why.BORDER:
            return (
                f"{where} pads zeros to it, and it is a constant that is not zero "
                '(on_inexact="fold" folds it)'
            )
        if block.why is Why.IDLE:
            ran = any(value.id in node.inputs for node in self.constants.analysis.graph.nodes)
            return "nothing reads it, masked or not" if ran else "the module is not run with these inputs"
        if block.why is Why.STATISTICS:
            return f'{block.text}{f" ({where})" if where else ""} (statistics="shrink" takes it off)'
        text = block.text or block.why.value
        return text if block.node is None else f"{text} ({where})"

    def _meeting(self, node: Node) -> str:
        """What happens to a constant at the operator that makes something alive of it."""
        if node.index not in self._met:
            self._met[node.index] = self._describe(node)
        return self._met[node.index]

    def _describe(self, node: Node) -> str:
        name = _name(node)
        makers = {id_: self._maker(id_, node) for id_ in node.inputs}
        alive = [
            maker
            for id_, maker in makers.items()
            if maker is not None and not self.constants.seen[node.index][id_].anything
        ]
        others = alive or [maker for maker in makers.values() if maker is not None]
        what = "shortcut" if name == "add" and node.module else "other operand"
        meeting = _MEETINGS.get(name, f"{name} makes something of it that depends on the input")
        origin = f", from {_place(others[-1])}" if others and "{what}" in meeting else ""
        return f"{meeting.format(what=what)} ({name} in {_place(node)}{origin})"

    def _maker(self, id_: int, before: Node) -> Node | None:
        """The last node that made or wrote a tensor before another one read it."""
        return next((n for n in reversed(self._made_by[id_]) if n.index < before.index), None)

    def _deaths(self, value: Value, axis: Leaf, wanted: Tensor) -> Iterator[tuple[Node | None, Tensor]]:
        """Where labels that a masked parameter makes constant cease to be: (operator, labels).

        None for labels that are constant as far as they can be followed.
        """
        followed: dict[int, Tensor] = {}
        ahead = sorted(set(self._read_by[value.id]))
        while ahead and bool(wanted.any()):
            node, inputs, outputs = self._nodes[ahead.pop(0)]
            reads = value.id in inputs
            arriving = [wanted] if reads else [followed[id_] for id_ in inputs if id_ in followed]
            here = torch.stack(arriving).any(0)
            for number, id_ in enumerate(outputs):
                constant = self._constant(node, number, id_, axis)
                if constant is None:
                    continue
                died = here & ~constant & wanted
                if not reads and bool(died.any()):
                    wanted = wanted & ~died
                    yield node, died
                followed[id_] = here & constant
                if bool(followed[id_].any()):
                    later = {index for index in self._read_by[id_] if index > node.index}
                    ahead = sorted({*ahead, *later})
        if bool(wanted.any()):
            yield None, wanted

    def _constant(self, node: Node, number: int, id_: int, axis: Leaf) -> Tensor | None:
        key = (node.index, number, axis)
        if key not in self._alive:
            known: Known = self.constants.made[node.index][number]
            dims = self.constants.analysis.dims_of(id_)
            self._alive[key] = labels_where(dims, known.known, axis, self.constants.addresses)
        return self._alive[key]


def _whole_labels(axis: Leaf, at: Tensor, labels: Tensor, masked: Tensor) -> Tensor:
    """Labels all of whose positions are masked."""
    whole = torch.ones(axis.size, dtype=torch.bool)
    whole[labels[~masked[at]]] = False
    return whole


def _follows(name: str, masks: Masks) -> bool:
    """Whether a parameter is a bias whose weight is masked as well: said of the weight already."""
    path, _, target = name.rpartition(".")
    return target == "bias" and f"{path}.weight".lstrip(".") in masks.parameters


def _place(node: Node | None) -> str:
    return "" if node is None else node.module or "the model's forward"


def _name(node: Node) -> str:
    schema = getattr(node.op, "_schema", None)
    return schema.name.partition("::")[2].rstrip("_") if schema is not None else str(node.op)
