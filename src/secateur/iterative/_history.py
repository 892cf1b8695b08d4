"""What every step gave, which one is the best, and checkpoints in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from .._errors import PersistenceError
from ..persistence import load, save

FORMAT = 1
FILE = "history.json"


@dataclass(frozen=True, slots=True)
class Step:
    """One step; number 0 is the model as it was given.

    Attributes:
        number: from 0.
        share: share of the cost that is left.
        parameters: parameter elements.
        macs: multiply-accumulates of one forward at the snapshot's inputs.
        cut: the user's metric right after the cut; None without one.
        metric: the user's metric after fine-tuning; None without one.
        seconds: wall time of scoring, cutting and fine-tuning.
    """

    number: int
    share: float
    parameters: int
    macs: int
    cut: float | None = None
    metric: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"step {self.number}: {self.share:.1%} of the cost left, {self.parameters} parameters"
        if self.metric is not None:
            text += f", metric {self.cut:.6g} after the cut and {self.metric:.6g} after fine-tuning"
        return f"{text}, {self.seconds:.1f} s"


@dataclass
class History:
    """All steps, and the rule by which one of them is the best.

    With a ``limit`` the best step is the cheapest whose metric is within it; without one it is the step
    with the best metric (the cheaper of two that are equal), and the last step where there is no metric.

    Attributes:
        steps: in order, beginning with the model as it was given.
        limit: the worst metric that is accepted.
        higher_is_better: which way the metric is better.

    Example:
        >>> steps = [Step(0, 1.0, 100, 100, metric=0.9), Step(1, 0.5, 50, 50, metric=0.92)]
        >>> steps += [Step(2, 0.3, 30, 30, metric=0.88), Step(3, 0.2, 20, 20, metric=0.7)]
        >>> History(steps).best.number, History(steps, limit=0.85).best.number
        (1, 2)
    """

    steps: list[Step] = field(default_factory=list)
    limit: float | None = None
    higher_is_better: bool = True

    def within_limit(self, step: Step) -> bool:
        """Whether a step's metric is accepted."""
        if self.limit is None or step.metric is None:
            return True
        return step.metric >= self.limit if self.higher_is_better else step.metric <= self.limit

    @property
    def best(self) -> Step:
        """The best step; the model as it was given, if no step is within the limit."""
        within = [step for step in self.steps if self.within_limit(step)] or self.steps[:1]
        if self.limit is not None or any(step.metric is None for step in within):
            return min(within, key=lambda step: (step.share, -step.number))
        sign = 1 if self.higher_is_better else -1
        return max(within, key=lambda step: (sign * (step.metric or 0.0), -step.share))

    def __str__(self) -> str:
        lines = [str(step) for step in self.steps]
        return "\n".join([*lines, f"best: step {self.best.number}"])


def checkpoint(model: nn.Module, history: History, folder: Path) -> None:
    """Write the model of the last step, and the history with it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / file_name(history.steps[-1].number))
    content = {"format": FORMAT, "best": history.best.number, **asdict(history)}
    draft = folder / f".{FILE}.tmp"
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(folder / FILE)


def file_name(number: int) -> str:
    """The file of a step's model."""
    return f"step-{number:03}.safetensors"


def load_best(factory: Callable[[], nn.Module], folder: str | os.PathLike[str]) -> tuple[nn.Module, History]:
    """The best model of a folder of checkpoints, and what is known of all steps.

    The folder may be that of a run that was interrupted: the best of its finished steps is loaded.

    Args:
        factory: builds the model at its original sizes, as for :func:`secateur.load`.
        folder: what :func:`secateur.prune_iteratively` was given as ``checkpoints``.

    Raises:
        PersistenceError: if the folder holds no such history, or the factory's model does not fit.
        FileNotFoundError: if there is no history, or the file of the best step is gone.

    Example: see :func:`secateur.prune_iteratively`.
    """
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, and {FORMAT} is known")
        steps = [Step(**step) for step in content["steps"]]
        history = History(steps, content["limit"], bool(content["higher_is_better"]))
        best = history.best
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise PersistenceError(
            f"{path} is no history of prune_iteratively ({type(error).__name__}: {error})"
        ) from error
    return load(factory, Path(folder) / file_name(best.number)), history
