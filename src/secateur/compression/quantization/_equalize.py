"""Cross-layer equalisation: channels of two layers in a row share their range between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import QuantizationError
from ...axes import has_rule
from ...capture import Detail, Graph, Node, record, unwrap

_ATEN = torch.ops.aten
_HOMOGENEOUS = {
    _ATEN.relu, _ATEN.relu_, _ATEN.leaky_relu, _ATEN.leaky_relu_, _ATEN.dropout, _ATEN.max_pool1d,
    _ATEN.max_pool2d, _ATEN.max_pool3d, _ATEN.avg_pool1d, _ATEN.avg_pool2d, _ATEN.avg_pool3d,
    _ATEN.adaptive_avg_pool1d, _ATEN.adaptive_avg_pool2d, _ATEN.adaptive_avg_pool3d,
    _ATEN.adaptive_max_pool1d, _ATEN.adaptive_max_pool2d, _ATEN.flatten, _ATEN.alias, _ATEN.contiguous,
}  # fmt: skip
"""What works on every channel by itself, and gives ``s * y`` for ``s * x`` with any ``s > 0``."""
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_SWEEPS = 40
"""At most so many passes over all pairs; ranges are even long before."""


@dataclass(frozen=True)
class EqualPair:
    """Two layers whose channels share their ranges: the first puts out what the second alone reads."""

    first: str
    second: str


def equalize(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> list[EqualPair]:
    """Give the channels of layers in a row even ranges, so that one scale fits a whole weight; in place.

    Channel ``i`` of the first layer is divided by ``s_i`` and the columns that read it are multiplied by it,
    ``s_i = sqrt(r1_i / r2_i)`` for the largest absolute weights ``r1_i`` and ``r2_i`` of both. What the model
    computes stays the same, since only ReLU, pooling and the like are in between, which do not mind a
    factor. Fold BatchNorm first: :func:`secateur.folding.fold_batch_norm`. Source: Nagel et al., "Data-free
    quantization through weight equalization and bias correction" (ICCV 2019), section 4.1.

    Args:
        model: any model.
        args: positional inputs to record it at.
        kwargs: keyword inputs.

    Returns:
        The pairs that were found.

    Raises:
        QuantizationError: if the model is wrapped by a compressor.
        CaptureError: if the model cannot be run.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> net[0].weight.data, net[2].weight.data = torch.tensor([[8.0], [1.0]]), torch.tensor([[2.0, 1.0]])
        >>> equalize(net, (torch.ones(1, 1),))
        [EqualPair(first='0', second='2')]
        >>> net[0].weight.flatten().tolist(), net[2].weight.flatten().tolist()
        ([4.0, 1.0], [4.0, 1.0])
    """
    model = unwrap(model)
    if any("_simulated_targets" in vars(module) for module in model.modules()):
        raise QuantizationError("the model is wrapped by a compressor: equalise it before, or unwrap it")
    pairs = _find(record(model, args, kwargs, detail=Detail(has_rule)), model)
    with torch.no_grad():
        for _ in range(_SWEEPS):
            changes = [_balance(model.get_submodule(p.first), model.get_submodule(p.second)) for p in pairs]
            if max(changes, default=0.0) < 1e-4:
                break
    return pairs


def _balance(first: nn.Module, second: nn.Module) -> float:
    """One step for one pair; returns the largest change of a factor."""
    rows, columns = _rows(first), _columns(second, _rows(first).shape[0])
    own, theirs = rows.abs().amax(1), columns.abs().amax((1, 2))
    used = (own > 0) & (theirs > 0)
    factor = torch.where(used, (own / theirs.where(used, torch.ones_like(theirs))).sqrt(), 1.0)
    rows /= factor[:, None]
    bias = first._parameters.get("bias")
    if bias is not None:
        bias /= factor
    columns *= factor[:, None, None]
    return float((factor - 1).abs().max())


def _rows(layer: nn.Module) -> Tensor:
    """A view of the weight with a row for each output channel."""
    return _weight(layer).view(_weight(layer).shape[0], -1)


def _columns(layer: nn.Module, channels: int) -> Tensor:
    """A view of the weight with the elements that read each input channel, ``(channels, ..., ...)``."""
    weight = _weight(layer)
    if isinstance(layer, nn.Linear):  # after a flattening, several columns in a row are one channel
        return weight.view(weight.shape[0], channels, -1).transpose(0, 1)
    groups: int = layer.groups  # type: ignore[assignment]
    each = weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1).permute(0, 2, 1, 3)
    if groups == 1:
        return each[0]
    return each.flatten(0, 1) if weight.shape[1] == 1 else _refuse()


def _refuse() -> Tensor:
    raise QuantizationError("only plain and depthwise convolutions are paired")


def _weight(layer: nn.Module) -> Tensor:
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


# -- finding pairs ---------------------------------------------------------------------------------


def _find(graph: Graph, model: nn.Module) -> list[EqualPair]:
    calls = Counter(node.module for node in graph.nodes)
    makers = [node for node in graph.nodes if _is_layer(model, node) and calls[node.module] == 1]
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    alone = {node.module for node in makers if owners[id(_weight(model.get_submodule(node.module)))] == 1}
    found: list[EqualPair] = []
    for node in makers:
        after = _reader(graph, node, model)
        if after is not None and node.module in alone and after.module in alone:
            found.append(EqualPair(node.module, after.module))
    return found


def _is_layer(model: nn.Module, node: Node) -> bool:
    module = model.get_submodule(node.module)
    if not isinstance(module, _LAYERS):
        return False
    return isinstance(module, nn.Linear) or module.groups == 1 or module.weight.shape[1] == 1


def _reader(graph: Graph, node: Node, model: nn.Module) -> Node | None:
    """The layer that alone reads what a layer puts out, with only homogeneous operators in between."""
    readers, results = graph.readers(), set(graph.outputs.values())
    now = node
    while len(now.outputs) == 1 and now.outputs[0] not in results:
        value = now.outputs[0]
        later = [other for other in readers[value] if other.index > now.index]
        in_place = bool(later) and value in later[0].outputs
        if not later or (len(later) > 1 and not in_place):
            return None
        now = later[0]
        if _is_layer(model, now):
            width = graph.values[node.outputs[0]].shape
            linear = isinstance(model.get_submodule(now.module), nn.Linear)
            # A linear layer reads channels where these are the only features, or were flattened.
            return now if not linear or len(width) == 2 or len(graph.values[value].shape) == 2 else None
        if getattr(now.op, "overloadpacket", None) not in _HOMOGENEOUS:
            return None
    return None
