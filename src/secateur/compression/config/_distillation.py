"""The config list for distillation: which outputs of the student are to be like which of the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from . import _values as values
from ._keys import Key, Mode

METHODS = ("mse", "kl", "cosine", "attention_transfer")
"""Names of losses; their formulas are in ``secateur.compression.distillation``."""


@dataclass(frozen=True)
class DistillationSettings:
    """How one target is distilled.

    Attributes:
        weight: of its loss; the key is ``lambda``.
        link: paths of modules of the teacher; none for the module of the same name.
        apply_method: a name of :data:`METHODS`, or a function ``f(student, teacher) -> loss``.
    """

    weight: float = field(default=1.0, metadata={"key": "lambda"})
    link: tuple[str, ...] = ()
    apply_method: str | Callable[..., Any] = "mse"

    active: ClassVar[bool] = True
    align: ClassVar[None] = None

    @classmethod
    def of(cls, **given: Any) -> DistillationSettings:
        """From the checked values of a config; no target of distillation has a granularity."""
        link = given.get("link", "auto")
        links = (link,) if isinstance(link, str) else tuple(link)
        return cls(
            weight=float(given.get("lambda", 1.0)),
            link=() if links == ("auto",) else links,
            apply_method=given.get("apply_method", "mse"),
        )


def _link(value: Any) -> str:
    if isinstance(value, str):
        return "" if value else "the name of a module of the teacher is empty"
    wrong = values.names(value)
    if not wrong and "auto" in value and len(value) > 1:
        return "'auto' is the module of the same name: it stands alone"
    return wrong


def _method(value: Any) -> str:
    return "" if callable(value) else values.one_of(*METHODS)(value)


DISTILLATION = Mode(
    name="distillation",
    settings_keys={
        "lambda": Key(values.number(0, float("inf"), open_high=True), "the weight of this loss"),
        "link": Key(_link, "modules of the teacher, or 'auto' for the one of the same name"),
        "apply_method": Key(_method, "the loss: a name, or f(student, teacher)"),
    },
    entry_keys={},
    settings=DistillationSettings.of,
    active=("weight",),
    defaults=lambda module: ("_output_",),
    follows={},
)
