"""Config entries as dataclasses, for those who want their editor to know the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(kw_only=True)
class Settings:
    """What may be said about one target; None is the same as not saying it. See ``docs/config.md``."""

    sparse_ratio: float | None = None
    sparse_threshold: float | None = None
    min_sparse_ratio: float | None = None
    max_sparse_ratio: float | None = None
    granularity: str | Sequence[Any] | None = None
    global_group_id: int | str | None = None
    dependency_group_id: int | str | None = None
    internal_metric_block: int | None = None
    align: Mapping[str, Any] | None = None
    apply_method: Literal["mul", "add", "bypass"] | None = None
    rho: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys that are set, as plain data."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: plain(value) for key, value in values.items() if value is not None}


@dataclass(kw_only=True)
class Entry(Settings):
    """An entry of a config list.

    Example:
        >>> Entry(op_types=["Conv2d"], sparse_ratio=0.5).to_dict()
        {'sparse_ratio': 0.5, 'op_types': ['Conv2d']}
    """

    op_names: Sequence[str] | None = None
    op_types: Sequence[str] | None = None
    op_names_re: Sequence[str] | None = None
    op_partial_names: Sequence[str] | None = None
    exclude_op_names: Sequence[str] | None = None
    exclude_op_types: Sequence[str] | None = None
    exclude_op_names_re: Sequence[str] | None = None
    exclude: bool | None = None
    target_names: Sequence[str] | None = None
    target_settings: Mapping[str, Settings | Mapping[str, Any]] | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Entry:
        """From an entry of a config list whose keys are those of NNI 3.0.

        Raises:
            TypeError: for keys that are no fields.
        """
        return cls(**entry)


def plain(value: Any) -> Any:
    """A value of a config as what YAML and JSON know: dicts, lists, strings, numbers."""
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value
