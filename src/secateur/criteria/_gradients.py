"""Gate gradients, gathered while backward runs: from parameters' gradients, and layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..axes import Group, Leaf, Structure, labels_at
from ..capture import Source, owned_tensors
from ._gates import Gate, InputTerm, ParameterTerm, Term

CHUNK = 1 << 16


def inner_products(first: torch.Tensor, second: torch.Tensor, dim: int) -> torch.Tensor:
    """Inner product of the slices of two tensors at each position of ``dim``, in float32 at least.

    Works in chunks that stay in the cache, so that no temporary of the tensors' size is made.

    >>> inner_products(torch.ones(2, 3), torch.arange(6.0).reshape(2, 3), 1)
    tensor([3., 5., 7.])
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    dim %= first.dim()
    others = [d for d in range(first.dim()) if d != dim]
    if first.device.type != "cpu" or first.numel() <= CHUNK or first.dim() == 1:
        product = first.to(dtype) * second.to(dtype)
        return product.sum(others) if others else product
    step = max(1, CHUNK * first.shape[0] // first.numel())
    if dim == 0:
        rows = zip(first.split(step), second.split(step), strict=True)
        return torch.cat([(a.to(dtype) * b.to(dtype)).sum(others) for a, b in rows])
    total = torch.zeros((step, *first.shape[1:]), dtype=dtype)
    for a, b in zip(first.split(step), second.split(step), strict=True):
        total[: len(a)].addcmul_(a.to(dtype), b.to(dtype))
    return total.sum(others)


class GateGradients:
    """Gathers, in every backward, the derivative of the loss with respect to each label's gate.

    Args:
        model: the model that is run.
        structure: its analysis.
        gates: which groups, and where their gradients are found.

    Hooks are on the parameters and layers themselves while the object is used as a context; a
    frozen parameter is unfrozen for as long. Gradients that the user had are put aside meanwhile.
    """

    def __init__(self, model: nn.Module, structure: Structure, gates: Mapping[str, Gate]) -> None:
        self._model = model
        self._gates = dict(gates)
        self._groups = {name: structure.group(name) for name in gates}
        tensors = {n: t for source, n, t in owned_tensors(model) if source is Source.PARAMETER}
        self._terms: dict[Term, None] = {t: None for gate in gates.values() for t in gate.terms}
        parameters = {term.parameter for term in self._terms if isinstance(term, ParameterTerm)}
        self._parameters = {name: tensors[name] for name in sorted(parameters)}
        self._labels = _labels(structure, self._gates, self._groups)
        self._sums: dict[Term, torch.Tensor] = {}
        self._seen: set[Term] = set()
        self._undo: list[Callable[[], Any]] = []

    def __enter__(self) -> GateGradients:
        for parameter in self._model.parameters():
            self._put_aside(parameter)
        for name, parameter in self._parameters.items():
            if not parameter.requires_grad:
                parameter.requires_grad_(True)
                self._undo.append(lambda p=parameter: p.requires_grad_(False))
            terms = (term for term in self._terms if isinstance(term, ParameterTerm))
            dims = sorted({term.dim for term in terms if term.parameter == name})
            handle = parameter.register_hook(self._hook(name, parameter, dims))
            self._undo.append(handle.remove)
        modules = dict(self._model.named_modules())
        for term in self._terms:
            if isinstance(term, InputTerm):
                handle = modules[term.module].register_forward_pre_hook(self._input_hook(term))
                self._undo.append(handle.remove)
        return self

    def __exit__(self, *exc: object) -> None:
        while self._undo:
            self._undo.pop()()
        self._sums.clear()

    def _put_aside(self, parameter: nn.Parameter) -> None:
        def give_back(grad: torch.Tensor | None = parameter.grad) -> None:
            parameter.grad = grad

        parameter.grad = None
        self._undo.append(give_back)

    def _hook(
        self, name: str, parameter: torch.Tensor, dims: Iterable[int]
    ) -> Callable[[torch.Tensor], None]:
        def gather(grad: torch.Tensor) -> None:
            with torch.no_grad():
                for dim in dims:
                    self._add(ParameterTerm(name, dim), inner_products(parameter, grad, dim))

        return gather

    def _input_hook(self, term: InputTerm) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
            if not args or not torch.is_grad_enabled() or not args[0].requires_grad:
                return None
            # A view of its own: its gradient is that of this layer alone, whoever else reads it.
            own = args[0].view_as(args[0])

            def gather(grad: torch.Tensor) -> None:
                with torch.no_grad():
                    self._add(term, inner_products(own.detach(), grad, term.dim))

            own.register_hook(gather)
            return (own, *args[1:])

        return before

    def _add(self, term: Term, values: torch.Tensor) -> None:
        self._seen.add(term)
        before = self._sums.get(term)
        self._sums[term] = values if before is None else before.add_(values)

    # -- what was gathered -------------------------------------------------------------------------

    def take(self) -> dict[str, torch.Tensor]:
        """Gate gradients since the last call: for each group a float64 tensor of shape ``(size,)``."""
        found: dict[str, torch.Tensor] = {}
        for name, gate in self._gates.items():
            total = torch.zeros(self._groups[name].size, dtype=torch.float64)
            for term in gate.terms:
                values = self._sums.get(_whole(term))
                if values is not None:
                    inside, labels = self._labels[name, term]
                    total.index_add_(0, labels, values.double().cpu()[inside])
            found[name] = total
        self._sums.clear()
        return found

    def pending(self) -> bool:
        """Whether a backward has run since the last :meth:`take`."""
        return bool(self._sums)

    def unseen(self) -> set[str]:
        """Groups none of whose terms ever got a gradient."""
        return {
            name
            for name, gate in self._gates.items()
            if not any(_whole(term) in self._seen for term in gate.terms)
        }

    def culprit(self) -> str:
        """Where a gathered gradient is not finite."""
        for term, values in self._sums.items():
            if not torch.isfinite(values).all():
                return str(term)
        return "a parameter"


def _whole(term: Term) -> Term:
    return ParameterTerm(term.parameter, term.dim) if isinstance(term, ParameterTerm) else term


Places = tuple[torch.Tensor, torch.Tensor]


def _labels(
    structure: Structure, gates: Mapping[str, Gate], groups: Mapping[str, Group]
) -> dict[tuple[str, Term], Places]:
    """For each group and term: the positions that belong to labels, and the labels' numbers."""
    analysis = structure.analysis
    ids = {value.name: value.id for value in analysis.graph.state(Source.PARAMETER)}
    places: dict[tuple[str, Term], Places] = {}
    for name, gate in gates.items():
        axis: Leaf = groups[name].axis
        for term in gate.terms:
            owner = ids[term.parameter] if isinstance(term, ParameterTerm) else term.value
            labels = labels_at(analysis.dims_of(owner)[term.dim], axis)
            inside = np.flatnonzero(labels >= 0)
            if isinstance(term, ParameterTerm) and term.rows is not None:
                inside = np.intersect1d(inside, term.rows)
            places[name, term] = (torch.from_numpy(inside), torch.from_numpy(labels[inside]))
    return places
