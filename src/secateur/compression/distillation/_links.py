"""Links: which target of the student is to be like which of the teacher, looked up before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..._errors import ConfigError, DistillationError, nearest
from ..config import Target, TargetKind, find_target
from ._losses import LOSSES, needs_equal_features
from ._taps import Tap


@dataclass(frozen=True, eq=False)
class Link:
    """A target of the student, and what it is to be like.

    Attributes:
        target: of the student.
        student: keeps what it is in training.
        teachers: keep what the linked targets of the teacher are.
    """

    target: Target
    student: Tap
    teachers: tuple[Tap, ...]

    def probe(self) -> Tap:
        """A tap on the target of the student that also keeps what is run without gradients."""
        return Tap(self.student.module, self.target, "student", self.target.module)

    def dim(self, tensor: Tensor) -> int:
        """The dimension of the features: 1 of convolutions and images, else the last."""
        return self.target.channels.along(tensor.dim())

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How far two tensors are from each other, by the method of the target; a number."""
        method = self.target.settings.apply_method
        teacher = teacher.to(student.device)
        if isinstance(method, str):
            return LOSSES[method](student, teacher, self.dim(student))
        loss = method(student, teacher)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise DistillationError(
                f"{self.student.where}: apply_method gives a loss, a tensor with one number; it gave {shown}"
            )
        return loss.squeeze()

    def features(self, student: Tensor, teacher: Tensor, at: Tap) -> tuple[int, int]:
        """How many features both sides have; equal where the method does not compare them one by one.

        Raises:
            DistillationError: if the rest of the shapes differs, so that nothing can be compared.
        """
        method = self.target.settings.apply_method
        if not isinstance(method, str):
            return 0, 0
        ours, theirs = list(student.shape), list(teacher.shape)
        if len(ours) == len(theirs) and len(ours) > 1:
            dim = self.dim(student)
            sizes = ours.pop(dim), theirs.pop(dim)
            if ours == theirs:
                return sizes if needs_equal_features(method) else (0, 0)
        raise DistillationError(
            f"{self.student.where} has shape {tuple(student.shape)} and {at.where} {tuple(teacher.shape)}: "
            f"{method!r} compares (batch, ..., features) that differ in their features at most. Link other "
            "modules, or give a function of your own as apply_method"
        )


def find_links(targets: Sequence[Target], model: nn.Module, teacher: nn.Module) -> list[Link]:
    """The links of all targets.

    Raises:
        ConfigError: naming every target that is no input or output, and every linked module or target that
            the teacher does not have.
    """
    own, modules = dict(model.named_modules()), dict(teacher.named_modules(remove_duplicate=False))
    problems: dict[str, None] = {}  # the same mistake at many modules is one line
    links: list[Link] = []
    for target in targets:
        if target.kind not in (TargetKind.INPUT, TargetKind.OUTPUT):
            problems[f"{_entry(target)}: {target.path} is a {target.kind.value}, and only inputs and outputs "
                     "are distilled"] = None  # fmt: skip
            continue
        names = target.settings.link or (target.module,)
        found = [_teacher_tap(name, target, modules, problems) for name in names]
        student = Tap(own[target.module], target, "student", target.module, trained=True)
        links.append(Link(target, student, tuple(tap for tap in found if tap is not None)))
    if problems:
        raise ConfigError(list(problems))
    return links


def _teacher_tap(
    name: str, target: Target, modules: dict[str, nn.Module], problems: dict[str, None]
) -> Tap | None:
    """A tap on the target of the same name of a module of the teacher; None if there is none."""
    given = bool(target.settings.link)
    module = modules.get(name)
    if module is None:
        how = f"({name!r})" if given else f"('auto', for {target.module!r})"
        text = f"the teacher has no module {name!r}{nearest(name, modules)}"
        problems[f"{_entry(target)}, key 'link' {how}: {text}"] = None
        return None
    wanted = target.name
    if target.kind is TargetKind.INPUT and target.argument is not None:
        wanted = f"_input_{target.argument}"  # by name, where its position may be another one
    found = find_target(module, wanted)
    if found.wrong:
        found = find_target(module, target.name)
    if found.wrong:
        problems[f"{_entry(target)}, key 'link' ({name!r}): {found.wrong}"] = None
        return None
    # The settings do not count here, only where the tensor is.
    there = replace(target, key=found.key, position=found.position, argument=found.argument)
    return Tap(module, there, "teacher", name)


def _entry(target: Target) -> str:
    return f"entry {target.entry}"
