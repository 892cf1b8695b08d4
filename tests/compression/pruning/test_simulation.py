"""Masks on a model that goes on being the user's own."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compression.pruning.nets import TorchModel, batch_of
from secateur import CompressionError, PruningError
from secateur.compression.pruning import L1NormPruner, LevelPruner

CONFIG = [{"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["fc2"], "sparse_ratio": 0.5}]


def conv(target: str = "weight", **settings: Any) -> tuple[nn.Sequential, L1NormPruner]:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 3, 3))
    config = [{"op_names": ["0"], "target_names": [target], "sparse_ratio": 0.4, **settings}]
    return net, L1NormPruner(net, config, dummy_input=X)


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_masked_input_channels_are_zeroed_inputs() -> None:
    net, pruner = conv()
    plain = [parameter.detach().clone() for parameter in net.parameters()]
    keep = torch.ones(3, 3, 3, 3)
    keep[:, 1] = 0
    pruner.update_masks({"0": {"weight": keep}})
    x = X.clone()
    x[:, 1] = 0
    assert torch.equal(net(X), F.conv2d(X, plain[0] * keep, plain[1]))
    assert torch.allclose(net(X), F.conv2d(x, *plain), atol=1e-6)


def test_a_masked_filter_puts_out_its_bias() -> None:
    net, pruner = conv()
    keep = torch.ones(3, 3, 3, 3)
    keep[1] = 0
    pruner.update_masks({"0": {"weight": keep}})
    assert torch.equal(net(X)[:, 1], net[0].bias[1].expand_as(net(X)[:, 1]))


@pytest.mark.parametrize("target", ["_output_", "_input_"])
def test_masks_on_what_goes_in_and_out(target: str) -> None:
    net, pruner = conv(target)
    weight, bias = net[0].weight, net[0].bias
    pruner.track_forward(X)
    keep = torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    pruner.update_masks({"0": {f"{target}0": keep}})
    wanted = F.conv2d(X, weight, bias) * keep if target == "_output_" else F.conv2d(X * keep, weight, bias)
    assert torch.equal(net(X), wanted)
    pruner.unwrap_model()
    assert torch.equal(net(X), F.conv2d(X, weight, bias))


def test_weights_are_untouched_and_what_is_read_is_masked() -> None:
    net = TorchModel()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    pruner = L1NormPruner(net, CONFIG)
    _, masks = pruner.compress()
    net(batch_of(net))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
    for module, targets in masks.items():
        for name, mask in targets.items():
            assert torch.equal(getattr(net.get_submodule(module), name), before[f"{module}.{name}"] * mask)


def test_parameters_keep_identity_names_and_order() -> None:
    net = TorchModel()
    before = [(name, id(p)) for name, p in net.named_parameters()]
    keys, classes = list(net.state_dict()), [type(m) for m in net.modules()]
    pruner = L1NormPruner(net, CONFIG)
    pruner.compress()
    assert [(name, id(p)) for name, p in net.named_parameters()] == before
    assert isinstance(net.conv1, nn.Conv2d) and type(net.conv1).__name__ == "Conv2d"
    pruner.unwrap_model()
    assert [(name, id(p)) for name, p in net.named_parameters()] == before
    assert list(net.state_dict()) == keys and [type(m) for m in net.modules()] == classes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_masks_are_in_the_state_dict() -> None:
    net, other = TorchModel(), TorchModel()
    pruner = L1NormPruner(net, CONFIG)
    pruner.compress()
    state = net.state_dict()
    assert set(state) - set(TorchModel().state_dict()) == {
        f"{module}.{name}_mask" for module, t in pruner.get_masks().items() for name in t
    }
    L1NormPruner(other, CONFIG)
    other.load_state_dict(state)
    x = batch_of(net)
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_masks_of_outputs_come_with_a_checkpoint() -> None:
    net, pruner = conv("_output_")
    pruner.compress()
    again, _ = conv("_output_")
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(X), again(X)) and int((net(X) == 0).all((0, 2, 3)).sum()) == 1


def test_an_optimizer_made_before_or_after_trains_the_same() -> None:
    results = []
    for early in (True, False):
        torch.manual_seed(0)
        net = TorchModel()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2) if early else None
        L1NormPruner(net, CONFIG).compress()
        optimizer = optimizer or torch.optim.Adam(net.parameters(), 1e-2)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        for _ in range(3):
            optimizer.zero_grad()
            net(batch_of(net)).square().mean().backward()
            optimizer.step()
            scheduler.step()
        results.append({name: value.clone() for name, value in net.state_dict().items()})
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_masked_weights_get_no_gradient() -> None:
    net = TorchModel()
    _, masks = L1NormPruner(net, CONFIG).compress()
    net(batch_of(net)).square().mean().backward()
    gradient = dict(net.named_parameters())["conv2.weight"].grad
    assert gradient is not None and bool((gradient != 0).any())
    assert bool((gradient[masks["conv2"]["weight"] == 0] == 0).all())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_and_pickles_are_masked_models(way: str) -> None:
    net, x = TorchModel().eval(), batch_of(TorchModel())
    output = {"op_names": ["fc2"], "target_names": ["_output_"], "sparse_ratio": 0.3}
    pruner = L1NormPruner(net, [*CONFIG, output], dummy_input=x)
    pruner.compress()
    if way == "deepcopy":
        other = copy.deepcopy(net)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert torch.equal(net(x), other(x)) and int((net(x) == 0).all(0).sum()) == 3
    pruner.unwrap_model()  # the copy is one of its own
    assert not torch.equal(net(x), other(x))


def test_averaged_models_and_autocast_work() -> None:
    net, x = TorchModel(), batch_of(TorchModel())
    L1NormPruner(net, CONFIG).compress()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x).float().square().mean()
    loss.backward()
    optimizer.step()
    average.update_parameters(net)
    read = average.module.conv1.weight
    assert bool((read[net.conv1.weight_mask == 0] == 0).all()) and bool((read != 0).any())


def test_an_output_mask_does_not_change_the_dtype() -> None:
    net, pruner = conv("_output_")
    pruner.compress()
    with torch.autocast("cpu", torch.bfloat16):
        assert net(X).dtype is torch.bfloat16


@pytest.mark.filterwarnings("ignore")  # of the process group itself
def test_distributed_data_parallel(tmp_path: Any) -> None:
    net = TorchModel()
    pruner = L1NormPruner(net, CONFIG)
    pruner.compress()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net)
        parallel(batch_of(net)).square().mean().backward()
        assert net.conv1.weight is not net._modules["conv1"]._parameters["weight"]
        assert all(p.grad is not None for p in net.parameters())
        again = L1NormPruner(nn.parallel.DistributedDataParallel(TorchModel()), CONFIG)
        again.compress()  # scores are averaged over the processes
    finally:
        torch.distributed.destroy_process_group()


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.embed = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def test_a_projection_that_is_never_called_is_masked() -> None:
    net, ids = Projection().eval(), torch.arange(6).reshape(1, 6)
    config = [{"op_names": ["attention.out_proj"], "sparse_ratio": 0.5}]
    pruner = L1NormPruner(net, config)
    before = net(ids)
    pruner.compress()
    keep = pruner.get_masks()["attention.out_proj"]
    masked = net(ids)
    pruner.unwrap_model()
    with torch.no_grad():
        net.attention.out_proj.weight.mul_(keep["weight"])
        net.attention.out_proj.bias.mul_(keep["bias"])
    assert torch.allclose(masked, net(ids), atol=1e-6) and not torch.allclose(masked, before)


def test_tied_weights_are_masked_together() -> None:
    net = Projection()
    pruner = LevelPruner(net, [{"op_names": ["head"], "sparse_ratio": 0.5}])
    pruner.compress()
    assert torch.equal(net.head.weight, net.embed.weight) and int((net.embed.weight == 0).sum()) == 44
    with pytest.raises(CompressionError, match=r"one parameter"):
        LevelPruner(Projection(), [{"op_names": ["head", "embed"], "sparse_ratio": 0.5}])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_read_masked_weights(kind: Any) -> None:
    net, x = nn.Sequential(kind(4, 6)), torch.randn(3, 2, 4)
    targets = ["weight_ih_l0", "weight_hh_l0"]
    config = [{"op_names": ["0"], "target_names": targets, "sparse_ratio": 0.5, "granularity": [1, 1]}]
    pruner = L1NormPruner(net, config)
    pruner.compress()
    masked = net(x)[0]
    masks = pruner.get_masks()["0"]
    pruner.unwrap_model()
    assert not torch.allclose(net(x)[0], masked)
    with torch.no_grad():
        for name in targets:
            getattr(net[0], name).mul_(masks[name])
    assert torch.allclose(net(x)[0], masked, atol=1e-6)


def test_a_masked_buffer_keeps_what_the_module_writes_to_it() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3))
    net[0].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    config = [{"op_names": ["0"], "target_names": ["running_mean"], "sparse_ratio": 0.4}]
    L1NormPruner(net, config).compress()
    net(X)
    mean = 0.1 * X.mean((0, 2, 3))
    assert torch.allclose(
        net[0].running_mean, torch.tensor([1.0, 1.8, 2.7]) + mean * torch.tensor([0.0, 1, 1])
    )
    with torch.no_grad():
        shown = net.eval()(torch.zeros(1, 3, 1, 1)).flatten()
    assert float(shown[0]) == 0 and float(shown[1]) < 0


def test_inputs_by_keyword_are_masked() -> None:
    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(input=x)

    net, x = Caller(), torch.randn(3, 4)
    for name in ("_input_0", "_input_input"):
        config = [{"op_names": ["inner"], "target_names": [name], "sparse_ratio": 0.5}]
        pruner = L1NormPruner(net, config, dummy_input=x)
        (keep,) = pruner.compress()[1]["inner"].values()
        assert torch.equal(net(x), F.linear(x * keep, net.inner.weight, net.inner.bias))
        pruner.unwrap_model()


def test_two_pruners_of_one_model_share_their_masks() -> None:
    net = TorchModel()
    first = L1NormPruner(net, [{"op_names": ["conv1", "fc1"], "sparse_ratio": 0.4}])
    first.compress()
    with pytest.raises(CompressionError, match="from_compressor"):
        L1NormPruner(net, [{"op_names": ["fc1"], "sparse_ratio": 0.5}])
    kept = first.get_masks()["conv1"]["weight"]
    second = LevelPruner.from_compressor(first, [{"op_names": ["conv2", "fc1"], "sparse_ratio": 0.5}])
    third = LevelPruner.from_compressor(second, [{"op_names": ["fc2"], "sparse_ratio": 0.5}])
    assert third.fused_compressors == [third, second, first]
    third.compress()
    masks = third.get_masks()
    assert set(masks) == {"conv1", "conv2", "fc1", "fc2"} and torch.equal(masks["conv1"]["weight"], kept)
    third.unwrap_model()
    assert type(net.conv1) is nn.Conv2d and "weight_mask" not in dict(net.conv1.named_buffers())


def test_masks_come_back_after_unwrapping() -> None:
    net = TorchModel()
    pruner = L1NormPruner(net, CONFIG)
    pruner.compress()
    masks = pruner.get_masks()
    pruner.unwrap_model()
    assert all(torch.equal(mask, pruner.get_masks()[m][n]) for m, t in masks.items() for n, mask in t.items())
    pruner.wrap_model()
    assert torch.equal(net.conv1.weight_mask, masks["conv1"]["weight"])


def test_masks_without_a_place_change_nothing() -> None:
    net = TorchModel()
    pruner = L1NormPruner(net, CONFIG)
    good = torch.zeros_like(net.conv1.bias)
    with pytest.raises(PruningError, match=r"conv9\.weight is no target.*conv1\.weight"):
        pruner.update_masks({"conv1": {"bias": good}, "conv9": {"weight": good}})
    with pytest.raises(PruningError, match=r"conv1\.bias has shape \(5,\) and its mask \(3,\)"):
        pruner.update_masks({"conv1": {"bias": torch.ones(3)}})
    assert bool((pruner.get_masks()["conv1"]["bias"] == 1).all())


def test_bypass_makes_masks_that_are_not_applied() -> None:
    net = TorchModel()
    before = net.eval()(batch_of(net))
    masks = L1NormPruner(net, [{**CONFIG[0], "apply_method": "bypass"}]).compress()[1]
    assert torch.equal(net(batch_of(net)), before) and bool((masks["conv1"]["weight"] == 0).any())


def test_a_compiled_forward_reads_masked_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.4}]).compress()
    x = torch.randn(2, 4)
    compiled = torch.compile(net, backend="eager")
    assert torch.allclose(compiled(x), net(x))
