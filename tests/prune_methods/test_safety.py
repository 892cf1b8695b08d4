"""What goes wrong with ``torch.nn.utils.prune`` does not with ``secateur.masks``.

Where torch fails today, the test says so too: a torch in which it is mended makes the test fail, and the
documentation can be shortened.
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import secateur
from prune_methods.layers import pruned_net
from secateur import masks as prune


def state(module: nn.Module) -> list[Any]:
    """Everything that pruning touches, with the values."""
    return [
        [(name, id(p), p.detach().clone().tolist()) for name, p in module.named_parameters()],
        [(name, b.tolist()) for name, b in module.named_buffers()],
        [(key, id(hook)) for key, hook in module._forward_pre_hooks.items()],
        [
            list(hook)
            for hook in module._forward_pre_hooks.values()
            if isinstance(hook, prune.PruningContainer)
        ],
    ]


FAILURES: dict[str, Callable[[nn.Module], Any]] = {
    "too many entries": lambda m: prune.l1_unstructured(m, "weight", 100),
    "too many channels": lambda m: prune.ln_structured(m, "weight", 7, n=2, dim=0),
    "a wrong amount": lambda m: prune.l1_unstructured(m, "weight", 1.5),
    "an amount that is NaN": lambda m: prune.l1_unstructured(m, "weight", float("nan")),
    "an amount that is True": lambda m: prune.l1_unstructured(m, "weight", True),
    "no such dimension": lambda m: prune.ln_structured(m, "weight", 1, n=2, dim=2),
    "no such negative dimension": lambda m: prune.random_structured(m, "weight", 1, dim=-3),
    "scores of another shape": lambda m: prune.l1_unstructured(m, "weight", 1, torch.ones(3)),
    "a mask of another shape": lambda m: prune.custom_from_mask(m, "weight", torch.ones(3)),
    "a mask that scales": lambda m: prune.custom_from_mask(m, "weight", torch.full((6, 4), 0.5)),
    "scores with NaN": lambda m: prune.by_score(m, "weight", 1, torch.full((6,), float("nan"))),
    "scores that fit no unit": lambda m: prune.by_score(m, "weight", 1, torch.ones(4, 4)),
    "blocks that do not tile": lambda m: prune.ln_blocks(m, "weight", 1, n=2, block=(4, 4)),
    "n of m that does not divide": lambda m: prune.n_of_m(m, "weight", 2, 3),
    "an unknown base of the amount": lambda m: prune.l1_unstructured(m, "weight", 1, of="all"),  # type: ignore[arg-type]
    "structured pruning of a vector": lambda m: prune.ln_structured(m, "bias", 1, n=2, dim=0),
    "global: too many": lambda m: prune.global_unstructured([(m, "weight")], prune.L1Unstructured, amount=99),
    "global: scores": lambda m: prune.global_unstructured(
        [(m, "weight")], prune.L1Unstructured, {(m, "weight"): torch.ones(2)}, amount=1
    ),
    "global: second parameter": lambda m: prune.global_unstructured(
        [(m, "weight"), (m, "wait")], prune.L1Unstructured, amount=1
    ),
    "global: too many channels": lambda m: prune.global_structured([(m, "weight")], 6),
}


@pytest.mark.parametrize("times", [0, 1, 2], ids=["first", "second", "third"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_prune_leaves_everything_as_before(failure: str, times: int) -> None:
    layer = nn.Linear(4, 6)
    for _ in range(times):
        prune.l1_unstructured(layer, "weight", 3)
    before = state(layer)
    with pytest.raises((ValueError, TypeError, IndexError)):
        FAILURES[failure](layer)
    assert state(layer) == before
    x = torch.ones(1, 4)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_torch_loses_the_hook_where_a_second_prune_fails() -> None:
    layer = torch_prune.l1_unstructured(nn.Linear(4, 6), "weight", 3)
    with pytest.raises(ValueError, match="100"):
        torch_prune.l1_unstructured(layer, "weight", 100)
    assert not torch_prune.is_pruned(layer)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wieght", AttributeError, "Linear has no parameter 'wieght'; did you mean 'weight'"),
        ("bias", AttributeError, "this Linear was made without 'bias'"),
        ("scale", secateur.MaskError, "'scale' of Linear is a buffer"),
        ("weight_orig", AttributeError, "has no parameter 'weight_orig'"),
    ],
)
def test_what_is_no_parameter_is_named(name: str, error: type[Exception], message: str) -> None:
    layer = nn.Linear(3, 2, bias=False)
    layer.register_buffer("scale", torch.ones(2))
    before = state(layer)
    with pytest.raises(error, match=message):
        prune.l1_unstructured(layer, name, 1)
    with pytest.raises(secateur.MaskError):
        prune.remove(layer, name)
    assert state(layer) == before


def test_other_places_of_a_mask_are_not_overwritten() -> None:
    layer = nn.Linear(3, 2)
    layer.weight_mask = torch.ones(1)
    with pytest.raises(secateur.MaskError, match="has a 'weight_mask' already"):
        prune.identity(layer, "weight")
    lazy = nn.LazyLinear(2)
    with pytest.raises(secateur.MaskError, match="run the model once"):
        prune.identity(lazy, "weight")
    nn.utils.parametrizations.orthogonal(plain := nn.Linear(2, 2))
    with pytest.raises(secateur.MaskError, match="parametrized: prune it first"):
        prune.identity(plain, "weight")


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "after backward"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_independent_and_train(clone: Callable[[Any], Any], trained: bool) -> None:
    net, x = pruned_net(), torch.randn(2, 2, 4, 4)
    if trained:
        net(x).sum().backward()
    other = clone(net)
    assert torch.equal(other(x), net(x))
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in net.named_parameters()]
    with torch.no_grad():
        other[3].weight_orig.zero_()
    assert not torch.equal(other(x), net(x))
    other(x).sum().backward()
    assert other[0].weight_orig.grad is not None
    prune.remove(other[0], "weight")
    assert prune.is_pruned(net[0])


def test_torch_cannot_copy_a_freshly_pruned_module() -> None:
    layer = torch_prune.l1_unstructured(nn.Linear(4, 6), "weight", 3)
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(layer)


def test_parameters_keep_their_order_and_an_optimizer_its_state() -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
        return net, torch.optim.Adam(net.parameters(), lr=0.1)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    net, optimizer = make()
    shapes = [p.shape for p in net.parameters()]
    step(net, optimizer)
    prune.l1_unstructured(net[0], "weight", 5)
    assert [p.shape for p in net.parameters()] == shapes
    step(net, optimizer)
    prune.remove(net[0], "weight")
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    other, second = make()
    prune.identity(other[0], "weight")
    second.load_state_dict(optimizer.state_dict())  # by position: moments have to fit their parameters
    moments = [s["exp_avg"].shape for s in second.state.values()]
    assert moments == shapes
    step(other, second)
    assert optimizer.param_groups[0]["params"][0] is net[0].weight


def test_the_weight_is_never_out_of_date() -> None:
    layer = prune.l1_unstructured(nn.Linear(3, 2), "weight", 2)
    with torch.no_grad():
        layer.weight_orig.fill_(7)
    assert torch.equal(layer.weight, 7 * layer.weight_mask)
    fresh = prune.identity(nn.Linear(3, 2), "weight")
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.weight, layer.weight)
    layer.double()
    assert layer.weight.dtype == torch.float64


def test_what_is_written_to_the_weight_is_written_below_the_mask() -> None:
    layer = prune.custom_from_mask(nn.Linear(2, 1), "weight", torch.tensor([[1.0, 0.0]]))
    nn.init.constant_(layer.weight, 3.0)
    with torch.no_grad():
        layer.weight *= 2
        layer.weight[0, 0] += 1
    assert layer.weight_orig.tolist() == [[7, 6]]
    assert layer.weight.tolist() == [[7, 0]]
    assert isinstance(layer.weight, prune.MaskedParameter)
    layer.weight.data = torch.tensor([[1.0, 2.0]])
    assert layer.weight_orig.tolist() == [[1, 2]]


def test_a_container_takes_several_methods_and_lists_of_them() -> None:
    methods = [prune.L1Unstructured(amount=1), torch_prune.RandomStructured(amount=1, dim=0)]
    for method in methods:
        method._tensor_name = "weight"
    for container in (prune.PruningContainer(*methods), prune.PruningContainer(methods)):
        assert list(container) == methods
        assert container._tensor_name == "weight"
    assert len(prune.PruningContainer()) == 0
    with pytest.raises(AttributeError):
        torch_prune.PruningContainer(*methods)


def test_the_hook_stays_where_it_is_among_others() -> None:
    layer = nn.Linear(4, 6)
    prune.l1_unstructured(layer, "weight", 1)
    layer.register_forward_pre_hook(lambda *_: None)
    prune.l1_unstructured(layer, "weight", 1)
    assert isinstance(next(iter(layer._forward_pre_hooks.values())), prune.PruningContainer)


def test_parameters_may_come_from_a_generator() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    prune.global_unstructured(((layer, "weight") for layer in net), prune.L1Unstructured, amount=12)
    assert sum(int((layer.weight_mask == 0).sum()) for layer in net) == 12


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv1d(4, 3, 2), nn.Conv2d(4, 3, 2)])
def test_the_nuclear_norm_is_that_of_each_channel(layer: nn.Module) -> None:
    rows = layer.weight.detach().reshape(3, 4, -1)
    expected = torch.stack([torch.linalg.matrix_norm(row, "nuc") for row in rows]).argmin()
    prune.ln_structured(layer, "weight", amount=1, n="nuc", dim=0)
    assert (layer.weight_mask.flatten(1).sum(1) == 0).nonzero().item() == expected


def test_held_values_stand_still_under_weight_decay_and_momentum() -> None:
    def train(hold: bool) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(4, 2)
        before = layer.weight.detach().clone()
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
        layer(torch.ones(1, 4)).sum().backward()
        optimizer.step()  # momentum from before the mask
        before = layer.weight.detach().clone()
        prune.l1_unstructured(layer, "weight", 4)
        handles = prune.hold_masked(layer, optimizer) if hold else None
        optimizer.zero_grad()
        for _ in range(3):
            layer(torch.ones(1, 4)).sum().backward()
            optimizer.step()
        if handles is not None:
            handles.remove()
            assert not optimizer._optimizer_step_pre_hooks
        moved = (layer.weight_orig.detach() - before).abs()
        assert bool((moved[layer.weight_mask == 1] > 0).all())
        return moved[layer.weight_mask == 0]

    assert bool((train(hold=True) == 0).all())
    assert bool((train(hold=False) > 0).all())


def test_exported_compiled_and_functional_calls_see_the_masked_weight() -> None:
    net, x = pruned_net(), torch.randn(2, 2, 4, 4)
    expected = net(x)
    exported = torch.export.export(net, (x,)).module()
    assert torch.allclose(exported(x), expected, atol=1e-6)
    doubled = {name: 2 * value.detach() for name, value in net.named_parameters()}
    functional = torch.func.functional_call(net, doubled, (x,))
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(2)
    assert torch.allclose(functional, net(x), atol=1e-6)
    compiled = torch.compile(net, backend="eager")
    assert torch.allclose(compiled(x), net(x), atol=1e-6)
    copy.deepcopy(net)  # after a plain forward


def test_a_replica_reads_its_own_parameters() -> None:
    layer = prune.l1_unstructured(nn.Linear(3, 2), "weight", 2)
    replica = layer._replicate_for_data_parallel()
    replica.weight_orig = torch.zeros(2, 3)
    replica.weight_mask, replica.bias = layer.weight_mask, layer.bias
    assert torch.equal(replica(torch.ones(1, 3)), layer.bias[None])
    assert bool((layer.weight != 0).any())
