"""Scores from what the layers that read a label lose, once the labels that stay have made good."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from .._errors import ScoreError
from ..axes import Group, Structure, labels_at
from ..capture import Watch, owned_tensors
from ._collector import ScoreCollector
from ._elimination import Layer, eliminate
from ._gates import Use, find_uses
from ._moments import Moments
from ._normalize import Normalize, Scores
from ._samples import ToInputs

Activation = tuple[int, int]
"""A tensor of the recorded graph and one of its dimensions."""


class ReconstructionCriterion(ScoreCollector):
    """Loss to second order when labels go and the layers that read them are fitted anew.

    Removed inputs of a layer can be replaced, in part, by the linear combination of those that stay
    that comes nearest (``prune(..., compensate="least_squares")`` does so). What is left is, for the
    removed inputs ``R`` of a layer with weights ``W`` and input covariance ``C``, the residual
    covariance ``C_RR - C_RK C_KK^-1 C_KR``. It costs, with the mean squares ``s_o`` of the loss's
    gradient at the outputs (the diagonal of its Fisher information, summed over places),

        loss(R) = sum_o s_o * W_oR (C_RR - C_RK C_KK^-1 C_KR) W_oR^T

    added over all layers that read the group. With few examples ``C`` is drawn towards a multiple of
    the identity (:meth:`secateur.criteria.Moments.shrunk`): among 200 examples every one of 1,000
    features seems redundant. Labels are eliminated greedily; the score of a label is the increase when
    it goes, given what went before. So labels that repeat others are cheap, but only as long as the
    others stay; and the sum of the lowest scores of a group is the loss without them, which is what a
    knapsack adds up.

    Sources: the elimination is the structured optimal brain surgeon of Kurtic et al., "ZipLM" (NeurIPS
    2023), here with the outputs weighted by Fisher information and over all readers of an axis.

    The loss needs a gradient that is not zero: on data without labels take :func:`drawn_cross_entropy`.
    What whole groups cost can be measured afterwards, by :func:`secateur.calibration.measure_scores`.

    Each sample is run twice, without gradients for the covariances, and by the user's loop for the
    gradients. Layers are modules without children that do one weighted sum (``nn.Linear``,
    ``nn.Conv2d``, GPT-2's ``Conv1D``); a group that no such layer reads has no score, is listed in
    ``missing``, and selectors leave it alone.

    Args:
        ir: the model.
        snapshot_name: which snapshot to score.
        damping: ridge of the covariance, as a share of its mean variance.
        normalize: see :func:`secateur.criteria.normalize_scores`.
        sample_to_model_inputs: a function from a sample to ``(args, kwargs)``.
        process_group: processes to sum over when ``torch.distributed`` is initialised.

    Raises:
        ScoreError: for a loss that is not finite, no backward, or no sample; for a bad damping.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> ir = secateur.PruningIR(model)
        >>> with secateur.ReconstructionCriterion(ir) as collect:
        ...     for x in torch.randn(3, 16, 4):
        ...         collect(x).square().mean().backward()
        >>> labels = secateur.UniformLabelSelector(0.5).select(ir)
        >>> ir.prune(labels=labels, compensate="least_squares").model[0].out_features
        4
    """

    def __init__(
        self,
        ir: Any,
        snapshot_name: str = "main",
        *,
        damping: float = 1e-2,
        normalize: Normalize | str = Normalize.NONE,
        sample_to_model_inputs: ToInputs | None = None,
        process_group: Any = None,
    ) -> None:
        super().__init__(
            ir,
            snapshot_name,
            normalize=normalize,
            sample_to_model_inputs=sample_to_model_inputs,
            process_group=process_group,
        )
        if not damping > 0:
            raise ScoreError(f"damping is a positive share of the mean variance, got {damping}")
        self._damping = damping
        self.missing: dict[str, str] = {}

    # -- collecting --------------------------------------------------------------------------------

    def _start(self, structure: Structure, stack: ExitStack) -> None:
        self._structure = structure
        modules = dict(self._ir.model.named_modules())
        weighted = _weighted_sums(structure)
        found = find_uses(structure)
        self._uses: dict[str, list[Use]] = {}
        for group in structure.groups:
            uses = [u for u in found.get(group.axis, ()) if _is_layer(u, modules, weighted, structure)]
            if uses:
                self._uses[group.name] = uses
        self.missing = {
            group.name: "no layer of its own reads it"
            for group in structure.groups
            if group.name not in self._uses
        }
        self._moments: dict[Activation, Moments] = {}
        self._weights: dict[str, torch.Tensor] = {}
        self._examples_of_batch = 1
        self._seen_gradients = 0
        for uses in self._uses.values():
            for use in uses:
                self._register(use, modules, stack)

    def _register(self, use: Use, modules: dict[str, nn.Module], stack: ExitStack) -> None:
        key, path = use.activation, use.node.module
        assert key is not None
        if key not in self._moments:
            size = self._structure.analysis.graph.values[key[0]].shape[key[1]]
            self._moments[key] = Moments.of(size, products=True)
        if path not in self._weights:
            self._weights[path] = torch.zeros(_outputs(use, self._structure), dtype=torch.float64)
            handle = modules[path].register_forward_hook(self._output_hook(path, _is_spatial(use)))
            stack.callback(handle.remove)

    def _output_hook(self, path: str, spatial: bool) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def after(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            if output.requires_grad:
                output.register_hook(gather)

        def gather(grad: torch.Tensor) -> None:
            rows = grad.movedim(1 if spatial else -1, 0).flatten(1)
            # The loss is a mean over the batch: an example's own gradient is as many times larger.
            self._weights[path] += rows.float().square().sum(1).double().cpu() * self._examples_of_batch**2
            self._seen_gradients += 1

        return after

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        snapshot = self._snapshot
        self._examples_of_batch = self._open_batch
        self._seen_gradients = 0
        wanted: dict[int, dict[int, Callable[[torch.Tensor], None]]] = {}
        taken: set[Activation] = set()
        for uses in self._uses.values():
            for use in uses:
                key = use.activation
                if key is not None and key not in taken:
                    taken.add(key)
                    wanted.setdefault(use.node.index, {})[key[0]] = self._look(key)
        watch = Watch(snapshot.graph, snapshot.settings.detail(snapshot.model), wanted)
        watch.run(self._ir.model, args, kwargs)
        return super()._run(args, kwargs)

    def _look(self, key: Activation) -> Callable[[torch.Tensor], None]:
        dim = key[1] - len(self._structure.analysis.graph.values[key[0]].shape)
        return lambda tensor: self._moments[key].add(tensor, dim)

    def _finish_batch(self, examples: int) -> bool:
        number = self.batches + 1
        if not self._seen_gradients:
            raise ScoreError(
                f"no gradient reached any layer in batch {number}: call backward() on a loss of what the "
                "collector returned, with gradients enabled"
            )
        for path, weights in self._weights.items():
            if not torch.isfinite(weights).all():
                raise ScoreError(
                    f"the gradient at the output of {path} is not finite in batch {number}: the loss was NaN "
                    "or infinite there"
                )
        return True

    # -- scores ------------------------------------------------------------------------------------

    def _sums(self) -> dict[str, torch.Tensor]:
        sums = {f"weights {path}": weights for path, weights in self._weights.items()}
        for key, moments in self._moments.items():
            sums |= {f"moments {key} {number}": own for number, own in enumerate(moments.sums)}
        return sums

    def _result(self, sums: dict[str, torch.Tensor]) -> Scores:
        owned = {name: tensor for _, name, tensor in owned_tensors(self._ir.model)}
        precisions: dict[Activation, torch.Tensor] = {}
        scores: Scores = {}
        for name, uses in self._uses.items():
            group = self._structure.group(name)
            layers = [self._layer(use, group, owned, precisions) for use in uses]
            scores[name] = eliminate(layers, group.size)
        return scores

    def _layer(
        self,
        use: Use,
        group: Group,
        owned: dict[str, torch.Tensor],
        precisions: dict[Activation, torch.Tensor],
    ) -> Layer:
        key, term = use.activation, use.parameter
        assert key is not None
        assert term is not None
        if key not in precisions:
            precisions[key] = self._precision(key)
        labels = labels_at(self._structure.analysis.dims_of(key[0])[key[1]], group.axis)
        order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        weight = owned[term.parameter].detach().double().cpu().movedim(term.dim, 0)
        matter = (self._weights[use.node.module] / self.examples).sqrt()
        rows = (weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]) * matter[:, None]
        rows = rows.flatten(1)
        positions = [torch.from_numpy(own) for own in order.reshape(group.size, -1)]
        return Layer(precisions[key].clone(), rows @ rows.t(), positions)

    def _precision(self, key: Activation) -> torch.Tensor:
        covariance = self._moments[key].shrunk()
        ridge = self._damping * covariance.diagonal().mean().clamp_min(1e-30)
        eye = torch.eye(len(covariance), dtype=torch.float64)
        return torch.cholesky_inverse(torch.linalg.cholesky(covariance + ridge * eye))


def _weighted_sums(structure: Structure) -> dict[str, int]:
    """How many weighted sums each module does itself."""
    counts: dict[str, int] = {}
    analysis = structure.analysis
    for node, operator in zip(analysis.graph.nodes, analysis.operators, strict=True):
        if operator is not None and operator.sums:
            counts[node.module] = counts.get(node.module, 0) + 1
    return counts


def _is_layer(
    use: Use, modules: dict[str, nn.Module], weighted: dict[str, int], structure: Structure
) -> bool:
    module = modules.get(use.node.module)
    if use.parameter is None or use.activation is None or module is None:
        return False
    values = structure.analysis.graph.values
    size = values[use.activation[0]].shape[use.activation[1]]
    shapes = {value.name: value.shape for value in values if value.names}
    grouped = shapes[use.parameter.parameter][use.parameter.dim] != size
    return not grouped and next(module.children(), None) is None and weighted[use.node.module] == 1


def _is_spatial(use: Use) -> bool:
    return "conv" in str(use.node.op)


def _outputs(use: Use, structure: Structure) -> int:
    """Features of the layer's result."""
    shape = structure.analysis.graph.values[use.node.outputs[0]].shape
    return shape[1 if _is_spatial(use) else -1]
