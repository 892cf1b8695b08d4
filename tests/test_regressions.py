"""Every failure that random networks, or people, have found: one named example each.

An example that fails still is a strict ``xfail`` with its reason: it turns red the day that it is cured.
"""

import pytest
import torch
from torch import nn

import secateur
from oracle import check_cut, outputs, random_labels, randomise, snapshot_of
from strategies import Recipe
from test_random_networks import check_network

CASES: dict[str, tuple[Recipe, int]] = {
    "hidden axis of an LSTM torn from its gates": (
        Recipe("sequence", 8, [("Recurrent", {
            "hidden": 2, "cell": "lstm", "layers": 1, "bidirectional": False, "bias": True, "use": "all",
        })]), 0,
    ),
    "projected LSTM whose widths become equal": (
        Recipe("sequence", 4, [("Recurrent", {
            "hidden": 6, "cell": "lstm", "layers": 2, "bidirectional": False, "bias": True, "use": "state",
            "proj": 5,
        })]), 88974,
    ),
    "zero over zero in a weight norm": (
        Recipe("image", 7, [("Parametrized", {"out": 8, "how": "weight"})]), 1,
    ),
    "spectral norm that moves when its weight is read": (
        Recipe("image", 8, [("Parametrized", {"out": 7, "how": "spectral"})], head="flatten"), 7,
    ),
    "one attribute for the number of heads and for their width": (
        Recipe("sequence", 5, [("Adapted", {"out": 2, "rank": 1}), ("FusedAttention", {
            "heads": 2, "head_dim": 2, "split": "chunk", "how": "fused", "bias": True, "norm": "none",
        })], stem="embedding"), 2,
    ),
    "factor put on queries and keys": (
        Recipe("sequence", 6, [("FusedAttention", {
            "heads": 2, "head_dim": 2, "split": "chunk", "how": "root_of_size", "bias": True, "norm": "none",
        })], head="flatten"), 2,
    ),
    "list of sizes that are equal by chance": (
        Recipe("sequence", 5, [
            ("StateSpace", {"inner": 2, "state": 3, "rank": 1}),
            ("StateSpace", {"inner": 3, "state": 2, "rank": 2}),
        ], stem="embedding", head="flatten"), 633,
    ),
    "convolution whose groups all go but one": (
        Recipe("sequence", 3, [("StateSpace", {"inner": 4, "state": 3, "rank": 2})], "embedding", "flatten"),
        58983,
    ),
    "slices whose bounds are multiples of one width": (
        Recipe("image", 7, [("Hierarchical", {"slices": 2, "each": 3, "how": "slice"})]), 7,
    ),
    "slices of four parts": (
        Recipe("image", 6, [("Hierarchical", {"slices": 4, "each": 3, "how": "slice"})]), 238260,
    ),
    "slice that vanishes when a half is taken off": (
        Recipe("image", 6, [("Modulated", {"hidden": 6, "how": "slice"})]), 0,
    ),
    "grouped queries with balance on an axis that keeps its labels": (
        Recipe("sequence", 5, [
            ("FeedForward", {"hidden": 2, "how": "chunk", "bias": True}),
            ("GroupedAttention", {
                "kv_heads": 2, "repeats": 2, "head_dim": 4, "value_dim": 4, "repeat": "expand",
                "how": "fused", "rotary": False,
            }),
            ("FeedForward", {"hidden": 4, "how": "glu", "bias": False}),
        ], stem="embedding"), 79,
    ),
    "factor computed from a width, in a model that writes no sizes": (
        Recipe("image", 6, [("Normalised", {"out": 6, "how": "root_of_width"})]), 0,
    ),
    "tensordot over a single position": (
        Recipe("image", 8, [
            ("Ghost", {"out": 7, "ratio": 3}),
            ("Mixed", {"out": 4, "how": "tensordot"}),
            ("Mixed", {"out": 3, "how": "tensordot"}),
        ], head="flatten"), 3,
    ),
    "view of one tensor in the shape of another": (
        Recipe("sequence", 3, [("Experts", {"experts": 3, "hidden": 2, "how": "bmm"})]), 3,
    ),
    "view in the shape of another, tied": (
        Recipe("sequence", 2, [("Experts", {"experts": 3, "hidden": 2, "how": "bmm"})], "embedding", "tied"),
        462,
    ),
    "repeats of key heads that are equal by chance": (
        Recipe("sequence", 6, [
            ("GroupedAttention", {
                "kv_heads": 2, "repeats": 3, "head_dim": 4, "value_dim": 3, "repeat": "interleave",
                "how": "einsum", "rotary": True,
            }),
            ("GroupedAttention", {
                "kv_heads": 2, "repeats": 2, "head_dim": 4, "value_dim": 3, "repeat": "interleave",
                "how": "fused", "rotary": False,
            }),
        ], stem="embedding", head="dict"), 1,
    ),
    "list of products of sizes": (
        Recipe("sequence", 6, [("Folded", {"heads": 2, "head_dim": 2, "how": "multi_query"})]), 5475,
    ),
    "normalised weights in the shape of two widths": (
        Recipe("image", 5, [("Dynamic", {"out": 5, "how": "cosine"})], head="flatten"), 19348,
    ),
}  # fmt: skip

# What fails still, and why.
OPEN: dict[str, str] = {}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=OPEN[name]) if name in OPEN else ())
        for name in CASES
    ],
)
def test_random_network_that_failed_once(name: str) -> None:
    check_network(*CASES[name])


def test_labels_that_stay_as_zeros_do_not_reach_the_users_weights() -> None:
    """``inplace=False`` wrote its zeros into the user's own tensors where nothing was cut off them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), Chunked(), nn.Linear(12, 3)).double()
    args = (torch.randn(2, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(model), args)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, *_ = ir.groups()
    small = check_cut(ir, first.labels[:3], args, exact=True)
    assert small is not model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Chunked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left.relu(), right.tanh()], dim=-1)


class Factored(nn.Module):
    """Queries that are shifted before they are divided by the root of their width."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.q, self.k, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(3, 3)
        self.shift = nn.Parameter(torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        if self.how == "number":
            q = q + 1.0
        elif self.how == "parameter":
            q = q + self.shift
        elif self.how == "square":
            q = q * q
        return self.out((q @ self.k(x).mT / q.shape[-1] ** 0.5).softmax(-1))


@pytest.mark.parametrize("how", ["plain", "number", "parameter", "square"])
def test_factors_pass_through_sums_only_whole(how: str) -> None:
    """A factor was folded past ``+ 1.0``, ``+ parameter`` and squares, which do not scale with it."""
    args = (torch.randn(2, 3, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(Factored(how).double()), args)
    for seed in range(3):
        labels = random_labels([group for group in ir.groups() if group.exact], seed)
        check_cut(ir, labels, args, exact=True)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, more: bool = False) -> torch.Tensor:
        h = self.a(x)
        return self.c(self.b(h) + h if more else h)


def test_parameters_that_the_run_does_not_use_are_not_offered() -> None:
    ir = snapshot_of(Branching(), (torch.randn(2, 4),))
    assert not any(name.startswith("b.") for group in ir.groups() for name, _ in group.parameters)


def test_a_leaf_module_given_as_an_object_is_kept_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    ir = secateur.PruningIR(model, leaf_modules=[model[1]])
    ir.create_snapshot("main", (torch.randn(2, 4),))
    assert not ir.groups()


def test_a_tensor_attribute_with_a_history_is_copied() -> None:
    """A model that keeps its last features: reading the ``grad`` of such a tensor warns."""

    class Remembering(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = self[0](x)
            return self[1](self.last)

    model = Remembering(nn.Linear(4, 8), nn.Linear(8, 3))
    x = torch.randn(2, 4)
    model(x)
    ir = snapshot_of(model, (x,))
    small = ir.prune(labels=random_labels(ir.groups(), 0)).model
    assert outputs(small, (x,), {})["output"].shape == (2, 3)


class Squeezed(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).mean((2, 3), keepdim=True)
        if self.how == "in place":
            return self.head(x.squeeze_())
        return self.head(x.squeeze() if self.how == "all" else x.squeeze((1, 2, 3)))


@pytest.mark.parametrize("how", ["all", "some", "in place"])
def test_squeeze_does_not_take_an_axis_that_is_cut_to_one(how: str) -> None:
    """A channel stays, as zeros: of a single one ``squeeze`` would take the whole axis off."""
    args = (torch.randn(2, 3, 5, 5, dtype=torch.float64),)
    ir = snapshot_of(randomise(Squeezed(how).double()), args)
    (group,) = ir.groups()
    small = check_cut(ir, group.labels[1:], args, exact=True)
    assert small.get_parameter("conv.weight").shape == (2, 3, 1, 1)


class Guarded(nn.Module):
    """Rotary tables whose size is asserted, and heads that the code counts by the width of its input."""

    def __init__(self, heads: int = 5, features: int = 8) -> None:
        super().__init__()
        self.heads, self.features = heads, features
        self.embed = nn.Linear(5, heads * features)
        self.qkv = nn.Linear(heads * features, 3 * heads * features)
        self.proj = nn.Linear(heads * features, heads * features)
        self.head = nn.Linear(heads * features, 3)
        self.register_buffer("periods", torch.rand(features // 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.periods.numel() == 4
        x = self.embed(x)
        batch, length, width = x.shape
        angles = torch.arange(length, dtype=x.dtype)[:, None] * self.periods
        turned = torch.cat([angles.cos(), angles.sin()], -1)
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q * turned, k * turned, v)
        return self.head(x + self.proj(y.transpose(1, 2).reshape(batch, length, width)))


def test_an_assertion_of_one_axis_does_not_pin_the_others() -> None:
    """All axes were blamed for a run that ended early, before the code came to what relates the others."""
    args = (torch.randn(2, 6, 5, dtype=torch.float64),)
    ir = snapshot_of(randomise(Guarded().double()), args)
    assert {group.size for group in ir.groups()} >= {40, 5}
    assert ir.reach() > 0.9
    for share in (0.5, None):
        check_cut(ir, random_labels(ir.groups(), 0, share), args, exact=True)
