"""Masks that several share: tied weights, attention and its projection, torch's functions and ours."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from secateur import masks as prune


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x))


@pytest.mark.parametrize(("first", "second"), [("embed", "out"), ("out", "embed")])
def test_tied_weights_are_masked_and_unmasked_together(first: str, second: str) -> None:
    net = Tied()
    a, b = getattr(net, first), getattr(net, second)
    prune.l1_unstructured(a, "weight", 0.5)
    prune.l1_unstructured(b, "weight", 0.5)
    assert a.weight_orig is b.weight_orig
    assert torch.equal(a.weight_mask, b.weight_mask)
    assert int(a.weight_mask.sum()) == 6
    assert len(list(net.parameters())) == 1
    net(torch.arange(6)).sum().backward()
    assert bool((a.weight_orig.grad[a.weight_mask == 0] == 0).all())
    prune.remove(b, "weight")
    assert a.weight is b.weight
    assert not prune.is_pruned(net)
    assert int((net.embed.weight != 0).sum()) == 6


def test_tied_weights_under_two_names_and_in_a_global_ranking() -> None:
    class Other(nn.Module):
        def __init__(self, weight: nn.Parameter) -> None:
            super().__init__()
            self.table = weight

    layer = nn.Linear(4, 2, bias=False)
    other = Other(layer.weight)
    prune.global_unstructured([(layer, "weight"), (other, "table")], prune.L1Unstructured, amount=0.5)
    assert torch.equal(layer.weight_mask, other.table_mask)
    assert int(layer.weight_mask.sum()) == 4  # half of 8, not of 16
    assert other._forward_pre_hooks[next(iter(other._forward_pre_hooks))]._tensor_name == "table"
    prune.remove(other, "table")
    assert layer.weight is other.table


def test_the_output_projection_of_multihead_attention_is_masked_and_trains() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    prune.ln_structured(attention.out_proj, "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(attention, "in_proj_weight", 0.5)
    x = torch.randn(2, 3, 8)
    optimizer = torch.optim.SGD(attention.parameters(), lr=0.1)
    outputs = []
    for _ in range(3):
        optimizer.zero_grad()
        y = attention(x, x, x)[0]
        y.square().sum().backward()
        optimizer.step()
        outputs.append(y.detach())
    gone = attention.out_proj.weight_mask[:, 0] == 0
    assert bool((attention.out_proj.weight_orig.grad[gone] == 0).all())
    assert bool((attention.out_proj.weight_orig.grad[~gone] != 0).any())
    assert not torch.allclose(outputs[0], outputs[2])
    attention.eval()
    with torch.no_grad():
        masked = attention(x, x, x)[0]
        prune.remove(attention.out_proj, "weight")
        prune.remove(attention, "in_proj_weight")
        assert torch.allclose(attention(x, x, x)[0], masked, atol=1e-6)


def test_torch_cannot_train_a_pruned_output_projection() -> None:
    attention = nn.MultiheadAttention(8, 2)
    torch_prune.l1_unstructured(attention.out_proj, "weight", 0.5)
    x = torch.randn(3, 2, 8)
    attention(x, x, x)[0].sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        attention(x, x, x)[0].sum().backward()


def test_masks_of_torch_are_taken_over() -> None:
    layer = nn.Linear(4, 6)
    torch_prune.l1_unstructured(layer, "weight", 6)
    torch_prune.ln_structured(layer, "weight", 1, n=2, dim=0)
    before = layer.weight_mask.clone()
    prune.random_unstructured(layer, "weight", 2)
    (hook,) = layer._forward_pre_hooks.values()
    assert [type(method) for method in hook] == [
        torch_prune.L1Unstructured, torch_prune.LnStructured, prune.RandomUnstructured
    ]  # fmt: skip
    assert bool((layer.weight_mask[before == 0] == 0).all())
    assert int((layer.weight_mask != before).sum()) == 2
    copy.deepcopy(layer)
    other = torch_prune.l1_unstructured(nn.Linear(4, 6), "weight", 6)
    values = other.weight.detach().clone()
    prune.remove(other, "weight")
    assert sorted(dict(other.named_parameters())) == ["bias", "weight"]
    assert torch.equal(other.weight, values)


def test_functions_of_torch_work_on_masks_of_ours() -> None:
    layer = prune.l1_unstructured(nn.Linear(4, 6), "weight", 6)
    torch_prune.l1_unstructured(layer, "weight", 6)
    (hook,) = layer._forward_pre_hooks.values()
    assert [type(method) for method in hook] == [prune.L1Unstructured, torch_prune.L1Unstructured]
    assert int((layer.weight_mask == 0).sum()) == 12
    x = torch.ones(1, 4)
    before = layer(x)
    torch_prune.remove(layer, "weight")
    assert torch.equal(layer(x), before)
    single = prune.l1_unstructured(nn.Linear(4, 6), "weight", 6)
    assert torch_prune.is_pruned(single)
    torch_prune.remove(single, "weight")
    assert not prune.is_pruned(single)
    assert list(single._parameters) == ["weight", "bias"]
