"""Whole experts, and entries of a codebook: what competes, and addresses parameters with the winners.

Zero is no absence for these: a router's row of zeros still gives a score. What the small model has to
equal is the model that can never choose the experts that are gone: here their scores are made -inf.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from oracle import difference, outputs, random_labels, randomise, snapshot_of
from secateur import Group, Label, PruningIR

EXPERTS, BEST = 6, 2


class Routed(nn.Module):
    """A layer, experts of which each token takes the best two, a head."""

    def __init__(self, how: str, bias: bool = False) -> None:
        super().__init__()
        self.num_experts, self.top_k, self.how = EXPERTS, BEST, how
        self.embed = nn.Linear(5, 8)
        self.router = nn.Linear(8, EXPERTS, bias=bias)
        self.up = nn.Parameter(torch.randn(EXPERTS, 8, 7))
        self.down = nn.Parameter(torch.randn(EXPERTS, 7, 8))
        self.bias = nn.Parameter(torch.randn(EXPERTS, 8))
        self.head = nn.Linear(8, 3)
        self.excluded: list[int] = []

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.router(x)
        if self.excluded:
            logits = logits.index_fill(-1, torch.tensor(self.excluded), float("-inf"))
        return logits.softmax(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        scores = self.scores(x)
        weights, chosen = scores.topk(self.top_k, dim=-1)
        if self.how == "one hot":
            chosen = F.one_hot(chosen, num_classes=self.num_experts).to(x.dtype)
            made = torch.einsum("td,edh->teh", x, self.up).relu()
            made = torch.einsum("teh,ehd->ted", made, self.down) + self.bias
            return self.head(torch.einsum("tke,ted,tk->td", chosen, made, weights))
        if self.how == "gather":
            weights = scores.gather(-1, chosen)
        if self.how == "two rounds":  # the best one, and the best of the others
            first = scores.max(-1, keepdim=True)[1]
            second = scores.scatter(-1, first, float("-inf")).max(-1, keepdim=True)[1]
            chosen = torch.cat([first, second], -1)
        if self.how == "scatter":  # all are run, and those that were not chosen weigh nothing
            kept = torch.full_like(scores, float("-inf")).scatter_(-1, chosen, weights).sigmoid()
            made = torch.einsum("td,edh->teh", x, self.up).relu()
            made = torch.einsum("teh,ehd->ted", made, self.down) + self.bias
            return self.head(torch.einsum("ted,te->td", made, kept))
        weights = weights / weights.sum(-1, keepdim=True)
        if self.how == "loop":
            return self.head(self.looped(x, weights, chosen))
        hidden = torch.einsum("td,tkdh->tkh", x, self.up[chosen]).relu()
        made = torch.einsum("tkh,tkhd->tkd", hidden, self.down[chosen]) + F.embedding(chosen, self.bias)
        return self.head((made * weights[..., None]).sum(1))

    def looped(self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        made = torch.zeros_like(x)
        for expert in range(self.num_experts):
            token, place = torch.where(chosen == expert)
            value = (x[token] @ self.up[expert]).relu() @ self.down[expert]
            made = made.index_add(0, token, value * weights[token, place, None])
        return made


class Codebook(nn.Module):
    """Each token becomes the nearest entry of a codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.entries = nn.Parameter(torch.randn(EXPERTS, 8))
        self.excluded: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(self.embed(x), self.entries)
        if self.excluded:
            distances = distances.index_fill(-1, torch.tensor(self.excluded), float("inf"))
        return self.head(F.embedding(distances.argmin(-1), self.entries))


def routed(ir: PruningIR) -> list[Group]:
    return [group for group in ir.groups() if group.role == "experts"]


def check_exclusion(model: nn.Module, choose: Callable[[Group], list[Label]]) -> nn.Module:
    """The small model equals the one that never takes the experts that are gone."""
    args = (torch.randn(9, 5, dtype=torch.float64),)
    ir = snapshot_of(model, args)
    (group,) = routed(ir)
    assert group.size == EXPERTS and not group.exact
    labels = choose(group)
    small = ir.prune(labels=labels).model
    excluding = copy.deepcopy(model)
    excluding.excluded = [label.index for label in labels]
    assert difference(outputs(excluding, args, {}), outputs(model, args, {})) > 1e-2
    assert difference(outputs(excluding, args, {}), outputs(small, args, {})) < 1e-12
    return small


@pytest.mark.parametrize("how", ["index", "gather", "one hot", "two rounds", "scatter"])
def test_whole_experts_go_with_their_row_of_the_router(how: str) -> None:
    model = Routed(how, bias=how == "index").double()
    small = check_exclusion(model, lambda group: random_labels([group], 0))
    assert small.up.shape == (3, 8, 7) and small.router.out_features == 3
    assert small.num_experts == (3 if how == "one hot" else EXPERTS)


def test_as_many_experts_stay_as_a_token_takes() -> None:
    small = check_exclusion(Routed("index").double(), lambda group: group.labels[: EXPERTS - BEST])
    assert small.down.shape[0] == BEST
    ir = snapshot_of(small, (torch.randn(9, 5, dtype=torch.float64),))
    again = ir.prune(labels=routed(ir)[0].labels[:1])
    assert again.model.down.shape[0] == BEST  # one more would leave too few: it stays, as zeros
    assert again.report is not None and len(again.report.zeroed) == 1


def test_the_report_says_that_choices_among_fewer_experts_are_not_imposed() -> None:
    ir = snapshot_of(Routed("index").double(), (torch.randn(9, 5, dtype=torch.float64),))
    other = [group for group in ir.groups() if group.role != "experts"]
    where = {}
    for cut, groups in (("experts", routed(ir)), ("widths", other)):
        report = ir.prune(labels=random_labels(groups, 0)).report
        assert report is not None and report.verification is not None
        where[cut] = report.verification.at
    assert where["widths"].endswith("choices imposed (topk)")
    assert where["experts"].endswith("(topk) up to the first among another number of positions")


def test_entries_of_a_codebook() -> None:
    small = check_exclusion(Codebook().double(), lambda group: group.labels[::2])
    assert small.entries.shape == (3, 8)


def test_code_that_reads_the_numbers_of_experts_keeps_them_all() -> None:
    ir = snapshot_of(Routed("loop").double(), (torch.randn(9, 5, dtype=torch.float64),))
    assert routed(ir) == []
    (reason,) = {pin.reason for pin in ir.pinned() if pin.name == "router.weight[0]"}
    assert reason == "the code reads its positions as numbers"
    inner = [group for group in ir.groups() if group.size == 7]
    assert [group.exact for group in inner] == [True]


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
@pytest.mark.parametrize(("how", "dtype"), [("batched_mm", torch.float64), ("grouped_mm", torch.float32)])
def test_fused_experts_of_transformers(kind: str, how: str, dtype: torch.dtype) -> None:
    transformers = pytest.importorskip("transformers")
    experts = {"mixtral": "num_local_experts", "qwen2_moe": "num_experts"}[kind]
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=32, hidden_size=16, intermediate_size=24, moe_intermediate_size=8,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, num_experts_per_tok=2,
        use_cache=False, shared_expert_intermediate_size=12, **{experts: EXPERTS},
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    model.config._experts_implementation = how
    randomise(model)
    ids = torch.randint(32, (2, 5))
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", (ids,))
    groups = routed(ir)
    assert [group.size for group in groups] == [EXPERTS, EXPERTS]
    small = ir.prune(labels=[label for group in groups for label in group.labels[1::2]]).model
    assert getattr(small.config, experts) == 3
    excluding = copy.deepcopy(model)
    handles = [excluding.model.layers[i].mlp.gate.register_forward_hook(_excluded) for i in range(2)]
    expected, made = outputs(excluding, (ids,), {}), outputs(small, (ids,), {})
    assert len(handles) == 2
    assert difference(expected, outputs(model, (ids,), {})) > 1e-3
    assert difference(expected, made) < (1e-12 if dtype is torch.float64 else 1e-5)
    assert small.generate(ids, max_new_tokens=2, do_sample=False).shape == (2, 7)


def _excluded(router: nn.Module, args: tuple[torch.Tensor, ...], result: tuple[torch.Tensor, ...]) -> object:
    """What a router of transformers returns if experts 1, 3 and 5 cannot be chosen."""
    logits = F.linear(args[0].flatten(0, -2), router.weight)
    logits[:, 1::2] = float("-inf")
    scores, chosen = logits.float().softmax(-1).topk(2, dim=-1)
    if getattr(router, "norm_topk_prob", True):
        scores = scores / scores.sum(-1, keepdim=True)
    return logits, scores.to(result[1].dtype), chosen
