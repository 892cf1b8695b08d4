"""What is left of a run in its folder, so that it can go on after an interrupt: JSON and safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from .._errors import PersistenceError
from ._schema import Recipe

FILE = "state.json"
FORMAT = 1


@dataclass(frozen=True)
class Done:
    """A step that is finished.

    Attributes:
        name: as in the report, ``"1 prune"``.
        fingerprint: of the recipe up to this step.
        figures: what was measured after it.
        model: file of the model, in the folder; that of an earlier step where it did not change.
        ranges: file of the quantisation ranges; empty where there are none.
        seconds: how long it took.
        notes: what the step says of itself.
    """

    name: str
    fingerprint: str
    figures: dict[str, float]
    model: str
    ranges: str = ""
    seconds: float = 0.0
    notes: str = ""


@dataclass
class State:
    """The finished steps of a run, in order."""

    folder: Path
    done: list[Done] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, fingerprints: list[str]) -> State:
        """Those steps in a folder that are the same as in this recipe, up to the first that is not.

        Raises:
            PersistenceError: if the folder holds something else under the name of a state.
        """
        path = folder / FILE
        if not path.is_file():
            return cls(folder)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, and {FORMAT} is known")
            found = [Done(**step) for step in content["steps"]]
        except (ValueError, KeyError, TypeError) as error:
            raise PersistenceError(
                f"{path} is no state of a recipe ({type(error).__name__}: {error}): name another folder with "
                "--out, or begin anew with --fresh"
            ) from error
        same = 0
        for step, fingerprint in zip(found, fingerprints, strict=False):
            files = [folder / name for name in (step.model, step.ranges) if name]
            if step.fingerprint != fingerprint or not all(file.is_file() for file in files):
                break
            same += 1
        return cls(folder, found[:same])

    def add(self, done: Done) -> None:
        """Note a finished step; the file is replaced at once, so an interrupt leaves the old or the new."""
        self.done.append(done)
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "steps": [asdict(step) for step in self.done]}
        draft = self.folder / f".{FILE}.tmp"
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(self.folder / FILE)


def fingerprints(recipe: Recipe) -> list[str]:
    """One for the beginning and one for each step: what it and all before it say, the output folder aside."""
    content = recipe.model_dump(mode="json")
    head = {key: value for key, value in content.items() if key not in ("steps", "output")}
    found = [_hash(json.dumps(head, sort_keys=True))]
    for step in content["steps"]:
        found.append(_hash(found[-1] + json.dumps(step, sort_keys=True)))
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- ranges of quantisation ------------------------------------------------------------------------

Ranges = dict[str, dict[str, dict[str, Any]]]


def save_ranges(ranges: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Write a calibration config: its tensors, and the rest as JSON in the metadata."""
    tensors: dict[str, Tensor] = {}

    def stored(module: str, target: str, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        name = f"{module}|{target}|{key}"
        tensors[name] = value.detach().clone().contiguous()
        return {"tensor": name}

    save_file(tensors, path, {"ranges": json.dumps(_mapped(ranges, stored))})


def load_ranges(path: Path) -> Ranges:
    """Read what :func:`save_ranges` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["ranges"])
    tensors = load_file(path)

    def loaded(module: str, target: str, key: str, value: Any) -> Any:
        return tensors[value["tensor"]] if isinstance(value, dict) else value

    return _mapped(tree, loaded)


def _mapped(ranges: Mapping[str, Any], change: Callable[[str, str, str, Any], Any]) -> Ranges:
    return {
        module: {
            target: {key: change(module, target, key, value) for key, value in entry.items()}
            for target, entry in targets.items()
        }
        for module, targets in ranges.items()
    }
