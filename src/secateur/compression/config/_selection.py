"""Which modules an entry selects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from ..._errors import nearest
from ._problems import Problems

SELECTORS = ("op_names", "op_types", "op_names_re", "op_partial_names")


@dataclass(frozen=True)
class Catalogue:
    """The modules of a model, by path.

    Attributes:
        modules: by the first path of each, in order.
        aliases: the first path by every path; shared modules have several.
    """

    modules: Mapping[str, nn.Module]
    aliases: Mapping[str, str]

    @staticmethod
    def of(model: nn.Module) -> Catalogue:
        """Of a model."""
        modules = dict(model.named_modules())
        first = {id(module): path for path, module in modules.items()}
        aliases = {path: first[id(module)] for path, module in model.named_modules(remove_duplicate=False)}
        return Catalogue(modules, aliases)

    def kind(self, path: str) -> str:
        """Class name of a module, as it was before any parametrization."""
        return type_before_parametrizations(self.modules[path]).__name__

    @property
    def kinds(self) -> set[str]:
        """All class names."""
        return {self.kind(path) for path in self.modules}

    def around(self, path: str) -> list[nn.Module]:
        """The modules that contain a module, innermost first."""
        parts = path.split(".")
        paths = [".".join(parts[:depth]) for depth in range(len(parts) - 1, -1, -1)] if path else []
        return [self.modules[outer] for outer in paths if outer in self.modules]


@dataclass(frozen=True)
class Selection:
    """What an entry selects.

    Attributes:
        paths: of the modules, in the order of the model.
        meant: those that a name or type says; a module that only a pattern matches may lack targets.
    """

    paths: tuple[str, ...]
    meant: frozenset[str]


def select(entry: Mapping[str, Any], index: int, models: Catalogue, problems: Problems) -> Selection:
    """The modules of one entry whose selection keys have been checked.

    Selected is what has one of the names (or matches a pattern), is of one of the types, and is not
    excluded. What is unknown, or selects nothing, is noted as a mistake.
    """
    if not any(key in entry for key in SELECTORS):
        problems.add(index, text=f"nothing is selected: give {', '.join(SELECTORS[:2])} or {SELECTORS[2]}")
        return Selection((), frozenset())
    before = len(problems)
    named = _names(entry.get("op_names"), index, "op_names", models, problems)
    matched = _matches(entry, index, models, problems)
    kinds = _types(entry.get("op_types"), index, "op_types", models, problems)
    excluded = _excluded(entry, index, models, problems)
    by_name = named | matched if ("op_names" in entry or _has_pattern(entry)) else set(models.modules)
    chosen = [
        path
        for path in models.modules
        if path in by_name and (kinds is None or models.kind(path) in kinds) and path not in excluded
    ]
    if not chosen and len(problems) == before:
        problems.add(index, text=_why_nothing(entry, by_name, excluded))
    exact = kinds is not None and "default" not in entry["op_types"]
    return Selection(tuple(chosen), frozenset(chosen if exact else named))


def _has_pattern(entry: Mapping[str, Any]) -> bool:
    return "op_names_re" in entry or "op_partial_names" in entry


def _names(
    names: Iterable[str] | None, index: int, key: str, models: Catalogue, problems: Problems
) -> set[str]:
    found = set()
    for name in names or ():
        if name in models.aliases:
            found.add(models.aliases[name])
        else:
            problems.add(index, key, name, f"there is no module {name!r}{nearest(name, models.aliases)}")
    return found


def _matches(entry: Mapping[str, Any], index: int, models: Catalogue, problems: Problems) -> set[str]:
    found = set()
    for key in ("op_names_re", "op_partial_names"):
        for pattern in entry.get(key, ()):
            some = _matching(pattern, models, partial=key == "op_partial_names")
            if not some:
                problems.add(index, key, pattern, "no module's name matches")
            found |= some
    return found


def _matching(pattern: str, models: Catalogue, *, partial: bool = False) -> set[str]:
    """First paths of modules of which a path matches: from its start, as NNI does, or anywhere."""
    return {
        first
        for path, first in models.aliases.items()
        if (pattern in path if partial else re.match(pattern, path))
    }


def _types(
    kinds: Iterable[str] | None, index: int, key: str, models: Catalogue, problems: Problems
) -> set[str] | None:
    """The types as a set; None for any. A name that is no class of torch or of the model is a mistake."""
    if kinds is None:
        return None
    known = models.kinds
    for kind in kinds:
        if kind not in known and kind != "default" and not hasattr(nn, kind):
            problems.add(index, key, kind, f"no module is a {kind!r}{nearest(kind, known)}")
    return known if "default" in kinds else set(kinds)


def _excluded(entry: Mapping[str, Any], index: int, models: Catalogue, problems: Problems) -> set[str]:
    out = _names(entry.get("exclude_op_names"), index, "exclude_op_names", models, problems)
    kinds = _types(entry.get("exclude_op_types"), index, "exclude_op_types", models, problems) or ()
    out |= {path for path in models.modules if models.kind(path) in kinds}
    for pattern in entry.get("exclude_op_names_re", ()):
        some = _matching(pattern, models)
        if not some:
            problems.add(index, "exclude_op_names_re", pattern, "no module's name matches")
        out |= some
    return out


def _why_nothing(entry: Mapping[str, Any], by_name: set[str], excluded: set[str]) -> str:
    parts = []
    if len(by_name) and ("op_names" in entry or _has_pattern(entry)):
        parts.append(f"of the {len(by_name)} modules named")
    if "op_types" in entry:
        parts.append(f"none is a {' or '.join(entry['op_types'])}")
    if excluded:
        parts.append(f"{len(excluded)} are excluded")
    return f"nothing is selected: {', '.join(parts)}"
