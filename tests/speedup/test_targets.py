"""Every kind of target and of mask, and what becomes of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

import secateur
from speedup.checks import columns, error, masked_copy, randomise, rows, speed_up

X = torch.randn(4, 8)


def mlp() -> nn.Sequential:
    return randomise(nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)))


@pytest.mark.parametrize(
    "convert", [lambda m: m, lambda m: m.bool(), lambda m: m.int(), lambda m: m.double(), lambda m: m[:, :1]]
)
def test_any_dtype_and_broadcast(convert: Any) -> None:
    net = mlp()
    masks = rows(net[0], [1, 2])
    reference = masked_copy(net, {"0": masks})
    secateur.speedup(net, (X,), masks={"0": {"weight": convert(masks["weight"]), "bias": None}})
    assert net[0].out_features == 10 and error(reference, net, X) < 1e-6


def test_empty_masks_change_nothing() -> None:
    net = mlp()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for masks in ({}, {"0": {}}, {"0": {"weight": torch.ones(12, 8)}}):
        report = secateur.speedup(net, (X,), masks=masks)
        assert report.parameters[0] == report.parameters[1] and not report.stays
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class Free(nn.Module):
    """A free parameter that scales channels, a buffer, and a layer that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 12)
        self.gamma = nn.Parameter(torch.rand(12) + 0.5)
        self.out = nn.Linear(12, 3)
        self.residual = nn.Linear(8, 3)
        nn.init.zeros_(self.residual.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x).tanh() * self.gamma) + self.residual(x)


def test_free_parameter() -> None:
    net = Free()
    mask = torch.ones(12)
    mask[3:7] = 0
    report = speed_up(net, {"": {"gamma": mask}}, X)
    assert net.inner.out_features == net.out.in_features == len(net.gamma) == 8
    assert report.exact


def test_parameters_that_happen_to_be_zero_are_not_masks() -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    secateur.speedup(net, (X,), masks={"0": rows(net[0], [1])})
    assert net[0].out_features == 5 and net[2].out_features == 6
    secateur.speedup(net, (X,), masks="zeros")
    assert net[2].out_features == 1


def test_zeros_in_the_weights() -> None:
    net = mlp()
    with torch.no_grad():
        net[0].weight[2:6] = 0
        net[4].weight[:, 1] = 0
    reference = masked_copy(net, {})
    report = secateur.speedup(net, (X,), masks="zeros")
    assert [net[i].out_features for i in (0, 2)] == [8, 5]
    assert report.exact and error(reference, net, X) < 1e-6


def test_fine_grained_masks_keep_their_zeros() -> None:
    net = mlp()
    mask = (torch.rand(12, 8) > 0.8).float()
    mask[5] = 0
    report = speed_up(net, {"0": {"weight": mask}}, X)
    left = mask[mask.any(1)]
    assert net[0].out_features == len(left)
    assert torch.equal(net[0].weight == 0, left == 0)
    assert report.scattered == {"0.weight": int((left == 0).sum())}
    assert "masked elements stay as zeros" in str(report)


def test_pruning_hooks_become_a_smaller_model() -> None:
    net = mlp()
    prune.ln_structured(net[0], "weight", 0.5, n=1, dim=0)
    prune.ln_structured(net[2], "weight", 0.5, n=1, dim=0)
    prune.random_unstructured(net[2], "weight", 0.3)
    prune.l1_unstructured(net[4], "bias", 1)
    with torch.no_grad():
        wanted = net(X)
    report = secateur.speedup(net, (X,))
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert set(net.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"}
    assert net[0].out_features <= 6 and net[2].out_features == 3 and report.exact
    torch.testing.assert_close(net(X), wanted, rtol=1e-5, atol=1e-6)
    assert isinstance(net[0].weight, nn.Parameter) and net[0].weight.requires_grad


def test_a_failure_gives_pruning_hooks_back() -> None:
    net = mlp()
    prune.ln_structured(net[0], "weight", 0.5, n=1, dim=0)
    wanted, names = net(X), list(net.state_dict())
    with pytest.raises(secateur.CaptureError):
        secateur.speedup(net, (torch.randn(4, 5),))
    assert list(net.state_dict()) == names and torch.equal(net(X), wanted)
    assert prune.is_pruned(net)


def test_without_masks_there_is_nothing_to_do() -> None:
    with pytest.raises(secateur.MaskError, match=r'has no masks of torch.nn.utils.prune.*masks="zeros"'):
        secateur.speedup(mlp(), (X,))


class Branches(nn.Module):
    """Takes and gives several tensors, by name too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        x = self.pool(self.relu(self.conv(x)))
        return {"y": self.head(x.flatten(1)), "z": x.mean((1, 2, 3))} if scale is None else {"y": x * scale}


@pytest.mark.parametrize(
    ("module", "target", "mask"),
    [
        ("conv", "_output_0", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).reshape(1, 8, 1, 1)),
        ("conv", "_output_0", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).reshape(8, 1, 1).expand(2, 8, 6, 6)),
        ("relu", "_output_0", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).reshape(1, 8, 1, 1)),
        ("relu", "_input_0", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).reshape(1, 8, 1, 1)),
        ("pool", "_input_input", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).reshape(1, 8, 1, 1)),
        ("head", "_input_0", torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).repeat_interleave(4)[None]),
    ],
)
def test_masks_on_activations(module: str, target: str, mask: Tensor) -> None:
    net = randomise(Branches())

    class Head(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)["y"]

    head = Head(net)
    x = torch.randn(2, 3, 8, 8)
    own = net.get_submodule(module)
    if target.startswith("_input"):
        handle = own.register_forward_pre_hook(lambda m, args: (args[0] * mask,))
    else:
        handle = own.register_forward_hook(lambda m, args, out: out * mask)
    with torch.no_grad():
        wanted = head(x)
    handle.remove()

    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.pool, self.head = net.conv, net.relu, net.pool, net.head

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.relu(self.conv(x))).flatten(1))

    small = Only()
    report = secateur.speedup(small, (x,), masks={module: {target: mask}})
    assert small.conv.out_channels == 6 and report.exact
    torch.testing.assert_close(small(x), wanted, rtol=1e-5, atol=1e-6)
    assert not small.relu._buffers and not small.relu._forward_hooks


class Named(nn.Module):
    """Hands out a dict, takes a keyword, hands out a list."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.taken, self.listed = self.Made(), self.Taken(), self.Listed()
        self.head = nn.Linear(6, 3)

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"sum": x.sum(-1, keepdim=True), "hidden": self.layer(x).tanh()}

    class Taken(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return x * scale.sigmoid()

    class Listed(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.new_ones(1), x * 2]

    def forward(self, x: Tensor) -> Tensor:
        made = self.made(x)
        x = self.taken(made["hidden"], scale=made["sum"])
        return self.head(self.listed(x.relu())[1])


@pytest.mark.parametrize(
    ("module", "target"),
    [("made", "_output_hidden"), ("made", "_output_1"), ("taken", "_input_x"), ("taken", "_input_0"),
     ("listed", "_output_1"), ("listed", "_input_x"), ("head", "_input_input")],
)  # fmt: skip
def test_activations_by_name_and_position(module: str, target: str) -> None:
    net = randomise(Named())
    gone = [1, 4]
    reference = masked_copy(net, {"head": columns(net.head, gone)})  # nothing else reads them
    mask = torch.ones(1, 6)
    mask[:, gone] = 0
    report = secateur.speedup(net, (X,), masks={module: {target: mask}})
    assert net.made.layer.out_features == net.head.in_features == 4
    assert report.exact and error(reference, net, X) < 1e-6


def test_a_keyword_that_is_masked_by_name() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return x * scale

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)
            self.scaled = Scaled()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.scaled(self.left(input=x), scale=self.right(x).tanh()))

    net = randomise(Net())
    reference = masked_copy(net, {"head": columns(net.head, [0, 5])})
    mask = torch.tensor([[0, 1, 1, 1, 1, 0]])
    secateur.speedup(net, (X,), masks={"scaled": {"_input_scale": mask}})
    assert net.left.out_features == net.right.out_features == net.head.in_features == 4
    assert error(reference, net, X) < 1e-6


def test_mask_of_ones_on_activations_of_any_size() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    masks = {"1": {"_input_input": torch.ones(8, 20, 24, 24), "_output_0": torch.ones(8, 20, 24, 24)}}
    report = secateur.speedup(net, (torch.randn(1, 3, 8, 8),), masks=masks)
    assert report.parameters[0] == report.parameters[1]


def test_a_mask_that_nothing_can_hide_is_refused() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.second = nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.second(self.act(y) + y)

    net = randomise(Residual())
    mask = torch.ones(1, 6)
    mask[0, 2] = 0
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(secateur.SurgeryError, match=r"act _output_0.*Mask the weight and bias"):
        secateur.speedup(net, (X,), masks={"act": {"_output_0": mask}})
    assert {n: t.shape for n, t in net.state_dict().items()} == {n: t.shape for n, t in before.items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_files(tmp_path: Path) -> None:
    masks = {"0": rows(mlp()[0], [0, 4])}
    torch.save(masks, tmp_path / "masks.pth")
    save_file(
        {f"{m}.{t}": mask for m, ts in masks.items() for t, mask in ts.items()}, tmp_path / "m.safetensors"
    )
    for path in (tmp_path / "masks.pth", str(tmp_path / "m.safetensors")):
        net = mlp()
        secateur.speedup(net, (X,), masks=path)
        assert net[0].out_features == 10


def test_columns_of_the_first_layer_stay_with_the_reason() -> None:
    net = mlp()
    report = speed_up(net, {"0": columns(net[0], [3])}, X)
    assert "0 input channel 3 stays: it is a dimension of the model's input args[0]" in str(report)
