"""One speed-up from masks to verified small model: record, infer, decide, operate, compare."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import CaptureError, MaskError, SurgeryError, VerificationError
from .._snapshot import Settings, Snapshot
from ..axes import Leaf, Positions
from ..capture import Node, without_gc
from ..cost import count_macs, count_parameters
from ..masks import (
    ActivationMask,
    Block,
    Constants,
    Exit,
    FixedExit,
    Forward,
    Masks,
    Removal,
    Terms,
    Update,
    Why,
    find_competitions,
    find_exits,
    release_competitors,
    start_removal,
)
from ..persistence import note_cut
from ..surgery import Plan, Replayed, Undo, build_plan, cut_inplace, explain, keep_sets, unfoldable
from ..verification import Observer, Verification
from ._activations import leftovers, masking_hooks, refuse_leftovers, to_parameters
from ._align import Pair, find_alignment, reorder, reorder_masks
from ._bake import bake, bake_slices, baked
from ._fold import Fold, add_to_biases, create_biases, disagreements, find_folds
from ._origins import find_origins
from ._report import ModuleChange, SpeedupReport, describe_modules
from ._stand_in import Merge, StandIns, merge_columns
from ._why import Explainer

MODES = ("fold", "keep", "raise")


@dataclass
class Decision:
    """What goes, and what is folded for it."""

    removal: Removal
    keep: dict[Leaf, Positions]
    folds: list[Fold]
    merges: list[Merge]
    orders: list[tuple[Pair, Tensor]]
    replayed: Replayed


@dataclass
class Engine:
    """The stages of a speed-up; every one can be run on its own, in this order.

    Nothing of the model changes before :meth:`operate`, and nothing if that fails.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    masks: Masks
    on_inexact: str = "fold"
    statistics: str = "keep"
    verify: bool = True
    settings: Settings = field(default_factory=Settings)
    seconds: dict[str, float] = field(default_factory=dict)
    hooked: list[ActivationMask] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_inexact not in MODES:
            raise ValueError(f"on_inexact is one of {MODES}, got {self.on_inexact!r}")
        if self.statistics not in ("keep", "shrink"):
            raise ValueError(f"statistics is 'keep' or 'shrink', got {self.statistics!r}")

    def record(self) -> None:
        """Run the masked model once and find its axes."""
        self.hooked = to_parameters(self.masks, self.model)
        self.snapshot = self.make_snapshot()
        with baked(self.model, self.masks.parameters), masking_hooks(self.model, self.hooked):
            try:
                if any(mask.additive for mask in self.hooked):
                    release_competitors(self.snapshot.analysis)
                self.structure = self.snapshot.structure
            except CaptureError as error:
                if isinstance(error.__cause__, MaskError):
                    raise error.__cause__ from None
                raise
            self._stated = unfoldable(self.snapshot.code)
        self.seconds |= self.snapshot.seconds

    def make_snapshot(self) -> Snapshot:
        """The snapshot that is recorded."""
        return Snapshot("speedup", self.model, self.args, self.kwargs, self.settings)

    def infer(self) -> None:
        """Follow constants through the graph."""
        with self.stage("constants"):
            self.start_inference()
            for node in self.snapshot.graph.nodes:
                self.direct(node)
            self.finish_inference()

    def start_inference(self) -> None:
        """Before the first :meth:`direct`."""
        with masking_hooks(self.model, self.hooked):
            self._forward = Forward(self.snapshot.analysis, self.model, self.masks.parameters, self.updates())

    def direct(self, node: Node) -> None:
        """What is known of the results of one node, given what is known of its operands."""
        self._forward.update(node)

    def finish_inference(self) -> None:
        """After the last :meth:`direct`: nothing is removed yet, and nothing is decided to stay."""
        self.constants = self._forward.constants
        self.alignment = find_alignment(self.structure, self.constants)  # first: exits ask of joint axes too
        self.exits = self.find_exits(self.constants)
        self.removal = start_removal(self.alignment.axes(self.structure), self.exits)

    def indirect(self, node: Node) -> bool:
        """Give back the labels that one node needs; whether that changed anything."""
        changed = False
        for exit_ in self.exits:
            if exit_.node is node:
                changed |= any([self.removal.keep(b) for b in exit_.blocks(self.removal.removed, self.terms)])
        return changed

    @property
    def terms(self) -> Terms:
        """What may be removed."""
        exact, border = self.on_inexact != "fold", self.on_inexact == "keep"
        return Terms(exact, border, statistics=self.statistics == "shrink")

    def updates(self) -> dict[int, Update]:
        """A place for customisation: what to use instead of an operator's own transfer, by node."""
        return {}

    def find_exits(self, constants: Constants) -> list[Exit]:
        """Where axes end, and what is asked there."""
        exits = [*find_exits(constants), *find_competitions(constants)]
        resolve = self.snapshot.analysis.algebra.resolve
        for dim, reason in self._stated:
            axes = dict.fromkeys(axis for axis, _, _ in constants.addresses.of(resolve(dim)))
            every = [
                Block(axis, torch.ones(axis.size, dtype=torch.bool), Why.STATISTICS, None, reason)
                for axis in axes
            ]
            exits.append(FixedExit(axes, every, []))
        return exits

    def decide(self) -> Decision:
        """Choose the labels to remove and the constants to fold.

        Raises:
            SurgeryError: with ``on_inexact="raise"``, if something masked could only be removed inexactly.
        """
        with self.stage("decide"):
            decision = self._decide(self.terms)
            if self.on_inexact == "raise":
                self._refuse_inexact(decision)
        self.decision = decision
        return decision

    def _decide(self, terms: Terms) -> Decision:
        removal = self.removal
        removal.settle(self.exits, terms)
        stand_ins = StandIns()
        while True:
            demands = self.alignment.surplus(removal)
            keep, zeroed = keep_sets(self.structure, self.alignment.positions(removal))
            demands += [self._of_label(label.group, label.index) for label in zeroed]
            merges: list[Merge] = []
            if terms.border:
                merges, more = stand_ins.settle(self.exits, removal.removed)
                demands += more
            folds: list[Fold] = []
            if not demands:
                folds, disagreeing = find_folds(self.exits, removal.removed, exact=terms.exact)
                demands += disagreements(disagreeing)
            replayed = Replayed()
            if not demands and keep:
                replayed = self.snapshot.code.replay(keep, self.snapshot.following.bindings.values())
                demands += self._of_code(replayed, keep)
            if not demands:
                return Decision(removal, keep, folds, merges, self.alignment.orders(removal), replayed)
            if not any([removal.keep(block) for block in demands]):
                raise SurgeryError(f"{explain(replayed)}. Nothing has been changed.")
            removal.settle(self.exits, terms)

    def _of_label(self, group: str, index: int) -> Block:
        axis = self.structure.group(group).axis
        aligned = self.alignment.one_less(axis, self.removal)
        if aligned is not None:
            return aligned
        labels = torch.zeros(axis.size, dtype=torch.bool)
        labels[index] = True
        return Block(axis, labels, Why.BALANCE)

    def _of_code(self, replayed: Replayed, keep: Mapping[Leaf, Positions]) -> list[Block]:
        """Axes that the code does not follow to these very sizes: they stay whole."""
        if replayed.clean:
            return []
        analysis = self.snapshot.analysis
        nodes = [mismatch.node for mismatch in replayed.mismatches[:1]] or analysis.graph.nodes[
            max(0, replayed.reached - 3) : replayed.reached + 1
        ]
        axes = [
            axis
            for node in nodes
            for id_ in (*node.inputs, *node.outputs)
            for dim in analysis.dims_of(id_)
            for axis in analysis.algebra.leaves(dim)
            if axis in keep
        ]
        text = explain(replayed)
        found = [self.alignment.removed_by(axis) for axis in (axes or keep)]
        return [Block(a, torch.ones(a.size, dtype=torch.bool), Why.CODE, None, text) for a in found]

    def _refuse_inexact(self, decision: Decision) -> None:
        start = start_removal(self.alignment.axes(self.structure), self.exits)
        start.settle(self.exits, Terms(exact=False, statistics=self.terms.statistics))
        more = start.removed
        names = self.alignment.names(self.structure)
        lines = []
        for block in decision.removal.kept_by:
            lost = block.labels & more.get(block.axis, torch.zeros_like(block.labels))
            if block.why is Why.BORDER and bool(lost.any()):
                where = f" (in {block.node})" if block.node is not None else ""
                why = block.text or block.why.value
                lines.append(f"{names[block.axis]}, {int(lost.sum())} of {len(lost)}: {why}{where}")
        if lines:
            raise SurgeryError(
                "these masked positions cannot be removed without changing the outputs a little:\n"
                + "\n".join(lines[:20])
                + '\non_inexact="keep" keeps them, "fold" removes them and reports the error. '
                "Nothing has been changed."
            )

    # -- surgery -----------------------------------------------------------------------------------

    def operate(self) -> SpeedupReport:
        """Carry the decision out on the model, in place.

        Raises:
            SurgeryError: if a mask would be lost.
            VerificationError: if everything is exact and the outputs differ all the same.
        """
        undo = Undo()
        try:
            return self._operate(undo)
        except BaseException:
            undo.restore()
            raise

    def _operate(self, undo: Undo) -> SpeedupReport:
        decision, code = self.decision, self.snapshot.following
        plan = build_plan(self.structure, decision.keep, (), code.bindings.values(), decision.replayed.scales)
        observer = (
            Observer([self.snapshot.recorded()]) if self.verify and not self._without_values() else None
        )
        masks, texts = self.masks.parameters, describe_modules(self.model, plan)
        with masking_hooks(self.model, self.hooked) as hooked:
            if observer is not None:
                with self.stage("reference"), baked(self.model, masks):
                    observer.reference(self.model)
            with self.stage("surgery"):
                first = {*self._written(), *self.needed_whole()}
                bake(self.model, {name: keep for name, keep in masks.items() if name in first}, undo)
                add_to_biases(self.model, decision.folds, undo)
                merge_columns(self.model, decision.merges, decision.removal.removed, undo)
                reorder(self.model, self.snapshot.analysis, decision.orders, undo)
                own = self.replace(plan, undo)
                cut_inplace(self.model, own, undo)
                rest = {name: keep for name, keep in masks.items() if name not in first}
                rest = reorder_masks(rest, self.snapshot.analysis, decision.orders)
                bake_slices(self.model, rest, own, undo)
                create_biases(self.model, decision.folds, decision.orders, own, undo)
            refuse_leftovers(leftovers(self.model, hooked))
        verification = None
        if observer is not None:
            with self.stage("verification"):
                verification = observer.compare(self.model)
        after = describe_modules(self.model, plan)
        modules = [ModuleChange(path, text, after.get(path, "replaced")) for path, text in texts.items()]
        report = self._report(plan, modules, verification)
        self._judge(report)
        note_cut(self.model, plan)
        return report

    def _without_values(self) -> bool:
        """Whether anything is on the ``meta`` device, so that there is nothing to compare."""
        return any(value.device.type == "meta" for value in self.snapshot.graph.values)

    def _written(self) -> Iterator[str]:
        """Parameters that something is added to at their full size."""
        yield from (fold.place.name for fold in self.decision.folds)
        yield from (merge.exit.reading.weight for merge in self.decision.merges)

    def needed_whole(self) -> Iterable[str]:
        """A place for customisation: parameters that are to be masked before modules are replaced."""
        return ()

    def replace(self, plan: Plan, undo: Undo) -> Plan:
        """A place for customisation: replace modules, and return the plan for the others."""
        return plan

    def _report(
        self, plan: Plan, modules: list[ModuleChange], verification: Verification | None
    ) -> SpeedupReport:
        analysis, removal = self.snapshot.analysis, self.decision.removal
        with self.stage("report"):
            joined = {pair.inner for pair in self.alignment.pairs}
            why = Explainer(self.structure, self.constants, self.masks, removal, self.model, joined)
            staying, scattered = why.stays(), why.scattered()
        return SpeedupReport(
            parameters=(count_parameters(analysis), sum(p.numel() for p in self.model.parameters())),
            macs=(count_macs(analysis), count_macs(analysis, plan.keep)),
            asked=self.masks.sparsity,
            modules=modules,
            plan=plan,
            folded=[fold.folded() for fold in self.decision.folds],
            inexact=self._inexact(removal),
            stays=staying,
            scattered=scattered,
            operators=len(analysis.graph.nodes),
            verification=verification,
            origins=find_origins(plan, analysis, self.decision.orders),
            seconds=dict(self.seconds),
        )

    def _inexact(self, removal: Removal) -> list[str]:
        """What was done that changes the outputs."""
        names = self.alignment.names(self.structure)
        lines = [
            f"{fold.place.name}: {fold.constants} constants, not exact at the border of padded zeros"
            for fold in self.decision.folds
            if not fold.exact
        ]
        for exit_ in self.exits:
            for block in exit_.blocks({}, Terms(exact=True)) if isinstance(exit_, FixedExit) else ():
                gone = removal.removed.get(block.axis)
                if block.why is Why.STATISTICS and gone is not None and bool(gone.any()):
                    lines.append(f"{names[block.axis]}: {int(gone.sum())} removed, and {block.text}")
        return lines

    def _judge(self, report: SpeedupReport) -> None:
        verification = report.verification
        if (
            verification is None
            or verification.passed
            or (report.inexact and verification.error == verification.error)
        ):
            return
        if verification.error == float("inf"):
            raise VerificationError(
                "only one of the masked and the small model puts out finite values. Masks can do that: a row "
                "that is masked as a whole and divided by its norm (weight_norm) is not a number. "
                "The model is as it was."
            )
        raise VerificationError(
            f"the small model differs from the masked model by a relative error of {verification.error:.2e} "
            f"(tolerance {verification.tolerance:.0e}), though every step is exact. The model is as it was. "
            "This is a defect of Secateur or of a custom rule: please report it with the model."
        )

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Run one stage: without Python's garbage collector, its wall time added to ``seconds``."""
        start = time.perf_counter()
        try:
            with without_gc():
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
