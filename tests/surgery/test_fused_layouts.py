"""Queries, keys and values from one projection, in layouts of their own; weights that are used transposed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from oracle import check_cut, random_labels, randomise, snapshot_of
from secateur import PruningIR

# The layouts of Falcon, with what its heads and features are: query heads, key heads with theirs, features.
LAYOUTS = {
    "multi-query": (
        {"multi_query": True, "new_decoder_architecture": False}, [("heads", 4), ("features", 6)],
    ),
    "one key for each query": (
        {"multi_query": False, "new_decoder_architecture": False}, [("heads", 4), ("features", 6)],
    ),
    "grouped": (
        {"new_decoder_architecture": True, "num_attention_heads": 6, "num_kv_heads": 2},
        [("heads", 2), ("heads", 3), ("features", 6)],
    ),
}  # fmt: skip


def attention_groups(ir: PruningIR) -> list[tuple[str, int]]:
    found = [group for group in ir.groups() if "query_key_value" in group.name]
    assert all(group.exact for group in found)
    return [(group.role, group.size) for group in found]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_falcon(layout: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings, expected = LAYOUTS[layout]
    heads = settings.get("num_attention_heads", 4)
    config = transformers.FalconConfig(**{
        "vocab_size": 32, "hidden_size": 12 * heads, "num_hidden_layers": 1, "num_attention_heads": heads,
        "ffn_hidden_size": 40, **settings,
    })  # fmt: skip
    model = randomise(transformers.FalconForCausalLM(config).double().eval())
    ids = torch.randint(32, (2, 5))
    ir = secateur.PruningIR(model)
    ir.create_snapshot(kwargs={"input_ids": ids, "use_cache": False})
    assert attention_groups(ir) == expected  # features go in pairs: they are rotated with each other
    for seed, share in enumerate((0.5, None)):
        exact = [group for group in ir.groups() if group.exact]
        labels = random_labels(exact, seed, share)
        small = check_cut(ir, labels, (), {"input_ids": ids, "use_cache": False}, exact=True)
        assert small.generate(ids, max_new_tokens=2, do_sample=False).shape == (2, 7)
    each = [group.labels[0] for group in ir.groups() if group.role == "heads"]
    check_cut(ir, each, (), {"input_ids": ids, "use_cache": False}, exact=True)


class Transposed(nn.Module):
    """Attention whose projections multiply by transposed parameters of their own."""

    def __init__(self, turn: str, shared: bool = False) -> None:
        super().__init__()
        self.turn, self.shared, self.heads = turn, shared, 2
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.qkv = nn.Parameter(torch.randn(18, 8) if turn != "plain" else torch.randn(8, 18))
        self.out = nn.Parameter(torch.randn(8, 6))

    def weight(self) -> torch.Tensor:
        turns = {"T": lambda w: w.T, "t": torch.t, "mT": lambda w: w.mT, "plain": lambda w: w}
        turns |= {"permute": lambda w: w.permute(1, 0), "transpose": lambda w: w.transpose(-2, -1)}
        return turns[self.turn](self.qkv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (x @ self.weight()).chunk(3, -1)
        )
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ self.out.T
        if self.shared:  # a second reader: then the scale cannot go into the parameter
            x = x + (self.stem.bias @ self.weight()).sum()
        return self.head(x)


@pytest.mark.parametrize("turn", ["T", "t", "mT", "permute", "transpose", "plain"])
def test_a_scale_goes_into_a_parameter_that_is_used_transposed(turn: str) -> None:
    model = Transposed(turn).double()
    args = (torch.randn(2, 4, 5, dtype=torch.float64),)
    ir = snapshot_of(model, args)
    assert {(group.role, group.size, group.exact) for group in ir.groups()} == {
        ("", 8, True), ("", 8, True), ("heads", 2, True), ("features", 3, True),
    }  # fmt: skip
    features = [group for group in ir.groups() if group.role == "features"]
    small = ir.prune(labels=[group.labels[0] for group in features])
    cut = small.report.parameter_map[model.qkv]
    (scale,) = {(dim, len(rows), round(factor, 6)) for dim, rows, factor in cut.scales}
    assert scale == (1 if turn == "plain" else 0, 4, round((2 / 3) ** 0.5, 6))
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


def test_no_scale_goes_into_a_parameter_that_is_read_twice() -> None:
    ir = snapshot_of(Transposed("T", shared=True).double(), (torch.randn(2, 4, 5, dtype=torch.float64),))
    assert [group.exact for group in ir.groups() if group.role == "features"] == [False, True]  # of v


class Counted(nn.Module):
    """Positions that the code counts off, from either end, by lists of one number."""

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x * x[:, [self.position]])


@pytest.mark.parametrize(("position", "free"), [(0, 7), (-1, 7), (2, 5), (-3, 5)])
def test_what_lies_beyond_a_position_that_is_counted_off_is_free(position: int, free: int) -> None:
    model, args = Counted(position).double(), (torch.randn(4, 5, dtype=torch.float64),)
    ir = snapshot_of(model, args)
    assert [(group.size, group.exact) for group in ir.groups()] == [(free, True)]
    for share in (0.5, None):
        check_cut(ir, random_labels(ir.groups(), 0, share), args, exact=True)
