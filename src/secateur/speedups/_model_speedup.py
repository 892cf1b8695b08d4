"""``ModelSpeedup``: NNI's class, in both generations of its signature, on the exact engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._errors import SurgeryError
from ..capture import Node, unwrap
from ..masks import Known, MaskDict, check_masks, read_masks
from ._boundary import boundary
from ._custom_engine import CustomEngine, CustomSettings
from ._customize import DefaultReplacer, MaskUpdater, ModuleMasks, ReplaceFunction
from ._report import SpeedupReport


class ModelSpeedup:
    """Makes a masked model smaller, in place (NNI's ``ModelSpeedup``).

    Takes NNI 2's arguments and, as keywords, those of 3.0. Nothing here is inferred from random data,
    so ``confidence``, ``batch_size`` and ``batch_dim`` change nothing, and ``garbage_collect_values``
    and ``logger`` are taken and not needed.

    Args:
        model: the model; :meth:`speedup_model` changes it and gives it back.
        dummy_input: a tensor, a tuple or list of positional inputs, or a dict of keyword inputs.
        masks_file: ``{module: {target: mask}}`` (see :func:`secateur.speedup`) or the path of a file.
        map_location: device to load a file's masks on.
        batch_dim: not needed.
        confidence: not needed; 1 is as good as any.
        customized_replacers: objects that replace composite modules before the others are cut.
        customized_replace_func: ``{type name: function(module, masks) -> module}``, see
            :class:`DefaultReplacer`.
        masks_or_file: 3.0's name of ``masks_file``.
        batch_size: 3.0's name of ``confidence``.
        customized_mask_updaters: objects that know what an operator or module of yours makes of masks.
        graph_module: a ``torch.fx.GraphModule`` of the model, to be recorded and changed in its place;
            its modules are the model's own.
        on_inexact: see :func:`secateur.speedup`.
        statistics: likewise.
        verify: compare outputs with the masked model's.

    Raises:
        MaskError: for masks that do not fit the model, or a file that holds none.

    Example:
        >>> import torch
        >>> from secateur.compression.speedup import ModelSpeedup
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.Conv2d(6, 4, 3))
        >>> mask = torch.ones(6, 1, 3, 3)
        >>> mask[0:3] = 0
        >>> small = ModelSpeedup(net, torch.rand(8, 1, 9, 9), {"0": {"weight": mask}}).speedup_model()
        >>> small[0].out_channels, small[1].in_channels
        (3, 3)
    """

    def __init__(
        self,
        model: nn.Module,
        dummy_input: Any,
        masks_file: MaskDict | str | Path | None = None,
        map_location: Any = None,
        batch_dim: int = 0,
        confidence: int = 8,
        customized_replacers: Sequence[Any] | None = None,
        customized_replace_func: Mapping[str, ReplaceFunction] | Sequence[Any] | None = None,
        *,
        masks_or_file: MaskDict | str | Path | None = None,
        batch_size: int | None = None,
        customized_mask_updaters: Sequence[MaskUpdater] | None = None,
        graph_module: torch.fx.GraphModule | None = None,
        garbage_collect_values: bool = True,
        logger: Any = None,
        on_inexact: Literal["fold", "keep", "raise"] = "fold",
        statistics: Literal["keep", "shrink"] = "keep",
        verify: bool = True,
    ) -> None:
        masks = masks_or_file if masks_file is None else masks_file
        if masks is None:
            raise TypeError("ModelSpeedup needs masks: a dict {module: {target: mask}} or the path of a file")
        # The model is read here, and written only by replace_compressed_modules.
        self.bound_model = unwrap(graph_module if graph_module is not None else model)
        self.masks = read_masks(masks, map_location) if isinstance(masks, (str, Path)) else masks
        found = check_masks(self.masks, self.bound_model)
        args, kwargs = dummy_inputs(dummy_input)
        given = [*(customized_replacers or ()), *(customized_mask_updaters or ())]
        functions: Mapping[str, ReplaceFunction] = {}
        if isinstance(customized_replace_func, Mapping):
            functions = customized_replace_func
        else:  # 3.0 has updaters and replacers in these places
            given += list(customized_replace_func or ())
        self.mask_updaters: list[MaskUpdater] = [item for item in given if hasattr(item, "detect")]
        self.replacers: list[Any] = [item for item in given if not hasattr(item, "detect")]
        if functions:
            self.replacers.append(DefaultReplacer(functions))
        types = tuple(t for u in self.mask_updaters for t in getattr(u, "module_types", ()))
        settings = CustomSettings(module_types=types)
        self._engine = CustomEngine(
            self.bound_model, args, kwargs, found, on_inexact, statistics, verify, settings, speedup=self
        )
        self._stage = 0
        self.replaced: dict[str, nn.Module] = {}
        self.report: SpeedupReport | None = None

    @cached_property
    def node_infos(self) -> list[Node]:
        """The recorded operator calls, in the order that they ran."""
        self._reach(1)
        return self._engine.snapshot.graph.nodes

    # -- stages ------------------------------------------------------------------------------------

    def speedup_model(self) -> nn.Module:
        """Do everything, and return the model, which is now smaller; ``report`` says what happened.

        Raises:
            CaptureError: if the model cannot be run on the dummy input.
            SurgeryError: if a mask cannot be realised.
            VerificationError: if outputs differ though everything is exact. In every case the model is
                as it was.
        """
        self.initialize_speedup()
        self.infer_modules_masks()
        self.replace_compressed_modules()
        return self.bound_model

    run = speedup_model

    def initialize_speedup(self) -> None:
        """Record the masked model and find its axes."""
        if self._stage < 1:
            self._engine.record()
            self._stage = 1

    def infer_modules_masks(self) -> None:
        """Follow constants forward and needs backward, until nothing changes any more."""
        self._reach(1)
        if self._stage < 2:
            with self._engine.stage("constants"):
                self._engine.start_inference()
                for node in self.node_infos:
                    self.update_direct_sparsity(node)
                self._engine.finish_inference()
            with self._engine.stage("decide"):
                while any([self.update_indirect_sparsity(node) for node in reversed(self.node_infos)]):
                    pass
            self._engine.decide()
            self._stage = 2

    def update_direct_sparsity(self, node: Node) -> None:
        """Forward through one node: which positions of its results are constant, with which value."""
        self._engine.direct(node)

    def update_indirect_sparsity(self, node: Node) -> bool:
        """Backward through one node: give back labels that it needs; whether there were any."""
        for updater in self.mask_updaters:
            if updater.detect(self, node):
                updater.indirect_update_process(self, node)
        return self._engine.indirect(node)

    def replace_compressed_modules(self) -> None:
        """Cut the model, fold constants, replace modules, and compare outputs."""
        self._reach(2)
        if self._stage < 3:
            self.report = self._engine.operate()
            self._stage = 3

    def _reach(self, stage: int) -> None:
        if stage >= 1:
            self.initialize_speedup()
        if stage >= 2:
            self.infer_modules_masks()

    # -- for customisation -------------------------------------------------------------------------

    def known_of(self, tensor: int) -> Known:
        """What is known of a tensor, by its id in a node, at this point of the forward sweep."""
        return self._engine.known_of(tensor)

    @property
    def inferred_masks(self) -> dict[str, dict[str, Tensor]]:
        """Masks of all parameters after inference: what is removed, and what was masked."""
        self._reach(2)
        masks: dict[str, dict[str, Tensor]] = {}
        for path, module in self.bound_model.named_modules():
            own = {
                name: self._engine.mask_of_parameter(f"{path}.{name}".lstrip("."))
                for name in module._parameters
            }
            found = {name: mask for name, mask in own.items() if mask is not None}
            if found:
                masks[path] = found
        return masks

    def module_masks(self, path: str) -> ModuleMasks:
        """Masks of a module's inputs, output and parameters after inference; 1 is kept.

        Shapes are those of the recorded tensors. Inputs are in the order that the module reads them.
        """
        self._reach(2)
        engine = self._engine
        inputs, outputs = boundary(engine.snapshot.graph, path)
        parameters = {
            name: mask
            for name, _ in self.bound_model.get_submodule(path).named_parameters()
            if (mask := engine.mask_of_parameter(f"{path}.{name}".lstrip("."))) is not None
        }
        made = [engine.mask_of_tensor(id_) for id_ in outputs]
        return [engine.mask_of_tensor(id_) for id_ in inputs], made[0] if len(made) == 1 else made, parameters

    def replace_module(self, path: str, module: nn.Module) -> None:
        """Put another module at a path of the model; for replacers.

        Raises:
            SurgeryError: outside of :meth:`Replacer.replace_modules`.
        """
        if self._engine.replacing is None:
            raise SurgeryError("modules are replaced by replace_compressed_modules, from a Replacer")
        owner, _, name = path.rpartition(".")
        parent = self.bound_model.get_submodule(owner)
        before = parent._modules[name]
        self._engine.replacing.note(lambda: parent._modules.update({name: before}))
        assert before is not None
        module.train(before.training)
        parent._modules[name] = module
        self.replaced[path] = module


def dummy_inputs(dummy_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and keyword arguments of one call: NNI's ``dummy_input`` may be any of three things.

    >>> dummy_inputs([1, 2]), dummy_inputs({"x": 1}), dummy_inputs(torch.ones(1))
    (((1, 2), {}), ((), {'x': 1}), ((tensor([1.]),), {}))
    """
    if isinstance(dummy_input, Mapping):
        return (), dict(dummy_input)
    if isinstance(dummy_input, (tuple, list)):
        return tuple(dummy_input), {}
    return (dummy_input,), {}
