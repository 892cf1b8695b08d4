"""Files and factories that do not fit are refused, with both sides named and nothing written."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import secateur
from saved_models import INPUT, Factory, Small, on_meta, pruned
from secateur import PersistenceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.safetensors"


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


def with_one_more() -> nn.Module:
    model = Small()
    model.extra = nn.Parameter(torch.ones(2))
    return model


def with_one_less() -> nn.Module:
    model = Small()
    del model.norm
    return model


def with_other_heads() -> nn.Module:
    model = Small()
    model.heads = 2
    return model


def with_a_tie() -> nn.Module:
    model = Small()
    model.norm.bias = model.first.bias
    return model


MISMATCHES: dict[str, tuple[Factory, str]] = {
    "class": (Other, r"class: the factory builds .*\.Other, the file holds .*\.Small"),
    "width": (lambda: Small(16), r"first.weight: \(16, 4\) .* the file's was cut from \(8, 4\)"),
    "missing": (with_one_more, r"extra: the factory's model has it, \(2,\); the file does not"),
    "unexpected": (
        with_one_less,
        r"norm.weight: the file has it, \(\d,\); the factory's",
    ),
    "attribute": (with_other_heads, r"heads: 2 in the factory's model, 4 in the recipe"),
    "tie": (with_a_tie, r"norm.bias and first.bias: one tensor in the factory's model, two in the"),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_a_factory_that_does_not_fit_is_told_both_sides(kind: str, path: Path) -> None:
    secateur.save(pruned(Small(), INPUT), path)
    factory, message = MISMATCHES[kind]
    with pytest.raises(PersistenceError, match=message):
        secateur.load(factory, path)
    with pytest.raises(PersistenceError, match="as it was before its first pruning"):
        secateur.load(factory, path)


def test_attention_of_another_class_does_not_fit(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    class Mine(nn.MultiheadAttention):
        pass

    def other() -> nn.Module:
        layer = factory()
        layer.self_attn.__class__ = Mine
        return layer

    secateur.save(pruned(factory(), torch.randn(2, 5, 16)), path)
    with pytest.raises(PersistenceError, match=r"self_attn: .*Mine.* in the factory's model"):
        secateur.load(other, path)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Small(), "is a function that builds the original model, got Small"),
        ("Small", "is a function that builds the original model, got str"),
        (lambda: None, "returned NoneType, and an nn.Module is needed"),
    ],
)
def test_a_factory_has_to_be_one(factory: Any, message: str, path: Path) -> None:
    secateur.save(Small(), path)
    with pytest.raises(TypeError, match=message):
        secateur.load(factory, path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The file with another recipe in it."""
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["secateur"])
    tree = change(tree) or tree
    save_file(load_file(path), path, {"secateur": json.dumps(tree)})


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda t: t.update(version=2), "version 2, and this Secateur reads version 1"),
    "no object": (lambda t: [1], "the recipe is damaged"),
    "missing": (lambda t: t.pop("tensors") and None, "damaged .*KeyError: 'tensors'"),
    "kept": (
        lambda t: t["tensors"]["first.weight"].update(kept=["0-99", None]),
        "'0-99' are no positions of a dimension of 8",
    ),
    "order": (
        lambda t: t["tensors"]["first.weight"].update(kept=["3,1", None]),
        "'3,1' are no positions of a dimension of 8",
    ),
    "type": (lambda t: t["attributes"][0].update(before="4"), "expected a number, got '4'"),
    "path": (lambda t: t["attributes"][0].update(path=["__class__"]), "no path to an attribute"),
    "refit": (
        lambda t: t["refits"].append({"type": "os.system"}),
        "nothing is known of .*system",
    ),
    "after": (
        lambda t: t["tensors"]["first.weight"].update(kept=["0", None]),
        r"first.weight: \(\d, 4\) in the file, \(1, 4\) in its recipe",
    ),
    "strides": (lambda t: t["strides"].update({"first.weight": [99, 1]}), "do not fit the shape"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_recipe_is_refused(kind: str, path: Path) -> None:
    secateur.save(pruned(Small(), INPUT), path)
    change, message = DAMAGES[kind]
    rewritten(path, change)
    with pytest.raises(PersistenceError, match=message):
        secateur.load(Small, path)


def test_files_of_other_kinds_are_refused(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        secateur.load(Small, path)
    path.write_bytes(pickle.dumps(Small().state_dict()))
    with pytest.raises(PersistenceError, match="is no safetensors file"):
        secateur.load(Small, path)
    save_file(Small().state_dict(), path)
    with pytest.raises(PersistenceError, match="tensors but no recipe"):
        secateur.load(Small, path)


def test_what_cannot_be_saved_says_why_and_leaves_the_old_file(path: Path) -> None:
    secateur.save(Small(), path)
    before = path.read_bytes()
    with pytest.raises(PersistenceError, match="shift is on the meta device"):
        secateur.save(on_meta(Small)(), path)
    with pytest.raises(PersistenceError, match="GraphModule has its sizes in its code"):
        secateur.save(torch.fx.symbolic_trace(Small()), path)
    model = Small()
    model.odd = torch.eye(3).to_sparse()
    with pytest.raises(PersistenceError, match="odd is a sparse_coo tensor"):
        secateur.save(model, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_file_may_be_read_by_whoever_may_read_others(path: Path) -> None:
    secateur.save(Small(), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_views_of_one_memory_are_saved_apart(path: Path) -> None:
    model = Small()
    base = torch.arange(16.0)
    model.table, model.shift = base[:8], base[8:]
    secateur.save(model, path)
    assert torch.equal(secateur.load(Small, path).shift, base[8:])
