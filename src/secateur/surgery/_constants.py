"""Forward constants: sizes that a model's code reads from attributes, bound to the axes they measure.

A replay says which integer of which call is wrong, and which modules and attribute names the code
was reading. An attribute of such a module that holds the recorded value, under a name that the
code reads, is a candidate; it is taken when setting it makes the difference go away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..axes import Algebra, Dim, Keep, kept_size
from ._replay import Mismatch

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """Where a number is kept: an attribute of a module, an item of a tuple there, a field of a config.

    ``path`` leads from the module: attribute names as strings, positions in a sequence as integers.
    """

    module: str
    path: Path

    def __str__(self) -> str:
        text = self.module
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
        return text


@dataclass(frozen=True)
class Binding:
    """A place that holds the size of a dimension."""

    place: Place
    dim: Dim
    recorded: int


def read(module: nn.Module, path: Path) -> Any:
    """The value at ``path``."""
    value: Any = module
    for step in path:
        value = value[step] if isinstance(step, int) else getattr(value, step)
    return value


def write(module: nn.Module, path: Path, value: Any) -> None:
    """Set the value at ``path``; sequences on the way are replaced, never changed in place."""
    *lead, last = path
    owner = read(module, tuple(lead))
    if not isinstance(last, int):
        setattr(owner, last, value)
        return
    items = list(owner)
    items[last] = value
    kind = type(owner)
    write(module, tuple(lead), kind(*items) if hasattr(owner, "_fields") else kind(items))


def set_sizes(model: nn.Module, bindings: Iterable[Binding], algebra: Algebra, keep: Keep) -> None:
    """Write the planned size into every bound place of ``model``."""
    modules = dict(model.named_modules())
    for binding in bindings:
        size = kept_size(algebra.resolve(binding.dim), keep)
        write(modules[binding.place.module], binding.place.path, size)


def candidates(mismatch: Mismatch, paths: dict[nn.Module, str]) -> Iterator[Place]:
    """Places that may hold the number that a mismatch is about, nearest module first."""
    seen: set[Place] = set()
    for reader in mismatch.readers:
        path = paths.get(reader.module)
        if path is None:
            continue
        for steps in _holding(reader.module, mismatch.recorded, set(reader.names)):
            place = Place(path, steps)
            if place not in seen:
                seen.add(place)
                yield place


def _holding(module: nn.Module, number: Any, names: set[str]) -> Iterator[Path]:
    for name, value in vars(module).items():
        if name not in names or name.startswith("__"):
            continue
        if type(value) is int:
            if value == number:
                yield (name,)
        elif isinstance(value, (list, tuple)):
            yield from ((name, i) for i, item in enumerate(value) if type(item) is int and item == number)
        elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
            for field, item in vars(value).items():
                if field in names and type(item) is int and item == number:
                    yield (name, field)
