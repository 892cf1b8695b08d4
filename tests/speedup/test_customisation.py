"""The three hooks that NNI's users know, and a rule of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.compression.speedup import (
    DefaultReplacer,
    MaskUpdater,
    ModelSpeedup,
    NoChangeMaskUpdater,
    Replacer,
)
from speedup.checks import error, masked_copy, randomise, rows


@torch.library.custom_op("secateur_test::soft_sign", mutates_args=())
def soft_sign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


@soft_sign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("secateur_test::shifted", mutates_args=())
def shifted(x: Tensor) -> Tensor:
    return x + 1


# A custom operator cannot be copied with the model that holds it; a function can.
def call_soft_sign(x: Tensor) -> Tensor:
    return soft_sign(x)


def call_shifted(x: Tensor) -> Tensor:
    return shifted(x)


class Custom(nn.Module):
    """Two layers with an operator between them that nobody knows."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.operator(self.first(x)))


X = torch.randn(5, 4)


def masks_of(net: nn.Module) -> dict[str, Any]:
    return {"first": rows(net.first, [0, 3], bias=True)}


def test_an_operator_without_a_rule_keeps_everything_and_says_so() -> None:
    net = randomise(Custom(call_soft_sign))
    report = secateur.speedup(net, (X,), masks=masks_of(net))
    assert net.first.out_features == 8
    assert "no rule for secateur_test.soft_sign.default" in str(report)


def test_no_change_updater_for_an_operator() -> None:
    net = randomise(Custom(call_soft_sign))
    reference = masked_copy(net, masks_of(net))
    updater = NoChangeMaskUpdater(customized_no_change_act_func=[torch.ops.secateur_test.soft_sign])
    ModelSpeedup(net, X, masks_of(net), customized_mask_updaters=[updater]).speedup_model()
    assert net.first.out_features == 6 and error(reference, net, X) < 1e-6
    assert not secateur.axes.has_rule(torch.ops.secateur_test.soft_sign.default)  # ours alone


def test_an_updater_says_what_a_constant_becomes() -> None:
    class Shifted(MaskUpdater):
        def detect(self, speedup: ModelSpeedup, node: Any) -> bool:
            return node.op is torch.ops.secateur_test.shifted.default

        def direct_update_process(self, speedup: ModelSpeedup, node: Any) -> Any:
            known = speedup.known_of(node.inputs[0])
            return type(known)(known.numbers().value + 1, known.state)

    net = randomise(Custom(call_shifted))
    reference = masked_copy(net, masks_of(net))
    speedup = ModelSpeedup(net, X, masks_of(net), customized_mask_updaters=[Shifted()])
    speedup.speedup_model()
    assert net.first.out_features == 6 and error(reference, net, X) < 1e-6
    assert speedup.report.folded[0].constants == 2


def test_an_updater_that_lies_is_found_out() -> None:
    updater = NoChangeMaskUpdater(customized_no_change_act_func=[torch.ops.secateur_test.shifted])
    net = randomise(Custom(call_shifted))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(secateur.VerificationError, match="defect of Secateur or of a custom rule"):
        ModelSpeedup(net, X, masks_of(net), customized_mask_updaters=[updater]).speedup_model()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class Gate(nn.Module):
    """A module of the user's own that is best seen whole."""

    def forward(self, x: Tensor) -> Tensor:
        return soft_sign(x) * 2


def test_no_change_updater_for_a_module() -> None:
    net = randomise(Custom(nn.Identity()))
    net.operator = Gate()
    reference = masked_copy(net, masks_of(net))
    updater = NoChangeMaskUpdater(customized_no_change_act_module=[Gate])
    # As 3.0 spells it: updaters in the seventh place.
    ModelSpeedup(net, X, masks_of(net), None, 0, 8, [updater]).speedup_model()
    assert net.first.out_features == 6 and error(reference, net, X) < 1e-6


def test_a_rule_of_ones_own() -> None:
    @secateur.register_rule(torch.ops.secateur_test.soft_sign, flow=secateur.axes.flow.keeps)
    def _(op: Any, x: Any) -> Any:
        return list(x)

    try:
        net = randomise(Custom(call_soft_sign))
        reference = masked_copy(net, masks_of(net))
        secateur.speedup(net, (X,), masks=masks_of(net))
        assert net.first.out_features == 6 and error(reference, net, X) < 1e-6
    finally:
        secateur.axes.unregister_rule(torch.ops.secateur_test.soft_sign)


def test_a_rule_for_a_module_with_parameters_of_its_own() -> None:
    class Gain(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gain, self.width = nn.Parameter(torch.rand(width) + 0.5), width

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x).view(-1, self.width) * self.gain

    @secateur.register_rule(Gain, flow=secateur.axes.flow.multiplies)
    def _(op: Any, x: Any, *, module: Any) -> Any:
        op.number("width", op.unify(x[-1], module["gain"][0]))
        return list(x)

    try:
        net = randomise(nn.Sequential(nn.Linear(4, 8), Gain(8), nn.Linear(8, 3)))
        masks = {"0": rows(net[0], [0, 3], bias=True)}
        reference = masked_copy(net, masks)
        secateur.speedup(net, (X,), masks=masks)
        assert len(net[1].gain) == net[1].width == 6 and error(reference, net, X) < 1e-6
    finally:
        secateur.axes.unregister_rule(Gain)


class Scaled(nn.Linear):
    """A linear layer with a factor, of a type that a replace function knows."""

    factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


def replace_scaled(module: nn.Module, masks: Any) -> nn.Module:
    (inputs, *_), output, parameters = masks
    assert set(parameters) == {"weight", "bias"} and parameters["weight"].shape == module.weight.shape
    rows_ = torch.nonzero(output.flatten(0, -2).any(0)).flatten()
    columns = torch.nonzero(inputs.flatten(0, -2).any(0)).flatten()
    small = Scaled(len(columns), len(rows_))
    with torch.no_grad():
        small.weight.copy_(module.weight[rows_][:, columns])
        small.bias.copy_(module.bias[rows_])
    small.replaced = True
    return small


def test_replace_functions() -> None:
    net = randomise(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), Scaled(8, 6), nn.Tanh(), nn.Linear(6, 2)))
    masks = {"0": rows(net[0], [1]), "2": rows(net[2], [0, 5])}
    reference = masked_copy(net, masks)
    ModelSpeedup(net, X, masks, customized_replace_func={"Scaled": replace_scaled}).speedup_model()
    assert net[2].replaced and net[2].weight.shape == (4, 7) and net[4].in_features == 4
    assert error(reference, net, X) < 1e-6


def test_replacers_of_composite_modules_come_first() -> None:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.up(x).relu()) + x

    class BlockReplacer(Replacer):
        def replace_modules(self, speedup: ModelSpeedup) -> None:
            for path, module in list(speedup.bound_model.named_modules()):
                if isinstance(module, Block):
                    _, _, parameters = speedup.module_masks(path)
                    keep = torch.nonzero(parameters["up.weight"].any(1)).flatten()
                    small = Block(len(keep))
                    with torch.no_grad():
                        small.up.weight.copy_(module.up.weight[keep])
                        small.up.bias.copy_(module.up.bias[keep])
                        small.down.weight.copy_(module.down.weight[:, keep])
                        small.down.bias.copy_(module.down.bias)
                    speedup.replace_module(path, small)

    net = randomise(nn.Sequential(nn.Linear(4, 4), Block(8), nn.Linear(4, 2)))
    masks = {"1.up": rows(net[1].up, [0, 2, 4])}
    reference = masked_copy(net, masks)
    old = net[1]
    replacers = [BlockReplacer()]
    ModelSpeedup(net, X, masks, customized_replacers=replacers).speedup_model()
    assert net[1] is not old and net[1].up.out_features == 5 and error(reference, net, X) < 1e-6
    assert len(replacers) == 1  # the caller's list is the caller's


def test_a_replacement_that_is_wrong_is_taken_back() -> None:
    net = randomise(nn.Sequential(nn.Linear(4, 8), Scaled(8, 2)))
    old, masks = net[1], {"0": rows(net[0], [1])}

    def wrong(module: nn.Module, masks: Any) -> nn.Module:
        return Scaled(7, 2)

    with pytest.raises(secateur.VerificationError):
        ModelSpeedup(net, X, masks, customized_replacers=[DefaultReplacer({"Scaled": wrong})]).speedup_model()
    assert net[1] is old and net[0].out_features == 8
