"""A config list, resolved for one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ._keys import Mode
from ._targets import Target

AUTO = "auto"


@dataclass(frozen=True)
class ModuleConfig:
    """What is done with one module.

    Attributes:
        name: its path.
        kind: its class name, as it was before any parametrization.
        targets: its targets.
        extras: keys of its entry that are no settings of targets.
    """

    name: str
    kind: str
    targets: tuple[Target, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """A config list, resolved for one model; a value that can be looked at.

    Attributes:
        mode: what it is for.
        modules: selected modules in the order of ``named_modules()``.
        notes: what the list says that had no effect.
    """

    mode: Mode
    modules: tuple[ModuleConfig, ...]
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets, module by module."""
        return tuple(target for module in self.modules for target in module.targets)

    def target(self, module: str, name: str) -> Target:
        """One target.

        Raises:
            KeyError: if there is none of that name.
        """
        name = f"{name}0" if name in ("_input_", "_output_") else name
        for target in self.targets:
            if target.module == module and target.name == name:
                return target
        raise KeyError(f"{module}.{name} is no target of this config")

    @property
    def ordered(self) -> tuple[Target, ...]:
        """All targets, each after the one whose mask it follows."""
        waiting, done = list(self.targets), dict[tuple[str, str], Target]()
        while waiting:
            for target in list(waiting):
                align = target.settings.align
                if align is None or (align.module_name, align.target_name) in done:
                    done[target.module, target.name] = target
                    waiting.remove(target)
        return tuple(done.values())

    @property
    def global_groups(self) -> dict[int | str, tuple[Target, ...]]:
        """Targets that share a ratio, by group."""
        return self._groups("global_group_id")

    @property
    def dependency_groups(self) -> dict[int | str, tuple[Target, ...]]:
        """Targets that are masked at the same positions, by group."""
        return {key: targets for key, targets in self._groups("dependency_group_id").items() if key != AUTO}

    @property
    def automatic(self) -> bool:
        """Whether groups are still to be found: some ``dependency_group_id`` is ``"auto"``."""
        return AUTO in self._groups("dependency_group_id")

    def replace(self, target: Target, **settings: Any) -> Resolved:
        """The same with other settings of one target."""
        new = dataclasses.replace(target, settings=dataclasses.replace(target.settings, **settings))
        return self.replace_targets({(target.module, target.name): new})

    def replace_targets(self, new: Mapping[tuple[str, str], Target]) -> Resolved:
        """The same with some targets replaced, by (module, name)."""
        modules = tuple(
            dataclasses.replace(module, targets=tuple(new.get((t.module, t.name), t) for t in module.targets))
            for module in self.modules
        )
        return dataclasses.replace(self, modules=modules)

    def with_groups(
        self, model: nn.Module, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Resolved:
        """The same with ``dependency_group_id="auto"`` resolved: the model is recorded once at these inputs.

        Targets whose positions are the same axis of the model get one group; where positions have to be
        removed in equal numbers from equal parts (grouped convolution), ``internal_metric_block`` says so.
        """
        from ._groups import find_groups

        return find_groups(self, model, args, dict(kwargs or {}))

    def to_config(self) -> list[dict[str, Any]]:
        """A config list that says the same in full: an entry for each module, everything per target."""
        return [
            {
                "op_names": [module.name],
                "target_names": [target.name for target in module.targets],
                "target_settings": {target.name: _settings(target) for target in module.targets},
                **module.extras,
            }
            for module in self.modules
        ]

    def explain(self) -> str:
        """A line for each target: what is done with it, and which entry says so; then the notes."""
        lines = []
        for target in self.targets:
            hidden = ("align",) if target.settings.active else ("align", "granularity")
            shown = {key: value for key, value in _settings(target).items() if key not in hidden}
            said = ", ".join(f"{key}={value}" for key, value in shown.items())
            align = target.settings.align
            follows = f"follows {align.module_name}.{align.target_name}" if align else ""
            lines.append(f"{target.path} (entry {target.entry}): {', '.join(filter(None, (said, follows)))}")
        return "\n".join([*lines, *self.notes])

    def _groups(self, key: str) -> dict[int | str, tuple[Target, ...]]:
        groups: dict[int | str, tuple[Target, ...]] = {}
        for target in self.targets:
            group = getattr(target.settings, key, None)
            if group is not None:
                groups[group] = (*groups.get(group, ()), target)
        return groups


def _settings(target: Target) -> dict[str, Any]:
    """The settings of a target as a config writes them: what differs from the default, and granularity."""
    result: dict[str, Any] = {}
    for item in dataclasses.fields(target.settings):
        value = getattr(target.settings, item.name)
        if item.name == "granularity":
            result[item.name] = value.to_config()
        elif item.name == "align" and value is not None:
            result[item.name] = {
                "module_name": value.module_name,
                "target_name": value.target_name,
                "dims": list(value.dims),
            }
        elif value != item.default:
            result[item.metadata.get("key", item.name)] = value
    return result
