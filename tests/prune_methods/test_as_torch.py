"""What torch documents and tests of ``torch.nn.utils.prune`` holds for it and for ``secateur.masks`` alike.

Every test runs on both, so what is stated here is torch's behaviour and not our reading of it.
"""

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from prune_methods.layers import container_of
from secateur import masks

LAYERS = [lambda: nn.Linear(5, 7), lambda: nn.Conv3d(2, 2, 2)]
PLACES = [(layer, name) for layer in LAYERS for name in ("weight", "bias")]


def test_every_public_name_of_torch_is_here() -> None:
    names = [
        name
        for name, value in vars(torch_prune).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == torch_prune.__name__
    ]
    assert len(names) > 15
    assert not [name for name in names if not hasattr(masks, name)]
    for name in names:
        ours, theirs = getattr(masks, name), getattr(torch_prune, name)
        if isinstance(theirs, type):
            assert issubclass(ours, theirs)
            assert issubclass(ours, masks.BasePruningMethod)


@pytest.mark.parametrize("amount", ["many", None, [1]])
def test_an_amount_that_is_no_number(prune: ModuleType, amount: Any) -> None:
    with pytest.raises(TypeError):
        prune.l1_unstructured(nn.Linear(5, 7), "weight", amount)
    with pytest.raises(TypeError):
        prune._validate_pruning_amount_init(amount)


@pytest.mark.parametrize("amount", [1.1, 20.0, -0.1, -10])
def test_an_amount_out_of_range(prune: ModuleType, amount: float) -> None:
    with pytest.raises(ValueError, match="amount"):
        prune.random_unstructured(nn.Linear(5, 7), "weight", amount)


@pytest.mark.parametrize(
    ("amount", "size", "count"),
    [
        (0, 15, 0),
        (10, 15, 10),
        (1, 15, 1),
        (1.0, 15, 15),
        (0.4, 17, 7),
        (0.5, 5, 2),
        (0.5, 3, 2),
        (0.5, 7, 4),
    ],
)
def test_how_many_an_amount_is(prune: ModuleType, amount: float, size: int, count: int) -> None:
    assert prune._compute_nparams_toprune(amount, size) == count
    layer = nn.Linear(size, 1)
    prune.l1_unstructured(layer, "weight", amount)
    assert int((layer.weight_mask == 0).sum()) == count


def test_more_than_there_are(prune: ModuleType) -> None:
    with pytest.raises(ValueError, match="20"):
        prune._validate_pruning_amount(20, 19)
    with pytest.raises(ValueError, match="36"):
        prune.l1_unstructured(nn.Linear(5, 7), "weight", 36)


@pytest.mark.parametrize(("layer", "name"), PLACES)
def test_sizes_values_and_names(prune: ModuleType, layer: Any, name: str) -> None:
    module = layer()
    before = getattr(module, name).detach().clone()
    assert prune.random_unstructured(module, name=name, amount=0.1) is module
    mask, orig = getattr(module, f"{name}_mask"), getattr(module, f"{name}_orig")
    assert mask.shape == orig.shape == getattr(module, name).shape == before.shape
    assert mask.dtype == before.dtype
    assert torch.equal(orig, before)
    assert torch.equal(getattr(module, name), orig * mask)
    assert f"{name}_orig" in dict(module.named_parameters())
    assert name not in dict(module.named_parameters())
    assert f"{name}_mask" in dict(module.named_buffers())


@pytest.mark.parametrize("method", ["identity", "nothing"])
def test_a_mask_of_ones_changes_neither_forward_nor_backward(prune: ModuleType, method: str) -> None:
    x, layer = torch.ones(1, 5), nn.Linear(5, 2)
    before = layer(x)
    before.sum().backward()
    weight, bias = layer.weight.grad, layer.bias.grad
    layer.zero_grad()
    if method == "identity":
        prune.identity(layer, "weight")
    else:
        prune.random_unstructured(layer, "weight", 0)
    after = layer(x)
    assert torch.equal(after, before)
    after.sum().backward()
    assert torch.equal(layer.weight_orig.grad, weight)
    assert torch.equal(layer.bias.grad, bias)
    assert torch.equal(layer(x), layer(x))


def test_gradients_of_masked_entries_are_zero(prune: ModuleType) -> None:
    layer = nn.Linear(5, 2)
    mask = torch.ones(2, 5)
    mask[1, 0] = mask[0, 3] = 0
    prune.custom_from_mask(layer, "weight", mask)
    y = layer(torch.ones(1, 5))
    assert torch.allclose(y[0], (layer.weight_orig * mask).sum(1) + layer.bias)
    y.sum().backward()
    assert torch.equal(layer.weight_orig.grad, mask)


@pytest.mark.parametrize(("layer", "name"), PLACES)
def test_remove_keeps_values_and_restores_names(prune: ModuleType, layer: Any, name: str) -> None:
    module = layer()
    prune.random_unstructured(module, name, amount=0.5)
    pruned = getattr(module, name).detach().clone()
    assert prune.remove(module, name) is module
    assert sorted(dict(module.named_parameters())) == ["bias", "weight"]
    assert not dict(module.named_buffers())
    assert torch.equal(getattr(module, name), pruned)
    assert not module._forward_pre_hooks


def test_remove_leaves_forward_as_it_was(prune: ModuleType) -> None:
    x, layer = torch.ones(1, 5), nn.Linear(5, 2)
    prune.l1_unstructured(layer, "weight", 3)
    before = layer(x)
    prune.remove(layer, "weight")
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize(("layer", "name"), PLACES)
def test_removing_what_is_not_there(prune: ModuleType, layer: Any, name: str) -> None:
    module = layer()
    assert not prune.is_pruned(module)
    with pytest.raises(ValueError, match=name):
        prune.remove(module, name)


def test_is_pruned_looks_inside(prune: ModuleType) -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert not prune.is_pruned(net)
    prune.identity(net[0][0], "bias")
    assert prune.is_pruned(net)


def test_the_parameter_stays_the_same_object(prune: ModuleType) -> None:
    layer = nn.Linear(5, 2, bias=False)
    parameter = layer.weight
    prune.random_unstructured(layer, "weight", 0.9)
    assert next(layer.parameters()) is parameter
    prune.remove(layer, "weight")
    assert next(layer.parameters()) is parameter


@pytest.mark.parametrize(("layer", "name"), PLACES)
def test_a_pruned_module_is_pickled(prune: ModuleType, layer: Any, name: str) -> None:
    module = prune.random_unstructured(layer(), name=name, amount=0.5)
    again = pickle.loads(pickle.dumps(module))
    assert torch.equal(getattr(again, name), getattr(module, name))
    assert prune.is_pruned(again)


def test_several_calls_stack_in_one_container(prune: ModuleType) -> None:
    layer = nn.Conv3d(2, 2, 2)
    prune.l1_unstructured(layer, name="weight", amount=0.1)
    first = layer.weight_mask.clone()
    prune.ln_structured(layer, name="weight", amount=0.3, n=2, dim=0)
    (hook,) = layer._forward_pre_hooks.values()
    assert isinstance(hook, torch_prune.PruningContainer)
    assert hook._tensor_name == "weight"
    assert len(hook) == 2
    assert isinstance(hook[0], torch_prune.L1Unstructured)
    assert isinstance(hook[1], torch_prune.LnStructured)
    assert [type(method) for method in hook] == [type(hook[0]), type(hook[1])]
    assert bool((layer.weight_mask[first == 0] == 0).all())
    prune.ln_structured(layer, name="weight", amount=0.1, n=float("inf"), dim=1)
    (hook,) = layer._forward_pre_hooks.values()
    assert (len(hook), hook._tensor_name) == (3, "weight")


def test_a_container_refuses_what_does_not_belong_into_it(prune: ModuleType) -> None:
    container = container_of(prune, prune.L1Unstructured(amount=2))
    other = prune.L1Unstructured(amount=2)
    other._tensor_name = "another"
    with pytest.raises(ValueError, match="another"):
        container.add_pruning_method(other)
    for thing in (10, "method"):
        with pytest.raises(TypeError):
            container.add_pruning_method(thing)
    assert len(container) == 1


@pytest.mark.parametrize(("layer", "name"), PLACES)
def test_a_failing_first_prune_leaves_the_module_alone(
    prune: ModuleType, layer: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no mask")

    module = layer()
    monkeypatch.setattr(torch_prune.L1Unstructured, "compute_mask", fail)
    with pytest.raises(RuntimeError, match="no mask"):
        prune.l1_unstructured(module, name=name, amount=0.9)
    assert sorted(dict(module.named_parameters())) == ["bias", "weight"]
    assert not dict(module.named_buffers())
    assert not module._forward_pre_hooks


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1))


def test_a_pruned_model_is_saved_whole(prune: ModuleType, tmp_path: Path) -> None:
    model = net()
    prune.l1_unstructured(model[0], "weight", amount=0.9)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert {"0.weight_orig", "0.weight_mask"} <= set(again.state_dict())
    assert "0.weight" not in again.state_dict()
    assert torch.equal(again[0].weight, model[0].weight)


def test_a_state_dict_after_removal_fits_a_plain_model(prune: ModuleType, tmp_path: Path) -> None:
    model, fresh = net(), net()
    prune.l1_unstructured(model[0], "weight", amount=0.9)
    pruned = model[0].weight.detach().clone()
    prune.remove(model[0], "weight")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(fresh[0].weight, pruned)


def test_a_recurrent_layer_has_the_masked_weight_in_its_list(prune: ModuleType) -> None:
    lstm = nn.LSTM(32, 32)
    prune.l1_unstructured(lstm, "weight_ih_l0", 0.5)
    assert sum(isinstance(weight, nn.Parameter) for weight in lstm._flat_weights) == 3
    masked = lstm(torch.ones(1, 1, 32))[0]
    prune.remove(lstm, "weight_ih_l0")
    assert sum(isinstance(weight, nn.Parameter) for weight in lstm._flat_weights) == 4
    assert torch.equal(lstm(torch.ones(1, 1, 32))[0], masked)
    assert "weight_ih_l0" in lstm._parameters
    assert "weight_ih_l0_orig" not in lstm._parameters
