"""Find the fields of a config that make a model's class build given shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..surgery import read
from ._fields import Observed, Path, Value, Values, choices, head_width, unset_fields, value_at
from ._skeleton import build, shapes_of, with_values

MOST_BUILDS = 64
MOST_SECONDS = 2.0  # of CPU time
MOST_REFUSALS = 6
MOST_SIZES = 4

Shapes = Mapping[str, tuple[int, ...]]
Assigned = tuple[tuple[Path, Value], ...]


@dataclass
class Search:
    """A descent from the likeliest values of all fields, one field at a time.

    The distance of a config is the number of dimensions (and of attributes that the model's code
    is known to read) in which what the class builds differs from what is wanted.

    Attributes:
        kind: the model's class.
        config: the config before the cut; only read.
        wanted: shapes of the state dict after the cut.
        attributes: numbers that the code reads, by module and name, as they have to be.
        observed: what became of every size.
        known: fields whose values are known, since the model's code reads them.
        few: fields that say how many layers there are, with the number to search with.
        nearest: the mismatches of the nearest config so far, for the user.
    """

    kind: type[nn.Module]
    config: Any
    wanted: Shapes
    attributes: Mapping[tuple[str, str], int]
    observed: Observed
    known: Mapping[Path, int]
    few: Mapping[Path, int]
    nearest: list[str] = field(default_factory=list)
    _distances: dict[Assigned, tuple[int, list[int]]] = field(default_factory=dict)
    _least: int | None = None
    _base: dict[str, tuple[int, ...]] | None = None
    _shapeless: dict[Path, int] = field(default_factory=dict)
    _end: float = 0.0

    def run(self, accept: Callable[[dict[Path, Value]], bool]) -> dict[Path, Value] | None:
        """The first values that build what is wanted and that ``accept`` takes, None if there are none.

        Only fields that have to change are in the result.
        """
        self._end = time.process_time() + MOST_SECONDS
        options = choices(self.config, self.observed)
        options = {p: v for p, v in options.items() if p not in self.known and p not in self.few}
        for path in [path for path, sizes in options.items() if not self._matters(path, sizes)]:
            sizes = [size for size in options.pop(path) if size != value_at(self.config, path)]
            self._shapeless[path] = sizes[0]
        likely = {path: sizes[0] for path, sizes in options.items()} | dict(self.known)
        refused: set[Assigned] = set()
        # Once heads have a width of their own, their number shows in the shapes.
        wider = [{**likely, **self._shapeless, **widths} for widths in self._head_widths()]
        for start in (*wider, likely, dict(self.known)):
            values = self._descend(self._changed(start), options)
            for candidate in self._ways(values) if self._distance(values) == 0 else ():
                if len(refused) >= MOST_REFUSALS:
                    return None
                if _frozen(candidate) not in refused and accept(candidate):
                    return candidate
                refused.add(_frozen(candidate))
        return None

    def _ways(self, values: dict[Path, Value]) -> Iterator[dict[Path, Value]]:
        """The fewest changes that build these shapes; then with a field that no shape shows (heads)."""
        least = self._least_of(values)
        yield least
        for path, size in self._shapeless.items():
            yield {**least, path: size}

    def _descend(self, values: dict[Path, Value], options: Mapping[Path, list[int]]) -> dict[Path, Value]:
        """Change one field after the other as long as that brings the built model nearer."""
        before = None
        while before != values and self._distance(values):
            before = values
            for path in (*options, *unset_fields(self.config)):
                for size in self._sizes(path, values, options):
                    other = self._changed({**values, path: size})
                    if self._spent():
                        return values
                    if self._distance(other) < self._distance(values):
                        values = other
        return values

    def _sizes(self, path: Path, values: dict[Path, Value], options: Mapping[Path, list[int]]) -> list[int]:
        """The values to try for one field, likeliest first."""
        if path in options:
            return options[path][:MOST_SIZES]
        if path[-1] == "head_dim":
            return list(self.observed.get(head_width(self.config, path) or 0, {}))[:MOST_SIZES]
        return self._distances[_frozen(values)][1][:MOST_SIZES]

    def _spent(self) -> bool:
        return len(self._distances) >= MOST_BUILDS or time.process_time() > self._end

    def _changed(self, values: Values) -> dict[Path, Value]:
        return {path: v for path, v in values.items() if v != value_at(self.config, path)}

    def _least_of(self, values: dict[Path, Value]) -> dict[Path, Value]:
        """The values without those that make no difference."""
        for path in list(values):
            fewer = {p: v for p, v in values.items() if p != path}
            if path not in self.known and self._distance(fewer) == 0:
                values = fewer
        return values

    def _matters(self, path: Path, sizes: list[int]) -> bool:
        """Whether any shape follows from a field: a coincidence of numbers is no size."""
        other = [size for size in sizes if size != value_at(self.config, path)][-1]
        few = with_values(self.config, self.few)
        if self._base is None:
            self._base = shapes_of(build(self.kind, few))
        try:
            return shapes_of(build(self.kind, with_values(few, {path: other}))) != self._base
        except Exception:  # a class that minds
            return True

    def _head_widths(self) -> Iterator[dict[Path, Value]]:
        """Widths of heads to start with, for configs that have no field set for it: the old one first.

        Heads and their width make one size together, so they cannot be found one after the other.
        """
        for path in unset_fields(self.config):
            width = head_width(self.config, path)
            if width is not None and self._matters(path, [width, width + 1]):
                sizes = dict.fromkeys((width, *self.observed.get(width, ())))
                for size in list(sizes)[:MOST_SIZES]:
                    yield {path: size}

    def _distance(self, values: dict[Path, Value]) -> int:
        key = _frozen(values)
        if key not in self._distances:
            self._distances[key] = self._measure(values)
        return self._distances[key][0]

    def _measure(self, values: dict[Path, Value]) -> tuple[int, list[int]]:
        """How far the built model is from the wanted one, and sizes that are wanted and not built."""
        try:
            model = build(self.kind, with_values(self.config, {**values, **self.few}))
        except Exception as error:  # whatever a class raises, this config is none
            if not self.nearest:
                self.nearest = [f"{type(error).__name__}: {error}"]
            return sum(map(len, self.wanted.values())), []
        built, missing, texts = shapes_of(model), [], []
        distance = 0
        for name, shape in built.items():
            wanted = self.wanted.get(name, ())
            if len(wanted) != len(shape):
                distance += len(shape)
                continue
            wrong = [w for w, b in zip(wanted, shape, strict=True) if w != b]
            distance += len(wrong)
            missing += wrong
            texts += [f"{name} is {wanted}, and the nearest config builds {shape}"] if wrong else []
        distance += sum(not _holds(model, *place, n) for place, n in self.attributes.items())
        if self._least is None or distance < self._least:
            self._least, self.nearest = distance, texts
        return distance, sorted(set(missing), key=missing.count, reverse=True)


def _frozen(values: Values) -> Assigned:
    return tuple(sorted(values.items(), key=lambda item: str(item[0])))


def _holds(model: nn.Module, module: str, name: str, number: int) -> bool:
    """Whether an attribute has the value, as far as the model has that module."""
    try:
        return read(model.get_submodule(module), (name,)) == number
    except AttributeError:
        return True
