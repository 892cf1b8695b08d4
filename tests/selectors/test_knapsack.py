"""Selection under a cost target: the optimum where all can be tried, the target where it cannot."""

import itertools
import sys
import time
from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

from secateur import (
    BinarySearchLatencyLabelSelector,
    ChannelsConstraint,
    DependencyError,
    GlobalScoreLabelSelector,
    KnapsackLabelSelector,
    LabelError,
    MeasurementError,
    PruningIR,
    TargetError,
    UniformLabelSelector,
)
from secateur.cost import Macs, Parameters, count_macs, mac_cost
from secateur.selectors import choose, relaxed_bound


def chain(*widths: int, seed: int = 0) -> PruningIR:
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    ir = PruningIR(nn.Sequential(*layers))
    ir.create_snapshot("main", args=(torch.ones(1, widths[0]),))
    draw = torch.Generator().manual_seed(seed)
    ir.snapshot().scores = {
        g.name: torch.rand(g.size, generator=draw) * torch.rand(1, generator=draw) for g in ir.groups()
    }
    return ir


def kept(ir: PruningIR, labels) -> float:
    gone = {(label.group, label.index) for label in labels}
    return sum(float(s) for n, t in ir.scores().items() for i, s in enumerate(t) if (n, i) not in gone)


def widths(ir: PruningIR, labels) -> dict[str, int]:
    counts = Counter(label.group for label in labels)
    return {g.name: g.size - counts[g.name] for g in ir.groups()}


def knapsack(ir: PruningIR, share: float, cost=None, **settings):
    cost = cost or Macs()
    full = cost.bind(ir.snapshot())({})
    selector = KnapsackLabelSelector(share * full, cost, verbose=False, **settings)
    return selector, selector.select(ir), share * full


@pytest.fixture(scope="module")
def resnet() -> PruningIR:
    ir = PruningIR(torchvision.models.resnet18(weights=None))
    ir.create_snapshot("main", args=(torch.zeros(1, 3, 64, 64),))
    draw = torch.Generator().manual_seed(1)
    ir.snapshot().scores = {
        g.name: torch.rand(g.size, generator=draw) * torch.rand(1, generator=draw) for g in ir.groups()
    }
    return ir


# -- the optimum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.7, 0.4, 0.2])
def test_small_instances_are_solved_to_the_optimum(seed, share):
    ir = chain(3, 6, 5, 7, 2, seed=seed)
    _, labels, limit = knapsack(ir, share)
    cost = mac_cost(ir.snapshot().structure)
    best = 0.0
    for levels in itertools.product(range(1, 7), range(1, 6), range(1, 8)):
        if cost(dict(zip(("0", "1", "2"), levels, strict=True))) <= limit:
            total = sum(
                float(t.sort(descending=True).values[:n].sum())
                for t, n in zip(ir.scores().values(), levels, strict=True)
            )
            best = max(best, total)
    assert kept(ir, labels) == pytest.approx(best)
    assert ir.prune(labels=labels).report.macs[1] <= limit


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.7, 0.35])
def test_rounds_come_near_the_optimum_of_instances_too_large_to_try(seed, share, monkeypatch):
    ir = chain(3, 6, 5, 7, 6, 2, seed=seed)
    _, best, _ = knapsack(ir, share)
    monkeypatch.setattr("secateur.selectors._knapsack.EXHAUSTIVE", 0)
    selector, labels, limit = knapsack(ir, share)
    assert selector.rounds[-1].measured <= limit
    assert kept(ir, labels) >= 0.97 * kept(ir, best)


# -- the target ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3, 0.1])
def test_macs_come_to_just_below_the_target(resnet, share):
    selector, labels, limit = knapsack(resnet, share)
    macs = count_macs(resnet.prune(labels=labels, verify=False).snapshot().analysis)
    assert 0.999 * limit <= macs <= limit
    assert selector.rounds[-1].measured == macs


def test_a_round_on_resnet50_is_near_the_relaxation_and_takes_less_than_two_seconds(monkeypatch):
    ir = PruningIR(torchvision.models.resnet50(weights=None))
    ir.create_snapshot("main", args=(torch.zeros(1, 3, 32, 32),))
    choices = []

    def timed(values, costs, limit, **settings):
        start = time.process_time()
        choice = choose(values, costs, limit, **settings)
        seconds = time.process_time() - start
        choices.append((choice, relaxed_bound(values, costs, limit), seconds))
        return choice

    monkeypatch.setattr("secateur.selectors._knapsack.choose", timed)
    knapsack(ir, 0.5)
    assert choices
    for choice, bound, seconds in choices:
        assert seconds < 2
        assert 0 <= 1 - choice.value / bound < 1e-3


def test_without_highs_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(DependencyError, match=r'pip install "secateur\[solver\]"'):
        knapsack(chain(8, 64, 64, 64, 2), 0.5)
    assert issubclass(DependencyError, ImportError)


def test_more_score_is_kept_than_by_uniform_and_global_selection(resnet):
    _, labels, limit = knapsack(resnet, 0.5)
    cost = mac_cost(resnet.snapshot().structure)
    others = []
    for candidate in (
        *(UniformLabelSelector(r / 100) for r in range(25, 45)),
        *(GlobalScoreLabelSelector(r / 100) for r in range(20, 90, 2)),
    ):
        chosen = candidate.select(resnet)
        if cost(widths(resnet, chosen)) <= limit:
            others.append(kept(resnet, chosen))
    assert kept(resnet, labels) > max(others)


def test_parameters_are_a_cost_too(resnet):
    _, labels, limit = knapsack(resnet, 0.5, Parameters())
    after = resnet.prune(labels=labels, verify=False).report.parameters[1]
    assert 0.999 * limit <= after <= limit


def test_constraints_hold(resnet):
    constraint = {
        "layer4.*": ChannelsConstraint(minimum=256, step=8),
        "*": ChannelsConstraint(minimum=16, step=8),
    }
    _, labels, _ = knapsack(resnet, 0.5, channels_constraint=constraint, ignore=["conv1"])
    after = widths(resnet, labels)
    assert after["conv1"] == 64
    assert all(w >= 256 for name, w in after.items() if name.startswith("layer4"))
    assert all(w % 8 == 0 and w >= 16 for w in after.values())


def test_lowest_scores_go_first_in_every_group(resnet):
    _, labels, _ = knapsack(resnet, 0.5)
    gone = {name: set() for name in resnet.scores()}
    for label in labels:
        gone[label.group].add(label.index)
    for name, indices in gone.items():
        assert indices == set(resnet.scores()[name].argsort()[: len(indices)].tolist())


def test_label_order_does_not_matter_where_labels_cost_the_same():
    ir = chain(3, 6, 5, 2)
    strict, free = (knapsack(ir, 0.5, strict_label_order=order)[1] for order in (True, False))
    assert strict == free


def test_the_same_input_gives_the_same_labels(resnet):
    assert knapsack(resnet, 0.4)[1] == knapsack(resnet, 0.4)[1]


def test_a_target_above_the_cost_takes_nothing():
    ir = chain(3, 6, 2)
    assert knapsack(ir, 1.0)[1] == []
    assert BinarySearchLatencyLabelSelector(1e9, Macs(), verbose=False).select(ir) == []


def test_an_infeasible_target_says_what_can_be_reached():
    ir = chain(3, 6, 2)
    for kind in (KnapsackLabelSelector, BinarySearchLatencyLabelSelector):
        message = r"the target 4 cannot be met: .* the cost is still 5\."
        with pytest.raises(TargetError, match=message) as caught:
            kind(4, Macs(), verbose=False).select(ir)
        assert caught.value.reachable == 5
        with pytest.warns(UserWarning, match="The smallest widths are selected"):
            labels = kind(4, Macs(), verbose=False, on_infeasible="warn").select(ir)
        assert len(labels) == 5


def test_progress_is_printed(capsys):
    ir = chain(8, 32, 32, 32, 32, 32, 2)
    KnapsackLabelSelector(1200, Macs()).select(ir)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert lines[0].startswith("round  1: requested ")
    assert all(word in lines[0] for word in ("predicted", "measured", "of the score kept"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_latency": 0}, "target_latency is a positive number"),
        ({"target_latency": True}, "target_latency is a positive number"),
        ({"target_latency": float("nan")}, "target_latency is a positive number"),
        ({"max_relative_latency_step": 0}, "max_relative_latency_step is in"),
        ({"max_iterations": 0}, "max_iterations is at least 1"),
        ({"on_infeasible": "ignore"}, "on_infeasible is one of"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    settings = {"target_latency": 1.0, "latency_calculation_function": Macs(), **arguments}
    with pytest.raises(LabelError, match=message):
        KnapsackLabelSelector(**settings)


# -- functions of the model ------------------------------------------------------------------------


def parameters_of(model: nn.Module) -> float:
    return float(sum(p.numel() for p in model.parameters()))


def test_a_users_own_function_is_called_on_pruned_copies():
    ir = chain(4, 24, 24, 24, 2)
    full = parameters_of(ir.model)
    seen = []

    def cost(model: nn.Module) -> float:
        seen.append(model)
        return parameters_of(model)

    labels = KnapsackLabelSelector(0.5 * full, cost, verbose=False).select(ir)
    after = parameters_of(ir.prune(labels=labels).model)
    assert 0.9 * full / 2 <= after <= full / 2
    assert ir.model not in seen
    shapes = [tuple(layer.out_features for layer in model) for model in seen]
    assert len(shapes) == len(set(shapes)), "the same widths are measured once"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda model: 1 / 0, "raised ZeroDivisionError on a pruned copy"),
        (lambda model: float("nan"), "gave nan; a cost is a positive finite number"),
        (lambda model: -1.0, "gave -1.0; a cost is a positive finite number"),
        (lambda model: "fast", "raised ValueError on a pruned copy"),
    ],
)
def test_functions_that_fail_are_named(function, message):
    with pytest.raises(MeasurementError, match=f"the cost function <lambda> {message}"):
        KnapsackLabelSelector(1.0, function, verbose=False).select(chain(2, 4, 1))


# -- binary search ---------------------------------------------------------------------------------


def test_binary_search_comes_as_near_as_whole_labels_allow(resnet):
    full = Macs().bind(resnet.snapshot())({})
    selector = BinarySearchLatencyLabelSelector(0.5 * full, Macs(), verbose=False)
    labels = selector.select(resnet)
    macs = mac_cost(resnet.snapshot().structure)(widths(resnet, labels))
    assert abs(macs / full - 0.5) < 0.002
    assert labels == GlobalScoreLabelSelector(len(labels)).select(resnet)


def test_the_callback_ends_the_search():
    ir = chain(3, 64, 64, 2)
    asked = []

    def enough(current: float, target: float) -> bool:
        asked.append((current, target))
        return len(asked) == 2

    BinarySearchLatencyLabelSelector(1000, Macs(), enough, verbose=False).select(ir)
    assert len(asked) == 2
    assert all(target == 1000 for _, target in asked)
