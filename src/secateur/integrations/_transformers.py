"""Configs of transformers models: the fields that reproduce the sizes of a cut.

``save_pretrained`` writes a model's weights and its config, and ``from_pretrained`` builds the model
from that config, so it has to say the new sizes. Which of its fields those are, nobody needs to
know: candidates are the integers that are sizes of something that is cut, and a config is right
if the model's own class builds from it

- a state dict of exactly the planned shapes,
- buffers that are not saved with exactly the planned values (rotary frequencies), and
- code that follows the cut to the last number and factor (replayed on ghosts).

The library itself is never imported: any class that takes a ``config`` and has ``save_pretrained``
will do. Nothing of the user's model is touched here; what is found becomes a part of the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..axes import kept_size
from ..capture import copy_with, owned_tensors
from ..surgery import (
    AttributeChange,
    Binding,
    Followed,
    Place,
    Plan,
    Replayed,
    read,
    slice_tensor,
)
from ._fields import Path, Value, integer_fields, is_config, observed_sizes, value_at
from ._search import Search
from ._skeleton import (
    FEW_LAYERS,
    build,
    computed_buffers,
    depth_fields,
    read_back,
    shapes_of,
    with_values,
)

_INSTEAD = "The config stays as it was: keep the model with secateur.save and secateur.load"


@dataclass(frozen=True)
class FittedConfig:
    """What becomes of the configs of a model.

    Attributes:
        changes: fields to set, as changes of the plan; empty if no config fits.
        note: the same in words, or why there is none; empty for a model without a config.
    """

    changes: tuple[AttributeChange, ...] = ()
    note: str = ""


@dataclass
class _Cut:
    """A cut that is planned and not yet made."""

    code: Followed
    plan: Plan
    found: Replayed
    bindings: tuple[Binding, ...]
    problem: str = field(default="")


def fit_config(code: Followed, plan: Plan, found: Replayed, bindings: Iterable[Binding]) -> FittedConfig:
    """Find the fields of a model's config that say its sizes after a cut.

    Args:
        code: the model before the cut, with its structure.
        plan: what is going to happen to its tensors.
        found: the replay of the model's code at the planned sizes.
        bindings: numbers that the code reads.

    Returns:
        The fields to change. Takes some ten builds of a two-layer skeleton, and never more than a
        few seconds.
    """
    if not plan.keep:
        return FittedConfig()
    cut = _Cut(code, plan, found, tuple(bindings))
    fitted = [_fit(path, module, cut) for path, module in configured_modules(code.model)]
    return FittedConfig(
        tuple(change for fit in fitted for change in fit.changes),
        "; ".join(fit.note for fit in fitted),
    )


def configured_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that have a config and can be saved with it, by path."""
    inside: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(outer) for outer in inside):
            continue
        if is_config(getattr(module, "config", None)) and hasattr(module, "save_pretrained"):
            inside.append(f"{path}." if path else "")
            yield path, module


def _fit(path: str, module: nn.Module, cut: _Cut) -> FittedConfig:
    """The fields of one module's config."""
    config: Any = module.config
    before, wanted = shapes_of(module), _planned_shapes(path, module, cut.plan)
    if before == wanted:
        return FittedConfig()
    uneven = _uneven(before, wanted)
    if uneven and all(isinstance(step, str) for p, _ in integer_fields(config) for step in p):
        return FittedConfig(note=f"layers differ ({uneven}), and a config has one size for all. {_INSTEAD}.")
    try:
        same = shapes_of(build(type(module), config)) == before
    except Exception as error:  # a class of the user's: whatever it raises
        return FittedConfig(note=f"{type(module).__name__}(config) fails ({error}). {_INSTEAD}.")
    if not same:
        return FittedConfig(note=f"{type(module).__name__}(config) builds another model. {_INSTEAD}.")
    search = _search(path, module, wanted, cut)
    values = search.run(lambda values: _accept(path, module, wanted, values, cut))
    if values is None:
        why = cut.problem or "; ".join(search.nearest[:1]) or "no field is a size of what was cut"
        return FittedConfig(note=f"no config says these sizes ({why}). {_INSTEAD}.")
    values = _derived(config, values)
    changes = tuple(
        AttributeChange(Place(path, ("config", *steps)), value_at(config, steps), value)
        for steps, value in values.items()
        if value is not None
    )
    words = ", ".join(f"{_name(change)} {change.before} -> {change.after}" for change in changes)
    return FittedConfig(changes, f"config: {words}")


def _name(change: AttributeChange) -> str:
    return str(Place("", change.place.path[1:])).lstrip(".")


def _planned_shapes(path: str, module: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shapes of the module's state dict after the cut."""
    after = {name: change.after for change in plan.tensors for name in change.names}
    prefix = f"{path}." if path else ""
    return {name: after.get(prefix + name, shape) for name, shape in shapes_of(module).items()}


def _uneven(before: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """Two tensors of different layers that were alike and no longer are, in words."""
    alike: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, shape in wanted.items():
        first = alike.setdefault((re.sub(r"\d+", "*", name), before[name]), name)
        if wanted[first] != shape:
            return f"{first} is {wanted[first]}, {name} is {shape}"
    return ""


def _search(path: str, module: nn.Module, wanted: dict[str, tuple[int, ...]], cut: _Cut) -> Search:
    config: Any = module.config
    structure, keep = cut.code.structure, cut.plan.keep
    few: dict[Path, int] = dict.fromkeys(depth_fields(module, config), FEW_LAYERS)
    if few:
        try:
            built = shapes_of(build(type(module), with_values(config, few)))
            shortens = built.items() <= shapes_of(module).items()
        except Exception:  # a class that wants all its layers gets them
            shortens = False
        few = few if shortens else {}
    known: dict[Path, int] = {}
    attributes: dict[tuple[str, str], int] = {}
    prefix = f"{path}." if path else ""
    for binding in cut.bindings:
        owner, steps = binding.place.module, binding.place.path
        size = kept_size(structure.analysis.algebra.resolve(binding.dim), keep)
        if not f"{owner}.".startswith(prefix):
            continue
        if steps[0] == "config" and read(cut.code.model.get_submodule(owner), ("config",)) is config:
            known[steps[1:]] = size
        elif len(steps) == 1:
            attributes[owner.removeprefix(prefix), str(steps[0])] = size
    observed = observed_sizes(structure, keep)
    return Search(type(module), config, wanted, attributes, observed, known, few)


def _derived(config: Any, values: dict[Path, Value]) -> dict[Path, Value]:
    """The values, with those of fields that follow from them."""
    new = with_values(config, values)
    old = dict(integer_fields(config))
    follow = {p: v for p, v in integer_fields(read_back(new)) if p in old and v != old[p]}
    return {**values, **follow}


def _accept(
    path: str, module: nn.Module, wanted: dict[str, tuple[int, ...]], values: dict[Path, Value], cut: _Cut
) -> bool:
    """Whether the whole model, built from these values, is the planned one in all but its weights."""
    try:
        skeleton = build(type(module), read_back(with_values(module.config, values)))
    except Exception as error:  # such as a config's own validation
        cut.problem = cut.problem or f"{type(error).__name__}: {error}"
        return False
    if shapes_of(skeleton) != wanted:
        return False
    problem = _buffer_problem(path, module, skeleton, cut.plan) or _code_problem(path, skeleton, cut)
    cut.problem = cut.problem or problem
    return not problem


def _buffer_problem(path: str, module: nn.Module, skeleton: nn.Module, plan: Plan) -> str:
    """The first buffer that is not saved and that the config would make another, in words."""
    prefix = f"{path}." if path else ""
    kept = {name: change.positions for change in plan.tensors for name in change.names}
    made = dict(computed_buffers(skeleton))
    for name, buffer in computed_buffers(module):
        other = made.get(name)
        if other is None or buffer.is_meta or other.is_meta:
            continue
        stay = kept.get(prefix + name)
        ours = slice_tensor(buffer, stay) if stay else buffer
        if ours.shape != other.shape or not torch.equal(ours.cpu(), other.to(ours.dtype)):
            return f"the config computes the buffer {name} otherwise than the positions that were kept"
    return ""


def _code_problem(path: str, skeleton: nn.Module, cut: _Cut) -> str:
    """The first number in the skeleton's code that is not that of the cut model, in words."""
    structure = cut.code.structure
    ids = {name: value.id for value in structure.analysis.graph.values for name in value.names}
    prefix = f"{path}." if path else ""
    for _, name, _ in owned_tensors(skeleton):
        if prefix + name not in ids:
            return f"the config makes a tensor {name} that the model does not have"
    root = skeleton if not path else _with_module(cut.code.model, path, skeleton)
    found = cut.code.replay_other(root, cut.plan.keep)
    if found.error is not None:
        return f"the code of a model built from the config takes another way: {found.error}"
    if found.mismatches:
        return f"a model built from the config computes otherwise: {found.mismatches[0]}"
    if _factors(found) != _factors(cut.found):
        return "a model built from the config scales by another width"
    return ""


def _with_module(model: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A copy of ``model`` without weights, with ``part`` at a path."""
    root = copy_with(model, lambda source, name, tensor: tensor.detach().to("meta"))
    owner, _, name = path.rpartition(".")
    setattr(root.get_submodule(owner), name, part)
    return root


def _factors(found: Replayed) -> set[tuple[Any, float]]:
    return {
        (tuple((name, dim, rows.tobytes()) for name, dim, rows in scale.fold.rows), round(scale.factor, 9))
        for scale in found.scales
    }
