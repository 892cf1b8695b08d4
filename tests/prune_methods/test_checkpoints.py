"""State dicts with masks, into models with and without."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import secateur
from prune_methods.layers import pruned_net
from secateur import masks as prune


def test_a_state_dict_with_masks_goes_into_a_plain_model() -> None:
    torch_net, ours = pruned_net(), pruned_net()
    fresh = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(2, 2, 4, 4)
    prune.load_state_dict(fresh, torch_net.state_dict())
    assert torch.equal(fresh(x), torch_net(x))
    prune.load_state_dict(fresh, ours.state_dict())  # into one that has masks already
    assert torch.equal(fresh(x), ours(x))
    layer = torch_prune.l1_unstructured(nn.Linear(3, 2), "weight", 3)
    mine = nn.Linear(3, 2)
    prune.load_state_dict(mine, layer.state_dict())
    assert torch.equal(mine.weight, layer.weight)


def test_state_dicts_that_do_not_fit_change_nothing() -> None:
    masked = pruned_net()
    plain = nn.Sequential(nn.Conv2d(2, 4, 3))
    with pytest.raises(secateur.MaskError, match="there is no module '3' for the mask"):
        prune.load_state_dict(plain, masked.state_dict())
    assert not prune.is_pruned(plain)
    unmasked = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).state_dict()
    with pytest.raises(secateur.MaskError, match=r"the model has a mask on '0\.weight'"):
        prune.load_state_dict(masked, unmasked)
