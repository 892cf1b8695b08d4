"""The targets of one entry: names found in the modules, shortcuts and settings merged, masks that follow."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..._errors import nearest
from ._entries import Checked
from ._granularity import Channels, Granularity, activation_channels, channels_of, head_size
from ._keys import Mode
from ._problems import Problems
from ._selection import Catalogue, Selection
from ._settings import Align
from ._targets import Found, Target, TargetKind, find_target, target_names

_Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Drafter:
    """Makes targets of checked entries.

    Attributes:
        models: the modules of the model.
        mode: what the list is for.
        granularity: what ``"default"`` means for parameters.
        problems: where mistakes go.
    """

    models: Catalogue
    mode: Mode
    granularity: str
    problems: Problems

    def targets(self, entry: Checked, selection: Selection, out: Container[str]) -> list[Target]:
        """The targets of an entry in the modules that it selects, without those that are out."""
        paths = [path for path in selection.paths if path not in out]
        known = self._known_names(entry, paths)
        made: list[Target] = []
        for path in paths:
            own = self._of_module(entry, path, known)
            if not own and path in selection.meant and entry.target_names is None:
                self._no_target(entry, path)
            made += own
        if made and not any(self._is_active(target) for target in made):
            what = " or ".join(self.mode.active[:2])
            self.problems.add(entry.index, text=f"nothing is to be done: give {what}")
        for name in entry.limits or ():
            if name not in self.models.aliases:
                text = f"there is no module {name!r}{nearest(name, self.models.aliases)}"
                self.problems.add(entry.index, "max_sparsity_per_layer", name, text)
        return made

    def _is_active(self, target: Target) -> bool:
        return any(getattr(target.settings, key, None) is not None for key in self.mode.active)

    def _no_target(self, entry: Checked, path: str) -> None:
        names = ", ".join(target_names(self.models.modules[path]))
        text = f"{self.models.kind(path)} has no weight: name its targets with target_names ({names})"
        self.problems.add(entry.index, text=text, module=path)

    def _known_names(self, entry: Checked, paths: Sequence[str]) -> list[str]:
        """Names of targets that some selected module has; others are mistakes."""
        known = []
        for name in dict.fromkeys([*(entry.target_names or ()), *entry.target_settings]):
            found = [find_target(self.models.modules[path], name) for path in paths]
            if not found or any(not item.wrong and not item.absent for item in found):
                known.append(name)
                continue
            key = "target_names" if name in (entry.target_names or ()) else "target_settings"
            wrong = next((item.wrong for item in found if item.wrong), "")
            text = wrong or "the selected modules were made without it"
            self.problems.add(entry.index, key, name, text)
        return known

    def _of_module(self, entry: Checked, path: str, known: Sequence[str]) -> list[Target]:
        module = self.models.modules[path]
        usual = self.mode.defaults(module) if entry.target_names is None else ()
        found: dict[str, Found] = {}
        own: _Values = {}
        for name in [*usual, *known]:
            item = find_target(module, name)
            if not item.wrong and not item.absent:
                found[item.name] = item
                own[item.name] = {**own.get(item.name, {}), **entry.target_settings.get(name, {})}
        values = {name: self._merged(entry, path, inner) for name, inner in own.items()}
        for name, inner in own.items():
            self._follow(module, name, inner, values)
        return [self._target(entry, path, item, values[name]) for name, item in found.items()]

    def _merged(self, entry: Checked, path: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Shortcuts and own settings; a ratio, threshold or align of its own overrules those of shortcuts."""
        shortcuts = dict(entry.shortcuts)
        if any(key in own for key in self.mode.active):
            shortcuts = {key: value for key, value in shortcuts.items() if key not in self.mode.active}
        if entry.limits and path in entry.limits:
            shortcuts["max_sparse_ratio"] = entry.limits[path]
        return {**shortcuts, **own}

    def _follow(self, module: nn.Module, name: str, own: Mapping[str, Any], values: _Values) -> None:
        """Have a bias follow its weight, unless it was given a mask of its own."""
        source = self.mode.follows.get(name, "")
        masked = source in values and any(key in values[source] for key in self.mode.active)
        if not masked or any(key in own for key in self.mode.active):
            return
        weight, tensor = find_target(module, source).tensor, find_target(module, name).tensor
        assert weight is not None  # both are targets
        assert tensor is not None
        out = channels_of(module, source, weight).out
        dims = [dim for dim, part in enumerate(out) if part < weight.shape[dim]]
        if tensor.shape == weight.shape:
            dims = list(range(tensor.dim()))
        kept = {key: value for key, value in values[name].items() if key == "apply_method"}
        values[name] = {**kept, **own, "align": {"target_name": source, "dims": dims or [0]}}

    def _target(self, entry: Checked, path: str, found: Found, values: Mapping[str, Any]) -> Target:
        said = values.get("granularity", "default")
        if said == "default":
            activation = found.kind in (TargetKind.INPUT, TargetKind.OUTPUT)
            said = self.mode.activations if activation else self.granularity
        ready = {**values, "granularity": Granularity.of(said)}
        if "align" in values:
            ready["align"] = self._align(entry, path, found.name, values["align"])
        return Target(
            module=path,
            name=found.name,
            kind=found.kind,
            key=found.key,
            position=found.position,
            argument=found.argument,
            shape=None if found.tensor is None else tuple(found.tensor.shape),
            entry=entry.index,
            settings=self.mode.settings(**ready),
            channels=self._channels(path, found),
        )

    def _align(self, entry: Checked, path: str, name: str, value: Mapping[str, Any]) -> Align | None:
        """The mask that is followed; None if it is not there, which is noted."""
        said = value.get("module_name")
        source = self.models.aliases.get(path if said is None else said)
        if source is None:
            text = f"there is no module {said!r}{nearest(str(said), self.models.aliases)}"
            self.problems.add(entry.index, "align", value, text, f"{path}.{name}")
            return None
        found = find_target(self.models.modules[source], value["target_name"])
        if found.wrong or found.absent:
            text = found.wrong or f"{source} was made without {value['target_name']!r}"
            self.problems.add(entry.index, "align", value, text, f"{path}.{name}")
            return None
        return Align(source, found.name, tuple(value["dims"]))

    def _channels(self, path: str, found: Found) -> Channels:
        module = self.models.modules[path]
        weight = found.tensor if found.tensor is not None else find_target(module, "weight").tensor
        head = 0
        if weight is not None and weight.dim():
            head = head_size(module, self.models.around(path), weight)
        if found.tensor is None:
            return activation_channels(module, head)
        return channels_of(module, found.name, found.tensor, head)
