"""A snapshot: a model recorded and analysed at one set of inputs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ._errors import CaptureError, LabelError
from .axes import Analysis, Dim, Label, Structure, analyse, build_structure, has_rule, state_exactness
from .capture import Detail, Graph, record, without_gc
from .cost import mac_savings
from .criteria import magnitude_scores
from .surgery import Averages, Followed, Following, Waiting, follow, unfoldable
from .verification import Recorded

LeafModules = Iterable[str | type | nn.Module]


@dataclass
class Settings:
    """How a model is to be looked at: see :class:`secateur.PruningIR`."""

    leaf_modules: tuple[str | type | nn.Module, ...] = ()
    soft_tracing: bool = True
    attention: str = "both"
    ignore: tuple[str | nn.Module | nn.Parameter, ...] = ()
    output: str = "module"

    def detail(self, model: nn.Module) -> Detail:
        """What to record whole of ``model``, also where a copy of it is what runs."""
        modules = model.named_modules() if self.leaf_modules else ()
        paths = {path for path, module in modules if self._is_leaf(path, module)}
        return Detail(has_rule, lambda path, module: path in paths)

    def _is_leaf(self, path: str, module: nn.Module) -> bool:
        return any(
            path == leaf if isinstance(leaf, str)
            else isinstance(module, leaf) if isinstance(leaf, type)
            else module is leaf
            for leaf in self.leaf_modules
        )  # fmt: skip


@dataclass(repr=False)
class Snapshot:
    """A model at one set of inputs. Recording and analysis happen when they are first asked for.

    Attributes:
        name: what the user calls it.
        args: positional inputs.
        kwargs: keyword inputs.
        scores: what a criterion collected, by group name; empty before.
    """

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: Settings = field(default_factory=Settings)
    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        scored = "with scores" if self.scores else "without scores"
        return f"Snapshot({self.name!r}, {type(self.model).__name__}, {scored})"

    @cached_property
    def graph(self) -> Graph:
        """What one run of the model dispatched."""
        graph = record(self.model, self.args, self.kwargs, detail=self.settings.detail(self.model))
        self.seconds["capture"] = graph.seconds
        return graph

    def recorded(self) -> Recorded:
        """The inputs with their graph, for verification."""
        return Recorded(self.args, self.kwargs, self.graph)

    @cached_property
    def analysis(self) -> Analysis:
        """Dimensions of every tensor.

        Raises:
            CaptureError: with ``soft_tracing=False``, if there is an operator without a rule.
        """
        graph = self.graph
        with without_gc():
            analysis = analyse(graph)
        if analysis.opaque and not self.settings.soft_tracing:
            lines = [
                f"  {self.graph.nodes[index]}: {why} ({self.graph.nodes[index].site})"
                for index, why in analysis.opaque.items()
            ]
            raise CaptureError(
                "these operators cannot be followed, and soft_tracing is off:\n"
                + "\n".join(lines)
                + "\nRegister a rule with @secateur.register_rule, or use soft_tracing=True to pin them."
            )
        return analysis

    @cached_property
    def structure(self) -> Structure:
        """Groups and pins, after everything that the user and the model's code rule out."""
        with without_gc(), Waiting(f"recording {type(self.model).__name__}") as waiting:
            return self._find_structure(waiting)

    def _find_structure(self, waiting: Waiting) -> Structure:
        analysis = self.analysis  # recorded and analysed by now: not counted twice
        start = time.perf_counter()
        structure = build_structure(analysis)
        pins = self._user_pins(structure)
        if pins:
            structure = build_structure(analysis, pins)
        code = Followed(structure, self.model, self.args, self.kwargs, self.settings.detail(self.model))
        code.tell = waiting.tell
        # A rewritten graph can follow everything: there the code has no say.
        following = follow(code) if self.settings.output == "module" else Following()
        self.__dict__["following"] = following
        if following.blocked or following.relations:
            pins += [(axis, reason, None) for axis, reason in following.blocked]
            structure = code.structure = build_structure(analysis, pins, following.relations)
        averages = self.__dict__["averages"] = Averages(analysis, (group.axis for group in structure.groups))
        state_exactness(structure, unfoldable(code), averages.made_up)
        code.tell = None
        self.__dict__["code"] = code
        self.seconds["analysis"] = self.analysis.seconds + time.perf_counter() - start
        return structure

    @cached_property
    def following(self) -> Following:
        """How the model's code follows a cut."""
        _ = self.structure
        return self.__dict__["following"]

    @cached_property
    def averages(self) -> Averages:
        """Which parameters make up for averages over axes that are cut."""
        _ = self.structure
        return self.__dict__["averages"]

    @cached_property
    def code(self) -> Followed:
        """The model's code, ready to be replayed."""
        _ = self.structure
        return self.__dict__["code"]

    def current_scores(self) -> dict[str, torch.Tensor]:
        """What a criterion collected, or else group magnitude (L2)."""
        return self.scores or magnitude_scores(self.structure, self.model)

    def cut_copy(self, labels: Sequence[Label]) -> nn.Module:
        """A smaller copy of the model, not verified: to be measured."""
        from ._cutting import cut

        return cut(self, labels, [self], inplace=False, verify=False)[0]

    def savings(self) -> dict[str, float]:
        """For each group: the multiply-accumulates that taking off one label saves."""
        return mac_savings(self.structure)

    def __getstate__(self) -> dict[str, Any]:
        # What was recorded can be recorded again, and holds the code of whoever called it.
        return {f.name: self.__dict__[f.name] for f in fields(self)}

    def _user_pins(self, structure: Structure) -> list[tuple[Dim, str, Any]]:
        pins: list[tuple[Dim, str, Any]] = []
        other = {"heads": "features", "features": "heads", "both": ""}[self.settings.attention]
        pins += [
            (group.axis, f"attention={self.settings.attention!r} leaves its {other}", None)
            for group in structure.groups
            if other and group.role == other
        ]
        for ignored in self.settings.ignore:
            pins += self._ignored(ignored)
        return pins

    def _ignored(self, ignored: Any) -> list[tuple[Dim, str, Any]]:
        """Pins for the outputs of a module, or all dimensions of a parameter."""
        names = parameter_names(self.model, ignored)
        values = {name: value for value in self.graph.values for name in value.names}
        return [
            (dim, f"ignore={ignored if isinstance(ignored, str) else name!r}", None)
            for name in names
            if name in values
            for dim in self.analysis.dims_of(values[name].id)[:1]
        ]


def parameter_names(model: nn.Module, what: Any) -> list[str]:
    """Names of the parameters that a path, a module or a parameter stands for.

    Raises:
        LabelError: if it is not in the model.
    """
    if isinstance(what, nn.Parameter):
        found = [name for name, p in model.named_parameters(remove_duplicate=False) if p is what]
    else:
        if isinstance(what, nn.Module):
            paths = [path for path, module in model.named_modules() if module is what]
            what = paths[0] if paths else what
        found = [
            name
            for name, _ in model.named_parameters(remove_duplicate=False)
            if isinstance(what, str) and (name == what or name.startswith(f"{what}."))
        ]
    if not found and not (isinstance(what, str) and what in dict(model.named_modules())):
        raise LabelError(f"ignore: there is no module or parameter {what!r} in {type(model).__name__}")
    return found
