"""Customisation, the ways that NNI's users know: replacers and mask updaters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..axes import TABLE, Operator, Rule
from ..axes._table import overloads
from ..capture import Graph, ModuleCall, Node
from ..masks import Known

if TYPE_CHECKING:
    from ._model_speedup import ModelSpeedup

ModuleMasks = tuple[list[Tensor], Tensor | list[Tensor], dict[str, Tensor]]
"""Masks of a module's inputs, of its output (a list for several), and of its parameters; 1 is kept."""

ReplaceFunction = Callable[[nn.Module, ModuleMasks], nn.Module]


class Replacer:
    """Replaces modules in a way of its own, before the others are cut.

    Derive from it and pass objects as ``customized_replacers`` of :class:`ModelSpeedup`.
    """

    def replace_modules(self, speedup: ModelSpeedup) -> None:
        """Replace modules of ``speedup.bound_model`` with :meth:`ModelSpeedup.replace_module`.

        What masks have become of any module says :meth:`ModelSpeedup.module_masks`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it replaces modules")


class DefaultReplacer(Replacer):
    """Replaces modules by the names of their types.

    Args:
        replace_module_func_dict: ``{type name: function(module, (in_masks, out_mask, param_masks)) ->
            module}``, called for modules of that type that lose something. The module comes with its
            masks and folded constants in its parameters, at full size.
    """

    def __init__(self, replace_module_func_dict: Mapping[str, ReplaceFunction] | None = None) -> None:
        self.replace_module_func_dict = dict(replace_module_func_dict or {})

    def replace_modules(self, speedup: ModelSpeedup) -> None:
        for path, module in list(speedup.bound_model.named_modules()):
            function = self.replace_module_func_dict.get(type(module).__name__)
            if function is not None:
                masks = speedup.module_masks(path)
                if _hides(masks):
                    speedup.replace_module(path, function(module, masks))


def _hides(masks: ModuleMasks) -> bool:
    inputs, output, parameters = masks
    outputs = output if isinstance(output, list) else [output]
    return any(not bool(mask.all()) for mask in (*inputs, *outputs, *parameters.values()))


class MaskUpdater:
    """Says what an operator or module that Secateur has no rule for makes of masked positions.

    Derive from it and pass objects as ``customized_mask_updaters`` of :class:`ModelSpeedup`; the first
    one that detects a node is asked. ``module_types`` are recorded as one node each.
    """

    module_types: tuple[type, ...] = ()

    def detect(self, speedup: ModelSpeedup, node: Node) -> bool:
        """Whether this updater knows the node."""
        raise NotImplementedError(f"{type(self).__name__} does not say which nodes it knows")

    def relate(self, op: Operator, *args: Any, **kwargs: Any) -> Any:
        """How dimensions relate, as a rule does; by default the result has those of the first operand."""
        return list(next(iter([a for a in args if hasattr(a, "dims")])))

    def direct_update_process(
        self, speedup: ModelSpeedup, node: Node
    ) -> Known | Sequence[Known | None] | None:
        """What is known of the results; by default what is known of the first operand."""
        return speedup.known_of(node.inputs[0])

    def indirect_update_process(self, speedup: ModelSpeedup, node: Node) -> None:
        """Called when labels are given back; by default nothing but what ``relate`` states."""


class NoChangeMaskUpdater(MaskUpdater):
    """Modules and operators whose results are constant where, and as, their first operands are.

    Args:
        customized_no_change_act_module: module types without parameters.
        customized_no_change_act_func: operators (``torch.ops.mylib.op``) or overloads.
    """

    def __init__(
        self,
        customized_no_change_act_module: Sequence[type] | None = None,
        customized_no_change_act_func: Sequence[Any] | None = None,
    ) -> None:
        self.module_types = tuple(customized_no_change_act_module or ())
        self._operators = {o for f in customized_no_change_act_func or () for o in overloads(f)}

    def detect(self, speedup: ModelSpeedup, node: Node) -> bool:
        if isinstance(node.op, ModuleCall):
            return issubclass(node.op.type, self.module_types)
        return node.op in self._operators


def rules_of(
    updaters: Sequence[MaskUpdater], speedup: ModelSpeedup, graph: Graph
) -> Iterator[tuple[Any, Rule]]:
    """Rules of updaters for operators and modules that have none."""
    for node in graph.nodes:
        key = node.op.type if isinstance(node.op, ModuleCall) else node.op
        if key in TABLE:
            continue
        updater = next((u for u in updaters if u.detect(speedup, node)), None)
        if updater is not None:
            yield key, _rule_of(updater)


def _rule_of(updater: MaskUpdater) -> Rule:
    def relate(op: Operator, *args: Any, **kwargs: Any) -> Any:
        return updater.relate(op, *args, **kwargs)

    return Rule(relate, signature=inspect.signature(relate))
