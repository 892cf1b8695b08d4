"""From a model that simulates quantisation to a program of real integers, for any runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._errors import DeploymentError
from ..capture import map_tensors, untouched, unwrap
from ..operators import DEQUANTIZE, QUANTIZE, along
from ._affine import fold_affine
from ._averages import average_integers
from ._biases import quantize_biases
from ._caches import without_caches
from ._constants import Values, attribute, buffer, constants_of, drop_unread, fold_constants
from ._identities import drop_identities
from ._linear_form import use_linear_form
from ._lookups import look_up_integers, multiply_in_floats

_FAKE = torch.ops.secateur.fake_quantize.default
_WIDE = 254
"""Steps that a range has to span so that the integer type's own end can stand for the range's end."""


def program_of(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
) -> fx.GraphModule:
    """The model as a graph of operators in which what was simulated is done.

    A weight whose quantisation is simulated is stored as int8 and dequantised; an activation is quantised and
    dequantised; a bias between two such is int32; rows of a stored table are looked up before they are
    dequantised. Everything that depends on parameters alone, such as the
    folding of BatchNorm into a weight before it is quantised, is computed now.

    Args:
        model: a model, with or without simulated quantisation.
        args: positional inputs; their first dimension is the batch.
        kwargs: keyword inputs.
        dynamic_batch: whether the batch may have another size.

    Raises:
        DeploymentError: if torch.export cannot follow the model, or a range does not fit into 8 bits.
    """
    program = exported(model, args, kwargs, dynamic_batch=dynamic_batch).module(check_guards=False)
    assert isinstance(program, fx.GraphModule)
    drop_identities(program)
    use_linear_form(program)
    _share_grids(program)
    fold_constants(program, _store)
    look_up_integers(program)
    multiply_in_floats(program, {torch.ops.aten.linear.default})  # ONNX Runtime sees it of convolutions
    fold_affine(program)
    _quantize_activations(program)
    average_integers(program)
    quantize_biases(program)
    drop_unread(program)
    for part in program.modules():
        part.training = False  # torch refuses eval() on an exported module
    program.recompile()
    return program


def exported(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
) -> torch.export.ExportedProgram:
    """What ``torch.export`` makes of the model in eval mode, quantisation still simulated.

    Raises:
        DeploymentError: if it cannot follow the model's code; the reason is attached.
    """
    model = unwrap(model)
    shapes = batch_shapes((tuple(args), dict(kwargs or {}))) if dynamic_batch else None
    try:
        with untouched(model), without_caches(model):
            return torch.export.export(
                model, tuple(args), dict(kwargs or {}), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        hint = " With dynamic_batch=False the size of the batch is fixed." if dynamic_batch else ""
        raise DeploymentError(
            f"torch.export cannot follow {type(model).__name__} ({type(error).__name__}: {first}).{hint}"
        ) from error


def batch_shapes(inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Which dimensions of ``(args, kwargs)`` are free: the first of every tensor that has the batch there."""
    batch = batch_of(inputs)

    def shape(leaf: Any) -> Any:
        free = isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch
        return {0: torch.export.Dim.DYNAMIC} if free else None

    args, kwargs = tree_map(shape, inputs)
    if not kwargs:
        return args
    if args:
        raise DeploymentError(
            "where the batch is dynamic, inputs are given all by position or all by keyword: here are "
            f"{len(args)} positional ones and {', '.join(kwargs)}"
        )
    return kwargs


def export_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs that torch.export takes for a batch of any size: one row would count as a constant."""
    if batch_of((args, kwargs)) != 1:
        return args, kwargs
    return map_tensors((args, kwargs), lambda x: torch.cat([x, x]) if x.dim() and len(x) == 1 else x)


def batch_of(inputs: Any) -> int | None:
    """Size of the batch: of the first dimension of the first tensor."""
    leaves = tree_leaves(inputs)
    return next((leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), None)


# -- rewriting ---------------------------------------------------------------------------------------


def _share_grids(module: fx.GraphModule) -> None:
    """Put a tensor on the same grid once, whoever reads it, in place.

    A tied weight is stored once then, and an activation that layers read on their own is quantised once.
    """
    parameters: dict[tuple[Any, ...], fx.Node] = {}
    activations: dict[tuple[Any, ...], fx.Node] = {}
    for node in list(module.graph.nodes):
        if _writes(node):
            activations.clear()
        if node.target is _FAKE:
            stays = all(source.op == "get_attr" for source in node.all_input_nodes)
            given = tuple(_told_apart(module, part) for part in (*node.args[1:], *node.kwargs.items()))
            first = (parameters if stays else activations).setdefault((node.args[0], *given), node)
            if first is not node:
                node.replace_all_uses_with(first)
                module.graph.erase_node(node)


def _writes(node: fx.Node) -> bool:
    """Whether it may change a tensor in place."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _told_apart(module: fx.GraphModule, part: Any) -> Any:
    """What tells an argument from others: of one number its value, otherwise itself."""
    if not isinstance(part, fx.Node) or part.op != "get_attr":
        return part
    value = attribute(module, str(part.target))
    return value.item() if value.numel() == 1 else part


def _store(module: fx.GraphModule, node: fx.Node, value: Tensor, values: Values) -> fx.Node:
    """A stored tensor: integers where it is the result of a fake quantisation, else as it is."""
    if node.op == "get_attr":
        return node
    if node.target is not _FAKE:
        return buffer(module, value, "constant")
    _, scale, zero_point, low, high, axis = _quantisation(node, values)
    dtype = torch.int8 if low >= -128 and high <= 127 else torch.uint8
    _check_range(node, low, high)
    steps = torch.round(value.double() / along(scale, value, axis).double()) + along(zero_point, value, axis)
    stored = steps.clamp(low, high).to(dtype)
    return _dequantized(module, buffer(module, stored, "weight"), scale, zero_point.to(dtype), axis, value)


def _quantize_activations(module: fx.GraphModule) -> None:
    values = constants_of(module)
    for node in list(module.graph.nodes):
        if node.target is _FAKE:
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_integers(module, node, values))
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()


def _integers(module: fx.GraphModule, node: fx.Node, values: Values) -> fx.Node:
    """Quantise to uint8, the type that processors multiply fastest with int8 weights, and back."""
    source, scale, zero_point, low, high, axis = _quantisation(node, values)
    _check_range(node, low, high)
    shifted = (zero_point - low).to(torch.uint8)
    if high - low < _WIDE:
        ends = [along((end - zero_point) * scale, node.meta["val"], axis) for end in (low, high)]
        source = module.graph.call_function(
            torch.ops.aten.clamp.Tensor, (source, *[buffer(module, end, "end") for end in ends])
        )
        source.meta["val"] = node.meta["val"]
    given = buffer(module, scale, "scale"), buffer(module, shifted, "zero")
    steps = module.graph.call_function(QUANTIZE, (source, *given, axis))
    steps.meta["val"] = torch.empty_like(node.meta["val"], dtype=torch.uint8)
    return _dequantized(module, steps, scale, shifted, axis, node.meta["val"])


def _dequantized(
    module: fx.GraphModule, steps: fx.Node, scale: Tensor, zero_point: Tensor, axis: int | None, like: Tensor
) -> fx.Node:
    given = buffer(module, scale, "scale"), buffer(module, zero_point, "zero")
    node = module.graph.call_function(DEQUANTIZE, (steps, *given, axis))
    node.meta["val"] = like
    return node


def _quantisation(node: fx.Node, values: Values) -> tuple[Any, Tensor, Tensor, int, int, int | None]:
    """Source, scale, zero point, range and axis of a fake quantisation; one scale is of shape ()."""
    given: tuple[Any, ...] = node.args
    source, scale, zero_point, low, high, *rest = given
    axis: Any = rest[0] if rest else node.kwargs.get("axis")
    if scale not in values or zero_point not in values:
        raise DeploymentError(
            f"the scale of {node.name} is computed from the inputs, and a deployed model needs it "
            "beforehand: put the model into eval mode with the ranges that were calibrated"
        )
    scale, zero_point = values[scale].float(), values[zero_point].round().to(torch.int64)
    shape = () if axis is None else (-1,)
    scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    return source, scale, zero_point, low, high, axis


def _check_range(node: fx.Node, low: int, high: int) -> None:
    if high - low > 255:
        raise DeploymentError(
            f"{node.name} is quantised to integers from {low} to {high}, and 8 bits are the most that is "
            "deployed: configure quant_dtype 'int8' or 'uint8'"
        )
