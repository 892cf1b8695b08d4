"""Notes: what surgery did to a module, kept on the module itself as one line of JSON.

A note is a plain string in an attribute, so it goes wherever the module goes: through ``deepcopy``,
``pickle``, averaging, into a larger model or out of one. Each module knows of its own tensors only;
:func:`collect` puts the notes of a whole model together. Several cuts add up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..surgery import AttributeChange, Place, Plan, Refit, TensorChange, read
from ._json import changes_from_tree, changes_to_tree
from ._recipe import Changes, Kept

NOTE = "_secateur_note"

Spot = tuple[int, tuple[Any, ...]]


def note_cut(model: nn.Module, plan: Plan) -> None:
    """Write down what ``plan`` did to ``model``, on top of what earlier cuts did."""
    modules = dict(model.named_modules(remove_duplicate=False))
    noted = (module for module in modules.values() if NOTE in vars(module))
    notes = defaultdict(Changes, {module: _read(module) for module in noted})
    for module, name, change in _tensors(modules, plan):
        known = notes[module].tensors.get(name)
        if known is None or known.after != change.before:  # never cut, or replaced since
            known = Kept(change.before, (None,) * len(change.before))
        notes[module].tensors[name] = known.then(change.positions)
    for refit in plan.refits:
        _note_refit(notes[modules[refit.module]], refit)
    _note_attributes(modules, notes, plan.attributes)
    for module, changes in notes.items():
        if changes != Changes():
            vars(module)[NOTE] = json.dumps(changes_to_tree(changes))


def collect(model: nn.Module) -> Changes:
    """All that was noted of ``model``, by names from there; tied tensors under every name."""
    total = Changes()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, kept in _read(module).tensors.items():
            total.tensors[prefix + name] = kept
    for path, module in model.named_modules():
        changes = _read(module)
        total.attributes += [
            replace(change, place=Place(path, change.place.path)) for change in changes.attributes
        ]
        total.refits += [replace(refit, module=path) for refit in changes.refits]
    return total


def note_again(model: nn.Module, changes: Changes) -> None:
    """Note what :func:`collect` found, on a model that was made anew; it can then be saved like the first."""
    notes: defaultdict[str, Changes] = defaultdict(Changes)
    for full, kept in changes.tensors.items():
        path, name = owner_of(full)
        notes[path].tensors[name] = kept
    for change in changes.attributes:
        notes[change.place.module].attributes.append(replace(change, place=Place("", change.place.path)))
    for refit in changes.refits:
        notes[refit.module].refits.append(replace(refit, module=""))
    for path, note in notes.items():
        vars(model.get_submodule(path))[NOTE] = json.dumps(changes_to_tree(note))


def owner_of(name: str) -> tuple[str, str]:
    """Path of the module that owns a tensor, and the tensor's name there.

    >>> owner_of("layer1.0.conv.weight"), owner_of("heads.anchors[0]"), owner_of("weight")
    (('layer1.0.conv', 'weight'), ('heads', 'anchors[0]'), ('', 'weight'))
    """
    head, bracket, rest = name.partition("[")
    path, _, attribute = head.rpartition(".")
    return path, attribute + bracket + rest


def _read(module: nn.Module) -> Changes:
    note = vars(module).get(NOTE)
    return changes_from_tree(json.loads(note)) if note else Changes()


def _tensors(modules: Mapping[str, nn.Module], plan: Plan) -> Iterator[tuple[nn.Module, str, TensorChange]]:
    """Every tensor of the plan with the module it is noted on, once for each module that has it."""
    seen: set[tuple[nn.Module, str]] = set()
    for change in plan.tensors:
        for full in change.names:
            path, name = owner_of(full)
            key = modules[path], name
            if key not in seen:
                seen.add(key)
                yield *key, change


def _note_refit(note: Changes, refit: Refit) -> None:
    first = note.refits[0].type if note.refits else refit.type
    note.refits = [Refit("", first, dict(refit.numbers), dict(refit.settings))]


def _note_attributes(
    modules: Mapping[str, nn.Module], notes: dict[nn.Module, Changes], changes: Iterable[AttributeChange]
) -> None:
    """Note numbers. Modules may share what holds one: then all that was noted of it changes."""
    known: dict[Spot, list[tuple[Changes, int]]] = {}
    for module, note in notes.items():
        for index, change in enumerate(note.attributes):
            known.setdefault(_spot(module, change.place.path), []).append((note, index))
    for change in changes:
        owner, path = modules[change.place.module], change.place.path
        note, same = notes[owner], known.setdefault(_spot(owner, path), [])
        refits = [r for r in note.refits if len(path) == 1 and path[0] in r.numbers]
        if refits:
            refits[0].numbers[path[0]] = change.after
            continue
        if not any(other is note and note.attributes[i].place.path == path for other, i in same):
            before = same[0][0].attributes[same[0][1]].before if same else change.before
            same.append((note, len(note.attributes)))
            note.attributes.append(AttributeChange(Place("", path), before, change.after))
        for other, index in same:
            other.attributes[index] = replace(other.attributes[index], after=change.after)


def _spot(module: nn.Module, path: tuple[Any, ...]) -> Spot:
    """What an attribute belongs to, and the way from there: equal for the same number."""
    last = max(index for index, step in enumerate(path) if isinstance(step, str))
    return id(read(module, path[:last])), path[last:]
