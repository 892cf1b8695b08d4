"""Models are called as their users call them: any tree of arguments, any tree of results."""

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from oracle import check_cut, random_labels, randomise, snapshot_of


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Batch:
    features: torch.Tensor
    scale: float = 1.0


class Heads(nn.Module):
    """Two inputs, two layers, and results in whatever shape ``form`` says."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.table = nn.Embedding(7, 8)

    def forward(self, x: Any, ids: torch.Tensor | None = None, *, factor: float = 1.0, **more: Any) -> Any:
        if self.form == "dataclass":
            x = x.features * x.scale
        elif self.form == "named tuple":
            x = x.left + x.right
        elif self.form == "dict":
            x = x["first"] + x["rest"][0]
        elif self.form == "list":
            x = sum(x)
        h = self.a(x) * factor
        if ids is not None:
            h = h + self.table(ids)
        for extra in more.values():
            h = h + self.a(extra)
        y = self.b(h.relu())
        results = {
            "dataclass": lambda: Batch(y), "named tuple": lambda: Pair(y, -y), "list": lambda: [y, [y + 1]],
            "dict": lambda: OrderedDict(first=y, none=None, number=3),
        }  # fmt: skip
        return results.get(self.form, lambda: y)()


X = torch.randn(2, 4)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("plain", (X,), {}),
    ("plain", (), {"x": X}),
    ("plain", (X, torch.tensor([1, 6])), {}),
    ("plain", (X,), {"ids": torch.tensor([1, 6]), "factor": 0.5}),
    ("plain", (X,), {"extra": X + 1, "another": X * 2}),
    ("dataclass", (Batch(X, 2.0),), {}),
    ("named tuple", (Pair(X, X + 1),), {}),
    ("dict", ({"first": X, "rest": (X + 1, "text")},), {}),
    ("list", ([X, X + 1],), {}),
]


@pytest.mark.parametrize(("form", "args", "kwargs"), CALLS)
def test_any_tree_goes_in_and_comes_out(form: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    model = randomise(Heads(form))
    ir = snapshot_of(model, args, kwargs)
    groups = ir.groups()
    assert "a" in [group.name for group in groups if group.exact]
    labels = random_labels([group for group in groups if group.name == "a"], 0)
    if form == "dataclass":  # the oracle opens mappings and sequences
        small = ir.prune(labels=labels)
        assert small.report.verification.passed
        assert isinstance(small.model(*args), Batch)
    else:
        check_cut(ir, labels, args, kwargs, exact=True)


def test_outputs_are_pinned_by_their_path() -> None:
    ir = snapshot_of(Heads("dict"), ({"first": X, "rest": (X,)},))
    assert any("output['first']" in pin.reason for pin in ir.pinned())
    assert any("args[0]['first']" in pin.reason for pin in ir.pinned())


def test_a_models_own_output_class_comes_back() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertModel(config).eval()
    ids = torch.randint(0, 11, (2, 5))
    ir = snapshot_of(model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    small = ir.prune(labels=random_labels([g for g in ir.groups() if g.exact], 0)).model
    assert type(small(ids)) is type(model(ids))


def test_two_snapshots_are_both_verified() -> None:
    model = randomise(Heads("plain"))
    ir = snapshot_of(model, (X,))
    ir.create_snapshot("ids", (X, torch.tensor([0, 3])))
    labels = random_labels(ir.groups("ids"), 0)
    small = ir.prune("ids", labels=labels)
    assert len(small.report.verification.comparisons) == 4
    assert small.model.table.weight.shape == (7, 4)
