"""What a speed-up did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..report import render
from ..surgery import Plan
from ..verification import Verification
from ._fold import Folded


@dataclass(frozen=True)
class Staying:
    """Masked positions that could not be taken off, and why.

    Attributes:
        module: path of the module that the mask is on.
        target: the target of the mask, such as ``weight``.
        what: what the positions are there, such as ``channel`` or ``input channel``.
        positions: their numbers in the original module.
        reason: what keeps them.
    """

    module: str
    target: str
    what: str
    positions: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.positions[:6])) + ", ..." * (len(self.positions) > 6)
        many = len(self.positions) > 1
        word = self.what + "s" * many
        return f"{self.module} {word} {numbers} {'stay' if many else 'stays'}: {self.reason}"


@dataclass(frozen=True)
class ModuleChange:
    """A module that was made smaller: its path, and what it printed as before and after."""

    path: str
    before: str
    after: str


def describe_modules(model: nn.Module, plan: Plan) -> dict[str, str]:
    """What every module prints as that owns a tensor of the plan; the tensors where it says nothing."""
    tensors: dict[str, list[str]] = {}
    for change in plan.tensors:
        for name in change.names:
            tensors.setdefault(name.rpartition(".")[0], []).append(name)
    modules = dict(model.named_modules(remove_duplicate=False))
    texts = {}
    for path, names in tensors.items():
        if path not in modules:  # a replacer made something else of what it was in
            continue
        module = modules[path]
        sizes = {name: getattr(module, name.rpartition(".")[2], None) for name in names}
        own = module.extra_repr() or ", ".join(
            f"{name.rpartition('.')[2]} {tuple(tensor.shape)}"
            for name, tensor in sizes.items()
            if isinstance(tensor, torch.Tensor)
        )
        texts[path] = f"{type(module).__name__}({own})"
    return texts


@dataclass
class SpeedupReport:
    """What a speed-up did to a model. Printing it gives tables.

    Attributes:
        parameters: number of parameter elements before and after.
        macs: multiply-accumulates of one forward at the given inputs, before and after.
        asked: share of the elements of the masked parameters that masks hide.
        modules: every module whose own tensors got smaller, before and after.
        plan: all changes, tensor by tensor.
        folded: constants that were added to biases.
        inexact: what was done that changes the outputs; empty if every step is exact.
        stays: masked positions that could not be taken off. What was masked stays masked there.
        scattered: by parameter, how many masked elements stay as zeros in the smaller tensor.
        operators: how many the recorded run dispatched.
        origins: by parameter and buffer that changed, for every dimension: which original position each
            position was, None where all are what they were. Channels change places where the groups of a
            convolution are to stay equal; for the columns of its weight the shape is (groups, positions).
        verification: masked model against small model, None if it was switched off or the model has
            no values (``meta`` device).
        seconds: wall time by stage.
    """

    parameters: tuple[int, int]
    macs: tuple[int, int]
    asked: float
    modules: list[ModuleChange]
    plan: Plan
    folded: list[Folded]
    inexact: list[str]
    stays: list[Staying]
    scattered: dict[str, int]
    operators: int
    verification: Verification | None
    origins: Mapping[str, tuple[Tensor | None, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Largest relative error of an output, masked model against small model; NaN if not measured."""
        return float("nan") if self.verification is None else self.verification.error

    @property
    def exact(self) -> bool:
        """Whether every step leaves the outputs equal."""
        return not self.inexact

    @property
    def realised(self) -> float:
        """Share of the model's parameters that is gone."""
        before, after = self.parameters
        return 1 - after / before if before else 0.0

    def __str__(self) -> str:
        rows: list[list[Any]] = [
            ["parameters", *self.parameters, _share(self.parameters)],
            ["MACs", *self.macs, _share(self.macs)],
        ]
        text = render(["", "before", "after", "left"], rows)
        if self.modules:
            changed = [[change.path or "the model", change.before, change.after] for change in self.modules]
            text += render(["module", "before", "after"], changed)
        text += (
            f"sparsity asked {self.asked:.1%} of the masked parameters, realised {self.realised:.1%} of all\n"
        )
        if self.folded:
            total = sum(f.constants for f in self.folded)
            created = sum(f.created for f in self.folded)
            text += (
                f"constants folded: {total}, biases changed: {len(self.folded)}, of these new: {created}\n"
            )
        text += "".join(f"inexact: {line}\n" for line in self.inexact)
        text += "".join(f"{staying}\n" for staying in self.stays)
        if self.scattered:
            total = sum(self.scattered.values())
            text += f"{total} masked elements stay as zeros in {len(self.scattered)} tensors\n"
        text += f"verification: {self.verification or 'not done'}\n"
        return text + "seconds: " + ", ".join(f"{k} {v:.3f}" for k, v in self.seconds.items())

    def reasons(self) -> Counter[str]:
        """How many masked positions stay, by the reason."""
        counts: Counter[str] = Counter()
        for staying in self.stays:
            counts[staying.reason] += len(staying.positions)
        return counts


def _share(pair: tuple[int, int]) -> str:
    return f"{pair[1] / pair[0]:.1%}" if pair[0] else ""
