"""The recipe: everything that surgery did to a model's sizes, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from ..axes import Positions
from ..surgery import AttributeChange, Refit
from ._positions import count, from_text, to_text


@dataclass(frozen=True)
class Kept:
    """What is left of a tensor: its shape before any cut, and the positions of each dimension.

    ``positions`` are written as text (``"0-2,5"``), None for a dimension that is whole.
    """

    before: tuple[int, ...]
    positions: tuple[str | None, ...]

    @property
    def after(self) -> tuple[int, ...]:
        """Shape of what is left."""
        pairs = zip(self.before, self.positions, strict=True)
        return tuple(size if text is None else count(text) for size, text in pairs)

    def then(self, positions: Sequence[Positions | None]) -> Kept:
        """What is left after another cut, whose positions are counted in what is left now.

        >>> import numpy as np
        >>> Kept((6,), ("0-2,5",)).then([np.array([1, 3])])
        Kept(before=(6,), positions=('1,5',))
        """
        composed = []
        for text, stay in zip(self.positions, positions, strict=True):
            if stay is not None:
                text = to_text(stay if text is None else from_text(text)[stay])
            composed.append(text)
        return Kept(self.before, tuple(composed))


@dataclass
class Changes:
    """What surgery did to a module and all below it.

    Attributes:
        tensors: by name, what is left of every parameter, buffer and plain tensor attribute that
            was cut.
        attributes: numbers in attributes, with their values before any cut and now.
        refits: modules that became equivalent ones.
    """

    tensors: dict[str, Kept] = field(default_factory=dict)
    attributes: list[AttributeChange] = field(default_factory=list)
    refits: list[Refit] = field(default_factory=list)


@dataclass
class Recipe(Changes):
    """How to make a saved model from the one that its factory builds. Prints as a table.

    Attributes:
        tensors: as in :class:`Changes`, like the two that follow.
        attributes: likewise.
        refits: likewise.
        model: class of the model.
        tied: names of tensors that are the same as another, with the name it is stored under.
        strides: of stored tensors that do not lie row by row in memory (channels last).
        plain: names of tensors that are plain attributes, neither parameters nor buffers.
    """

    model: str = ""
    tied: dict[str, str] = field(default_factory=dict)
    strides: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plain: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = Table(self.model, "as built", "as saved")
        for name, kept in self.tensors.items():
            table.add_row(name, str(kept.before), str(kept.after))
        for change in self.attributes:
            table.add_row(str(change.place), str(change.before), str(change.after))
        for refit in self.refits:
            table.add_row(refit.module, refit.type.__name__, f"its equivalent, {refit.numbers}")
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table)
        return capture.get()
