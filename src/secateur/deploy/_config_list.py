"""The config list with which a quantiser prepares a model for integer kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from .._errors import DeploymentError
from ..axes import has_rule
from ..capture import Detail, Graph, Node, record, unwrap, written_once
from ..compression.sites import SITES
from ._layout import Chosen, Layout, layout_of


def int8_config_list(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What to quantise so that a runtime has integer kernels for every convolution and linear layer.

    Weights are int8, symmetric, a scale for each output channel; activations uint8, affine, one scale. Tables
    of embeddings are int8 too, a scale for each row, where rows are looked up at ids from the inputs. The
    tensors are found in the recorded graph: each is quantised once, behind the BatchNorm and activation that
    a kernel takes in; where others read it as floats, such as the sums of a transformer, for the layers
    alone. A config list names tensors by modules, as ``_output_`` of the one that returns it or
    ``_input_`` of those that read it; what only code between modules sees stays float.

    Args:
        model: the float model; only looked at.
        args: positional inputs to record it at.
        kwargs: keyword inputs.

    Returns:
        A config list for the quantisers of :mod:`secateur.compression.quantization`.

    Raises:
        CaptureError: if the model does not run on the inputs.
        DeploymentError: if masks or grids are simulated on it already.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> for entry in int8_config_list(net, (torch.ones(1, 3, 8, 8),)):
        ...     print(entry["op_names"], entry["target_names"], entry["quant_dtype"])
        ['0', '3'] ['weight'] int8
        ['0'] ['_input_'] uint8
        ['1'] ['_output_'] uint8
    """
    model = unwrap(model)
    _check_plain(model)
    graph = written_once(record(model, args, dict(kwargs or {}), detail=Detail(has_rule)))
    layout = layout_of(graph)
    places = _Places(graph, [path for path, _ in model.named_modules() if path and path in graph.called])
    activations: dict[str, dict[str, None]] = {"_input_": {}, "_output_": {}}
    for id_, chosen in layout.tensors.items():
        for target, path in places.for_all(id_, chosen):
            activations[target][path] = None
    entries = _weights(graph, layout)
    for target, paths in activations.items():
        if paths:
            entries.append(
                {
                    "op_names": [*paths],
                    "target_names": [target],
                    "quant_dtype": "uint8",
                    "quant_scheme": "affine",
                }
            )
    return entries


def _check_plain(model: nn.Module) -> None:
    """That weights are parameters: where a compressor is at work, layers read what it makes of them."""
    simulated = [path for path, module in model.named_modules() if SITES in vars(module)]
    if simulated:
        raise DeploymentError(
            f"masks or grids are simulated on {simulated[0]!r} and {len(simulated) - 1} other modules: call "
            "int8_config_list on the plain model, before any compressor is made or after unwrap_model()"
        )


def _weights(graph: Graph, layout: Layout) -> list[dict[str, Any]]:
    """Entries for layers of either form, and for tables that no layer shares: such have the layer's grid."""
    straight, turned = (
        _owners(graph, (layer.weight for layer in layout.layers if layer.turned is kind))
        for kind in (False, True)
    )
    tables = _owners(graph, (node.args[0].id for node in layout.lookups))
    parts: list[tuple[list[str], Any]] = [
        (straight, "out_channel"),
        (turned, [-1, 1]),  # a scale for each output, in dimension 1: what a module calls so is not known
        ([path for path in tables if path not in straight], "out_channel"),
    ]
    return [
        {
            "op_names": paths,
            "target_names": ["weight"],
            "quant_dtype": "int8",
            "quant_scheme": "symmetric",
            "granularity": granularity,
        }
        for paths, granularity in parts
        if paths
    ]


def _owners(graph: Graph, ids: Iterable[int]) -> list[str]:
    """Modules whose ``weight`` these tensors are, the first of those that share it."""
    paths = (graph.values[id_].name.rpartition(".") for id_ in ids)
    return [*dict.fromkeys(path for path, _, name in paths if name == "weight")]


class _Places:
    """Where a tensor of the graph is the one input or output of a module."""

    def __init__(self, graph: Graph, paths: list[str]) -> None:
        self.graph, self.readers, self.paths = graph, graph.readers(), paths
        self.makers = {made: node for node in graph.nodes for made in node.outputs}  # the last that gave it
        self.results = set(graph.outputs.values())

    def for_all(self, id_: int, chosen: Chosen) -> list[tuple[str, str]]:
        """Where a chosen tensor is quantised: best for those only who read it as integers."""
        found = self._as_inputs(id_, chosen.by) or self.of(id_)
        found = found or [place for moved in chosen.read for place in self._first(moved)]
        return found or self._first(chosen.before)

    def _first(self, ids: list[int]) -> list[tuple[str, str]]:
        """The places of the first of these tensors that has one."""
        return next(filter(None, map(self.of, ids)), [])

    def of(self, id_: int) -> list[tuple[str, str]]:
        """``(target, module)`` that together cover all that read the tensor; empty if there are none."""
        maker = self.makers.get(id_)
        around = [path for path in reversed(self.paths) if maker and _inside(maker.module, path)]
        for path in sorted(around, key=len, reverse=True):
            if self._crossing(path, outward=True) == {id_} and not self._read_inside(id_, path):
                return [("_output_", path)]
        return self._as_inputs(id_, self._read(id_))

    def _as_inputs(self, id_: int, readers: list[Node]) -> list[tuple[str, str]]:
        """Modules that take the tensor for these readers and no others; empty if there are none for one."""
        maker = self.makers.get(id_)
        meant = {reader.index for reader in readers}
        others = [reader for reader in self._read(id_) if reader.index not in meant]
        outside = [node.module for node in (maker, *others) if node is not None]
        found: dict[tuple[str, str], None] = {}
        for reader in readers:
            takers = (
                path
                for path in sorted(self.paths, key=len)
                if _inside(reader.module, path)
                and not any(_inside(module, path) for module in outside)
                and self._crossing(path, outward=False) == {id_}
            )
            taker = next(takers, None)
            if taker is None:
                return []
            found["_input_", taker] = None
        return [*found]

    def _read(self, id_: int) -> list[Node]:
        """Who reads a tensor and does not give it back as it is."""
        return [reader for reader in self.readers[id_] if id_ not in reader.outputs]

    def _crossing(self, path: str, *, outward: bool) -> set[int]:
        """Tensors of activations that leave a module, or that enter it."""
        return set(self._outputs(path) if outward else self._inputs(path))

    def _outputs(self, path: str) -> Iterator[int]:
        for node in self.graph.nodes:
            for id_ in node.outputs if _inside(node.module, path) else ():
                outside = any(not _inside(reader.module, path) for reader in self.readers[id_])
                if outside or id_ in self.results:
                    yield id_

    def _inputs(self, path: str) -> Iterator[int]:
        entering = {*self.makers, *self.graph.inputs.values()}
        for node in self.graph.nodes:
            for id_ in node.inputs if _inside(node.module, path) else ():
                maker = self.makers.get(id_)
                if id_ in entering and not (maker and _inside(maker.module, path)):
                    yield id_

    def _read_inside(self, id_: int, path: str) -> bool:
        """Whether code of the module itself reads what the module returns, before it is quantised."""
        last = max((n.index for n in self.graph.nodes if id_ in n.outputs), default=-1)
        return any(_inside(r.module, path) and r.index > last for r in self.readers[id_])


def _inside(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")
