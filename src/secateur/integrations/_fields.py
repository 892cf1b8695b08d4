"""Fields of a config object: which of them may be sizes, and which values they may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..axes import STATE, Concat, Dim, Keep, Leaf, Product, Structure, kept_size, product
from ..surgery import is_readable, read

Path = tuple[Any, ...]
"""The way to a field: names, and positions in lists."""

Value = int | None
Values = Mapping[Path, Value]
Observed = dict[int, Counter[int]]

_UNSET_SIZES = ("size", "dim", "inner", "width", "channels", "heads")
"""How names of fields end that may be None, where the model's class then computes a size."""


def observed_sizes(structure: Structure, keep: Keep) -> Observed:
    """For every size in the parameters: what became of it, and how often.

    Sizes are those of whole dimensions and of their parts: the heads of ``(heads features)``, one
    of the pieces of a fused projection.
    """
    found: Observed = {}
    for value in structure.analysis.graph.state(*STATE):
        for dim in structure.analysis.dims_of(value.id):
            for part in _parts(dim):
                found.setdefault(part.size, Counter())[kept_size(part, keep)] += 1
    return found


def _parts(dim: Dim) -> Iterator[Dim]:
    yield dim
    if isinstance(dim, Concat):
        for part in dim.parts:
            yield from _parts(part)
    elif isinstance(dim, Product):
        count = len(dim.factors)
        for length in range(2, count):
            for start in range(count - length + 1):
                yield product(dim.factors[start : start + length])
        for factor in dim.factors:
            yield from _parts(factor) if not isinstance(factor, Leaf) else (factor,)


def integer_fields(config: Any) -> Iterator[tuple[Path, int]]:
    """Every integer that a config holds: in its fields, in lists there, and in configs inside it."""
    for name, value in vars(config).items():
        if name.startswith("_") or not is_readable(config, name):
            continue
        if type(value) is int:
            yield (name,), value
        elif isinstance(value, (list, tuple)):
            yield from (((name, i), item) for i, item in enumerate(value) if type(item) is int)
        elif is_config(value):
            yield from (((name, *path), item) for path, item in integer_fields(value))


def is_config(value: Any) -> bool:
    """Whether an attribute looks like a config object: fields, and a way to write them down."""
    plain = hasattr(value, "__dict__") and not isinstance(value, type)
    return plain and (hasattr(value, "to_dict") or hasattr(value, "__dataclass_fields__"))


def choices(config: Any, observed: Observed) -> dict[Path, list[int]]:
    """For every field that may be the size of something cut: its possible values, likeliest first."""
    found: dict[Path, list[int]] = {}
    for path, value in integer_fields(config):
        sizes = observed.get(value, Counter())
        if any(size != value for size in sizes):
            likely = [size for size, _ in sizes.most_common()]
            found[path] = [*likely, *([] if value in likely else [value])]
    return found


def unset_fields(config: Any, prefix: Path = ()) -> Iterator[Path]:
    """Fields without a value that may hold a size, and the ``head_dim`` that many classes look for."""
    for name, value in vars(config).items():
        if value is None and name.endswith(_UNSET_SIZES):
            yield (*prefix, name)
        elif is_config(value) and not name.startswith("_"):
            yield from unset_fields(value, (*prefix, name))
    if "head_dim" not in vars(config) and hasattr(config, "num_attention_heads"):
        yield (*prefix, "head_dim")


def head_width(config: Any, path: Path) -> int | None:
    """The width of a head before the cut, where a config without ``head_dim`` divides for it."""
    owner = read(config, path[:-1])
    hidden, heads = (getattr(owner, n, None) for n in ("hidden_size", "num_attention_heads"))
    if path[-1] != "head_dim" or type(hidden) is not int or type(heads) is not int:
        return None
    return hidden // heads if heads else None


def value_at(config: Any, path: Path) -> Any:
    """The value of a field, None where there is none."""
    try:
        return read(config, path)
    except (AttributeError, IndexError):
        return None
