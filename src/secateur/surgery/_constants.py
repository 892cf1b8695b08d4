"""Forward constants: sizes that a model's code reads from attributes, bound to the axes they measure.

A replay says which integer of which call is wrong, and which modules and attribute names the code
was reading. An attribute of such a module that holds the recorded value, under a name that the
code reads, is a candidate; it is taken when setting it makes the difference go away.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..axes import Concat, Dim, Product, product
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


def write_all(model: nn.Module, sizes: Mapping[Place, int]) -> None:
    """Write numbers into their places.

    A config object that several modules share is written once where they agree; where they do not,
    each module gets a copy of its own.
    """
    modules = dict(model.named_modules())
    wanted: dict[tuple[int, Any], set[int]] = {}
    for place, size in sizes.items():
        owner = read(modules[place.module], place.path[:-1])
        wanted.setdefault((id(owner), place.path[-1]), set()).add(size)
    for place, size in sizes.items():
        module, path = modules[place.module], place.path
        owner = read(module, path[:-1])
        shared = len(path) == 2 and isinstance(path[1], str)
        if shared and len(wanted.get((id(owner), path[-1]), ())) > 1:
            setattr(module, path[0], copy.copy(owner))
        write(module, path, size)


def candidates(
    mismatch: Mismatch, dim: Dim, paths: dict[nn.Module, str], wholes: Iterable[Dim] = ()
) -> Iterator[tuple[Place, Dim]]:
    """Places that may hold the number that a mismatch is about, nearest module first.

    First those that hold the number itself; then those that hold a factor or a term of it, for code
    that computes ``num_heads * head_dim``; last those that hold one of ``wholes``, which it is a part of,
    for code that computes ``width - first``.
    """
    seen: set[Place] = set()
    for part in (dim, *_parts(dim), *wholes):
        recorded = abs(mismatch.recorded) if part is dim else part.size
        for module, names in _read_modules(mismatch):
            if module not in paths:
                continue
            # An attribute of its own comes before an item of a tuple or a field of a config.
            for steps in sorted(_holding(module, recorded, names), key=len):
                place = Place(paths[module], steps)
                if place not in seen:
                    seen.add(place)
                    yield place, part


def _read_modules(mismatch: Mismatch) -> Iterator[tuple[nn.Module, set[str]]]:
    """Modules that the code had in hand, each with the names that it read; children after their parent."""
    for reader in mismatch.readers:
        names = set(reader.names)
        yield reader.module, names
        for name, child in reader.module.named_children():
            if name in names:
                yield child, names


def _parts(dim: Dim) -> Iterator[Dim]:
    """Terms of a sum, and runs of factors of a product, the longest first."""
    if isinstance(dim, Concat):
        for part in dim.parts:
            yield part
            yield from _parts(part)
    elif isinstance(dim, Product):
        count = len(dim.factors)
        for length in range(count - 1, 0, -1):
            for start in range(count - length + 1):
                yield product(dim.factors[start : start + length])


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
                if field in names and type(item) is int and item == number and is_readable(value, field):
                    yield (name, field)


def is_readable(owner: Any, field: str) -> bool:
    """Whether a field can be read: a config whose layers differ may refuse to name one number for all."""
    try:
        getattr(owner, field)
    except Exception:
        return False
    return True
