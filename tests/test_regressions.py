"""Every failure that random networks, or people, have found: one named example each.

An example that fails still is a strict ``xfail`` with its reason: it turns red the day that it is cured.
"""

import pytest
import torch
from torch import nn

import secateur
from oracle import check_cut, outputs, random_labels, randomise, snapshot_of
from secateur import VerificationError
from secateur.verification import Verification
from strategies import Recipe
from test_random_networks import check_network

CASES: dict[str, tuple[Recipe, int]] = {
    "literal of a view that grew back in the trial": (
        Recipe("image", 2, [
            ("Functional", {"out": 6, "groups": 1, "how": "plain"}),
            ("Residual", {"inside": [
                ("ConvNorm", {
                    "out": 2, "kernel": 1, "groups": 1, "bias": False, "norm": "batch", "act": "relu",
                    "order": "cna",
                }),
                ("Shared", {"groups": 1, "separate_norms": False}),
            ], "write": "plain", "project": True, "after": "none"}),
            ("Gated", {"out": 3, "how": "maxout", "act": "relu"}),
        ]), 0,
    ),
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
    "one size for what goes in and what comes out": (
        Recipe("sequence", 5, [
            ("Experts", {"experts": 3, "hidden": 3, "how": "bmm"}),
            ("Experts", {"experts": 3, "hidden": 6, "how": "bmm"}),
        ]), 11587,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
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


class Counted(nn.Module):
    """Outputs as long as data decides: durations of speech, say."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 32), nn.LayerNorm(32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.norm(self.a(x)))
        times = (y.abs().sum(-1) * 3).round().long() + 1
        return y.repeat_interleave(times, 0)


def test_durations_that_data_decides_are_compared_at_the_masked_models() -> None:
    """Inexact cuts raised: outputs were of other lengths, since a float had become a count."""
    torch.manual_seed(0)
    args = (torch.randn(6, 4),)
    ir = snapshot_of(randomise(Counted()), args)
    (group,) = ir.groups()
    assert not group.exact
    report = ir.prune(labels=random_labels([group], 0)).report
    assert report is not None
    assert report.verification is not None
    assert "conversion to integers" in report.verification.at


class Chaotic(nn.Module):
    """A logistic map doubles a difference at every step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.a, self.b = nn.Linear(4, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x).tanh()).sigmoid()
        for _ in range(self.steps):
            y = 4 * y * (1 - y)
        return y


def pruned_at(steps: int, dtype: torch.dtype) -> Verification:
    torch.manual_seed(0)
    model = randomise(Chaotic(steps)).to(dtype)
    ir = snapshot_of(model, (torch.randn(6, 4, dtype=dtype),))
    report = ir.prune(labels=random_labels(ir.groups(), 0)).report
    assert report is not None
    assert report.verification is not None
    return report.verification


@pytest.mark.parametrize("steps", [1, 14])
def test_rounding_that_a_model_makes_much_of_is_no_difference(steps: int) -> None:
    found = pruned_at(steps, torch.float32)
    assert found.passed
    assert (found.error > found.tolerance) is (steps > 1)
    assert ("last bit" in str(found)) is (steps > 1)


def test_outputs_that_rounding_makes_anything_of_prove_nothing() -> None:
    with pytest.raises(VerificationError, match=r"last bit alone moves .* Prune model\.double\(\)"):
        pruned_at(40, torch.float32)
    assert pruned_at(40, torch.float64).passed


class Listed(nn.Module):
    """Experts that are called with the tokens that a list of counts says, as JetMoE does."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.up, self.down = nn.Linear(6, 3), nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best = self.router(x).argmax(-1)
        counts = torch.stack([(best == n).sum() for n in range(3)]).tolist()
        order = best.argsort()
        parts = x[order].split(counts)
        made = [self.down(self.up(part).relu()) * (n + 1) for n, part in enumerate(parts)]
        return torch.cat(made)


def test_values_read_by_tolist_are_followed() -> None:
    """They were not recorded: nothing of the model was in reach."""
    args = (torch.randn(7, 6, dtype=torch.float64),)
    ir = snapshot_of(randomise(Listed().double()), args)
    assert "up" in {group.name for group in ir.groups()}
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


class InATensor(nn.Module):
    """Code that keeps a width in a tensor: to slice by it, or to divide by its root."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.width = how, 6
        self.a, self.b = nn.Linear(4, 12 if how == "slice" else 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.how == "slice":
            width = torch.IntTensor([self.width])[0]
            return self.b(y[:, :width].tanh() * y[:, width:].sigmoid())
        return self.b(y / torch.sqrt(torch.tensor(float(y.shape[1])))).tanh()


@pytest.mark.parametrize("how", ["slice", "root"])
def test_a_width_kept_in_a_tensor_is_followed(how: str) -> None:
    """The value that was recorded came back, whatever the code had put there."""
    args = (torch.randn(5, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(InATensor(how).double()), args)
    assert ir.groups()
    for seed in range(3):
        check_cut(ir, random_labels(ir.groups(), seed), args, exact=True)


class Reflected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x))
        limit = torch.arange(5).tolist()
        kept = torch.tensor([limit, limit]) < torch.full((2, 1), 3)
        same = torch.tensor([limit, limit]) == torch.full((2, 1), 3)
        return torch.where(kept & ~same, y[:, :1], y[:, 1:2])


def test_comparisons_that_python_reflects_are_the_same_operator() -> None:
    """``constant < ghost`` becomes ``ghost > constant``: another operator than was recorded."""
    args = (torch.randn(2, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(Reflected().double()), args)
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


class Unequal(nn.Module):
    """A width of 16 in three pieces: 6, 6, 4."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *rest = self.embed(x).chunk(3, -1)
        return self.head(torch.cat([first.tanh(), *rest], -1))


def test_pieces_that_are_not_equal_lose_alike() -> None:
    """They were pinned. EdgeNeXt chunks 160 channels in three."""
    args = (torch.randn(7, 5, dtype=torch.float64),)
    ir = snapshot_of(randomise(Unequal().double()), args)
    assert [group.size for group in ir.groups()] == [6, 6, 4]
    for share in (0.3, 0.6, None):
        check_cut(ir, random_labels(ir.groups(), 1, share), args, exact=True)


class Fields:
    """A config that refuses to name one width for all layers."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __getattribute__(self, name: str) -> object:
        if name == "width":
            raise RuntimeError("layers differ: ask for theirs")
        return super().__getattribute__(name)


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config, self.number = Fields(6), 6
        self.a, self.b = nn.Linear(4, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = self.number if hasattr(self.config, "other") or self.config else self.config.width
        return self.b(self.a(x).view(-1, 2, width).tanh().flatten(1))


def test_a_field_that_cannot_be_read_is_no_candidate() -> None:
    """Gemma 4's config raised in the middle of the analysis."""
    args = (torch.randn(2, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(Refusing().double()), args)
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


class Foretold(nn.Module):
    """Raises about one width before the code comes to where it is used, with a factor wrong before that."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 6
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 10)
        self.left, self.right = nn.Linear(6, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = self.second((y + 1.0) / torch.tensor(float(y.shape[1])))
        if y.shape[1] - self.hidden <= 0:
            raise ValueError("too few channels")
        hidden, context = y.split([self.hidden, y.shape[1] - self.hidden], 1)
        return self.left(hidden.tanh()) + self.right(context.relu())


def test_an_error_is_guessed_about_where_another_mismatch_has_no_candidate() -> None:
    """RAFT's context encoder was pinned, since its feature encoder divides by a root of its width."""
    args = (torch.randn(2, 4, dtype=torch.float64),)
    ir = snapshot_of(randomise(Foretold().double()), args)
    assert {group.size for group in ir.groups()} >= {6, 4}
    check_cut(ir, random_labels(ir.groups(), 0), args, exact=True)


class Overlapping(nn.Module):
    """Windows that overlap by half, as Longformer's: strides of its own along the positions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.features = 3, 4
        self.q, self.out = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(2, 8, self.heads, self.features).transpose(1, 2).reshape(-1, 8, self.features)
        chunks = q.view(q.shape[0], 2, 4, q.shape[2])
        size, stride = list(chunks.size()), list(chunks.stride())
        size[1], stride[1] = size[1] * 2 - 1, stride[1] // 2
        windows = chunks.as_strided(size=size, stride=stride).tanh().sum((1, 2))
        return self.out(windows.view(2, -1))


def test_windows_that_overlap_leave_heads_and_features_free() -> None:
    """Everything was pinned that is viewed with strides of its own."""
    args = (torch.randn(2, 8, 5, dtype=torch.float64),)
    ir = snapshot_of(randomise(Overlapping().double()), args)
    assert [group.size for group in ir.groups()] == [3, 4]
    for share in (0.5, None):
        check_cut(ir, random_labels(ir.groups(), 0, share), args, exact=True)
