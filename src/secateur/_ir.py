"""``PruningIR``: a model that can be looked at, masked and cut."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ._cutting import cut
from ._errors import LabelError, RecoveryError
from ._snapshot import LeafModules, Settings, Snapshot, parameter_names
from .axes import Group, Keep, Label, Pin, reach
from .calibration import Compensate, Compensated, compensated, compensation_for, create_biases
from .capture import owned_tensors, unwrap
from .recovery import Recovery, RecoveryReport, recover
from .report import PruneReport, Table, explain_structure
from .surgery import masked_model, removed_positions


class Origin(NamedTuple):
    """Where a small model comes from. The original is not kept alive for it."""

    name: str
    snapshot: weakref.ref[Snapshot]
    keep: Keep


class PruningIR:
    """A model with everything that is known of its structure.

    Args:
        model: any ``nn.Module``, also inside ``DataParallel``, ``DistributedDataParallel`` or
            ``torch.compile``; an ``ExportedProgram`` or ``GraphModule`` too. Only read, until
            :meth:`prune` is told ``inplace=True``.
        leaf_modules: modules to keep whole (paths, classes or the modules themselves): what goes in
            and comes out of them is pinned.
        soft_tracing: pin and list what cannot be followed; with False it raises instead.
        attention: which axes of attention to offer: ``"heads"``, ``"features"`` or ``"both"``.
        ignore: modules (paths or objects) whose outputs are to stay as they are, or parameters.
        output: ``"module"`` cuts the user's own class, as far as its code can follow; ``"graph"``
            makes :meth:`prune` return a ``torch.fx.GraphModule`` in which every size is rewritten, so
            the code has no say in what may be cut. Default: ``"module"``, but for a ``GraphModule``
            (or ``ExportedProgram``) ``"graph"``.

    Raises:
        UnsupportedModelError: for TorchScript, and for things that are no module.

    Example:
        >>> import torch, secateur
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> ir = secateur.PruningIR(model)
        >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 4),))
        >>> [(group.name, group.size) for group in ir.groups()]
        [('0', 8)]
        >>> labels = secateur.UniformLabelSelector(pruning_ratio=0.5).select(ir)
        >>> ir.prune(labels=labels).model[0]
        Linear(in_features=4, out_features=4, bias=True)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        leaf_modules: LeafModules | None = None,
        soft_tracing: bool = True,
        attention: str = "both",
        ignore: Iterable[str | nn.Module | nn.Parameter] = (),
        output: str | None = None,
    ) -> None:
        if attention not in ("heads", "features", "both"):
            raise LabelError(f"attention is 'heads', 'features' or 'both', got {attention!r}")
        self._given = model
        self._model = unwrap(model)
        output = output or ("graph" if isinstance(self._model, fx.GraphModule) else "module")
        self._settings = Settings(
            tuple(leaf_modules or ()), soft_tracing, attention, tuple(ignore), _known_output(output)
        )
        self._snapshots: dict[str, Snapshot] = {}
        self._cut = False
        self._origin: Origin | None = None
        self.report: PruneReport | None = None

    @property
    def model(self) -> nn.Module:
        """The model itself (without a ``DataParallel`` or ``torch.compile`` around it)."""
        return self._model

    @property
    def snapshot_names(self) -> list[str]:
        """Names of all snapshots, in the order that they were created."""
        return list(self._snapshots)

    def create_snapshot(
        self, name: str = "main", args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Snapshot:
        """Give the model a set of inputs to be recorded at, under a name.

        The inputs are kept (as references) for verification; tensors may sit anywhere in nested
        tuples, lists, dicts and dataclasses. An existing snapshot of that name is replaced.

        Raises:
            TypeError: if ``args`` is no tuple or list (a single tensor belongs into a tuple).
        """
        if isinstance(args, torch.Tensor) or not isinstance(args, (tuple, list)):
            raise TypeError(
                f"args is the tuple of positional inputs, got {type(args).__name__}: write args=(x,)"
            )
        snapshot = Snapshot(name, self._model, tuple(args), dict(kwargs or {}), self._settings)
        self._snapshots[name] = snapshot
        return snapshot

    def snapshot(self, name: str = "main") -> Snapshot:
        """The snapshot of that name.

        Raises:
            LabelError: if there is none.
        """
        if self._cut:
            raise LabelError(
                "the model of this PruningIR has been cut in place: go on with the PruningIR that "
                "prune(inplace=True) returned"
            )
        if name not in self._snapshots:
            known = ", ".join(map(repr, self._snapshots)) or "none yet"
            raise LabelError(
                f"there is no snapshot {name!r} (known: {known}). Record the model first: "
                f"ir.create_snapshot({name!r}, args=(x,))"
            )
        return self._snapshots[name]

    def groups(self, name: str = "main") -> Table[Group]:
        """All axes that may be shortened. Prints as a table.

        The first call records and analyses the model.

        Raises:
            CaptureError: if the model cannot be run on the snapshot's inputs.
        """
        return Table(
            self.snapshot(name).structure.groups,
            ["group", "size", "role", "exact", "reaches"],
            lambda g: [g.name, g.size, g.role, "yes" if g.exact else "; ".join(g.reasons), _members(g)],
        )

    def pinned(self, name: str = "main") -> Table[Pin]:
        """Every other axis of a parameter, and why it may not be shortened. Prints as a table."""
        return Table(
            self.snapshot(name).structure.pins,
            ["axis", "size", "why", "operator", "module", "line"],
            lambda p: [p.name, p.size, p.reason, p.operator, p.module, p.site],
        )

    def explain(self, name: str = "main") -> str:
        """All that stands in the way of a cut, as text.

        Tables of the pinned axes (with the operator, the module and the line of code that decided)
        and of the inexact groups; for every operator without a rule the skeleton of one.
        """
        return explain_structure(self.snapshot(name).structure)

    def reach(self, name: str = "main") -> float:
        """Share of all parameter elements that at least one group can take off."""
        return reach(self.snapshot(name).structure)

    def scores(self, name: str = "main") -> dict[str, torch.Tensor]:
        """The scores of a snapshot: what a criterion collected, or else group magnitude (L2)."""
        return self.snapshot(name).current_scores()

    def masked(self, name: str = "main", *, labels: Iterable[Label]) -> nn.Module:
        """The original architecture with everything that ``labels`` touch set to zero.

        A copy; it is the reference that :meth:`prune` is verified against.
        """
        structure = self.snapshot(name).structure
        return masked_model(self._model, structure, removed_positions(structure, labels))

    def prune(
        self,
        name: str = "main",
        *,
        labels: Iterable[Label],
        inplace: bool = False,
        skip_label_checking: bool = False,
        verify: bool = True,
        output: str | None = None,
        compensate: Compensate | str | None = None,
        calibration: Iterable[Any] | None = None,
        recover: Recovery | Iterable[Any] | None = None,
    ) -> PruningIR:
        """Take labels off and return the IR of the smaller model, with a ``report``.

        Args:
            name: the snapshot whose groups the labels belong to.
            labels: what to remove. None (an empty list) gives a copy.
            inplace: cut the given model itself instead of a copy.
            skip_label_checking: take labels of another IR of an equal structure.
            verify: compare the result with the masked model on every snapshot's inputs and on one
                random draw. Costs two more forwards each; outputs are equal to 1e-4 in float32
                and 1e-9 in float64, else the cut is taken back.
            output: ``"module"`` or ``"graph"``, as in the constructor, whose word it has by default.
            compensate: ``"mean"`` folds the mean activation of what is removed into the biases of the
                layers that read it, ``"least_squares"`` its nearest combination of what stays into
                their weights too; see :class:`secateur.calibration.Compensate`. The reference of
                verification is compensated alike.
            calibration: samples to compensate by, as for criteria; by default the snapshot's inputs.
            recover: calibration samples, or a :class:`Recovery`: after verification the layers that
                read what was cut are solved for anew, as by :meth:`recover`. With ``inplace=True`` a
                copy is recovered first, so a failure leaves the model as it was.

        Raises:
            LabelError: for labels that do not fit this model.
            SurgeryError: if the model's code cannot follow; nothing has been changed.
            VerificationError: if only exact groups were cut and outputs differ; nothing has changed.
            RecoveryError: if there is nothing to recover by; nothing has been changed.
        """
        snapshot = self.snapshot(name)
        output = _known_output(output or self._settings.output)
        if inplace and output == "graph":
            raise LabelError('output="graph" makes a new module: it cannot be had with inplace=True')
        labels = list(labels)
        if skip_label_checking:
            labels = [Label(label.group, label.index) for label in labels]
        if recover is not None and inplace:
            return self._prune_and_recover_inplace(name, labels, verify, compensate, calibration, recover)
        change = compensation_for(snapshot, labels, compensate, calibration) if compensate else Compensated()
        with compensated(self._model, change, inplace=inplace):
            model, report = cut(
                snapshot,
                labels,
                list(self._snapshots.values()),
                inplace=inplace,
                verify=verify,
                output=output,
            )
        if output == "module":
            create_biases(model, change, report.plan)
        small = PruningIR(
            model,
            leaf_modules=self._settings.leaf_modules if inplace else _portable(self._settings.leaf_modules),
            soft_tracing=self._settings.soft_tracing,
            attention=self._settings.attention,
            ignore=_by_name(self._model, self._settings.ignore),
        )
        for other in self._snapshots.values():
            small.create_snapshot(other.name, other.args, other.kwargs)
        small.report = report
        if inplace:
            self._cut = True
        else:
            small._origin = Origin(name, weakref.ref(snapshot), report.plan.keep)
        if recover is not None:
            small.recover(recover)
        return small

    def recover(self, how: Recovery | Iterable[Any]) -> RecoveryReport:
        """Get back, without training, what the cut that led to this model has cost. In place.

        Every layer that reads a cut axis is solved for in closed form: the weights that reproduce
        best, from what the small model feeds it, what the original's layer put out. No labels and no
        gradients are needed, and about as much time as two passes over the samples. The result is also
        in ``report.recovery``. See ``docs/recovery.md``.

        Args:
            how: calibration samples as a data loader gives them, or a :class:`Recovery` with settings.

        Raises:
            RecoveryError: if there is no sample, or if the original is not there any more (cut in place,
                or its PruningIR deleted): then use ``prune(..., recover=...)``.

        Example:
            >>> import torch, secateur
            >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> ir = secateur.PruningIR(model)
            >>> _ = ir.create_snapshot("main", args=(torch.ones(1, 4),))
            >>> small = ir.prune(labels=secateur.UniformLabelSelector(0.5).select(ir))
            >>> report = small.recover(torch.randn(10, 64, 4))
            >>> report.stages[0].layer, report.after < report.before
            ('2', True)
        """
        how = how if isinstance(how, Recovery) else Recovery(how)
        snapshot = None if self._origin is None else self._origin.snapshot()
        if self._origin is None or snapshot is None:
            raise RecoveryError(
                "there is no original to recover from: it was cut in place, or its PruningIR is gone. "
                "Recover as part of the cut: ir.prune(labels=..., recover=loader)"
            )
        with torch.inference_mode(False):
            own = self.snapshot(self._origin.name)
            report = recover(snapshot, own, self._origin.keep, how)
        if self.report is not None:
            self.report.recovery = report
        return report

    def _prune_and_recover_inplace(
        self,
        name: str,
        labels: list[Label],
        verify: bool,
        compensate: Compensate | str | None,
        calibration: Iterable[Any] | None,
        how: Recovery | Iterable[Any],
    ) -> PruningIR:
        """Cut and recover a copy, then the model itself, which takes over the copy's values."""
        calibration = None if calibration is None else list(calibration)
        copy = self.prune(
            name, labels=labels, verify=verify, compensate=compensate, calibration=calibration, recover=how
        )
        small = self.prune(
            name, labels=labels, inplace=True, verify=False, compensate=compensate, calibration=calibration
        )
        recovered = {path: tensor for _, path, tensor in owned_tensors(copy.model)}
        for _, path, tensor in owned_tensors(small.model):
            tensor.detach().copy_(recovered[path].detach())
        assert copy.report is not None
        assert small.report is not None
        small.report.recovery = copy.report.recovery
        small.report.verification = copy.report.verification
        return small

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_origin": None}  # the original is not part of the small model

    def __repr__(self) -> str:
        return f"PruningIR({type(self._model).__name__}, snapshots={list(self._snapshots)})"


def _members(group: Group) -> str:
    names = [f"{name}[{dim}]" for name, dim in group.parameters]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _known_output(output: str) -> str:
    if output not in ("module", "graph"):
        raise LabelError(f"output is 'module' or 'graph', got {output!r}")
    return output


def _by_name(model: nn.Module, ignored: Iterable[str | nn.Module | nn.Parameter]) -> Iterator[str]:
    # Modules and parameters of the original mean nothing to the small model; their names do.
    for what in ignored:
        yield from [what] if isinstance(what, str) else parameter_names(model, what)


def _portable(leaves: Iterable[Any]) -> tuple[Any, ...]:
    # A module of the original means nothing to its copy.
    return tuple(leaf for leaf in leaves if isinstance(leaf, (str, type)))
