"""What a quantised model is: the user's own, read otherwise, and given back as it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import secateur
from compression.quantization.nets import (
    EVERYTHING,
    FUSED,
    Residual,
    entry,
    evaluator_for,
    images,
    trained_like,
)
from secateur import CompressionError, QuantizationError
from secateur.compression.pruning import L1NormPruner
from secateur.compression.quantization import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqPlusQuantizer,
    LsqQuantizer,
    PtqQuantizer,
    QATQuantizer,
    Quantizer,
)

KINDS: dict[str, Callable[[nn.Module], Quantizer]] = {
    "qat": lambda net: QATQuantizer(net, EVERYTHING),
    "ptq": lambda net: PtqQuantizer(net, EVERYTHING),
    "lsq": lambda net: LsqQuantizer(net, EVERYTHING),
    "lsq plus": lambda net: LsqPlusQuantizer(net, EVERYTHING),
    "dorefa": lambda net: DoReFaQuantizer(
        net, [entry(["c1", "c2", "fc"], "_input_", "weight", fuse_names=FUSED)]
    ),
    "bnn": lambda net: BNNQuantizer(net, [entry(["c2", "fc"], "_input_", "weight")]),
}


def ready(kind: str) -> tuple[Residual, Quantizer]:
    """A quantised network that has seen some images, in eval mode."""
    net = trained_like()
    quantizer = KINDS[kind](net)
    if isinstance(quantizer, PtqQuantizer):
        quantizer.calibrate([images()])
    else:
        net.train()(images())
    return net.eval(), quantizer


@pytest.mark.parametrize("kind", KINDS)
def test_copies_pickles_states_and_exports_compute_the_same(kind: str) -> None:
    net, quantizer = ready(kind)
    expected = net(images())
    assert torch.equal(copy.deepcopy(net)(images()), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(images()), expected)
    exported = torch.export.export(net, (images(),), strict=False).module()
    assert torch.allclose(exported(images()), expected, atol=1e-6)
    other = trained_like()
    again = KINDS[kind](other)
    if isinstance(again, PtqQuantizer):
        again.update_calibration_config(quantizer.get_calibration_config())
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_given_back(kind: str) -> None:
    net = trained_like()
    before, names = copy.deepcopy(net.state_dict()), [type(module) for module in net.modules()]
    float_output = net(images())
    quantizer = KINDS[kind](net)
    if isinstance(quantizer, PtqQuantizer):
        quantizer.calibrate([images()])
    else:
        quantizer.track_forward(images())
    quantised = net(images())
    assert not torch.allclose(quantised, float_output, atol=1e-4)
    quantizer.unwrap_model()
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [type(module) for module in net.modules()] == names
    assert torch.equal(net(images()), float_output)
    quantizer.wrap_model()
    assert torch.equal(net(images()), quantised)


def test_fused_layers_compute_what_folding_gives() -> None:
    net = trained_like()
    quantizer = QATQuantizer(net, EVERYTHING)
    quantizer.track_forward(images())
    output = net(images())
    grids = quantizer.grids()
    quantizer.unwrap_model()
    first, second = fuse_conv_bn_eval(net.c1, net.b1), fuse_conv_bn_eval(net.c2, net.b2)
    for module, name in ((first, "c1"), (second, "c2"), (net.fc, "fc")):
        module.weight.data = grids[name]["weight"].apply(module.weight.data)
    with torch.no_grad():
        x = grids["c1"]["_output_0"].apply(first(grids["c1"]["_input_0"].apply(images())).relu())
        y = grids["c2"]["_output_0"].apply(second(grids["c2"]["_input_0"].apply(x)))
        x = (x + y).relu().mean((2, 3))
        x = grids["fc"]["_output_0"].apply(net.fc(grids["fc"]["_input_0"].apply(x)))
    assert torch.allclose(x, output, atol=float(grids["fc"]["_output_0"].scale) / 100)


def test_auto_finds_what_follows_what() -> None:
    net = trained_like()
    quantizer = QATQuantizer(net, [entry(["c1", "c2", "fc"], fuse_names="auto")], dummy_input=images(1))
    assert [chain.paths for chain in quantizer.chains] == [("c1", "b1", "relu"), ("c2", "b2")]
    with pytest.raises(QuantizationError, match="dummy_input"):
        QATQuantizer(trained_like(), [entry(["c1"], fuse_names="auto")])


def test_batch_statistics_are_those_of_the_float_model() -> None:
    net, twin = trained_like().train(), trained_like().train()
    QATQuantizer(net, [entry(["c1"], "weight", fuse_names=[("c1", "b1")])])
    net(images()), twin(images())
    assert torch.allclose(net.b1.running_var, twin.b1.running_var, rtol=1e-2)
    assert not torch.equal(net.b1.running_var, twin.b1.running_var)


def test_a_norm_without_a_gain_is_a_channel_of_its_shift() -> None:
    net = trained_like()
    net.b1.weight.data[2] = 0
    quantizer = QATQuantizer(net, EVERYTHING)
    quantizer.track_forward(images())
    assert torch.isfinite(net(images())).all()


def test_modules_that_do_not_follow_each_other_are_named() -> None:
    net = trained_like()
    QATQuantizer(net, [entry(["c1"], "weight", fuse_names=[("c1", "b2")])])
    with pytest.raises(QuantizationError, match=r"c1, b2.*'b2' does not get what 'c1' puts out"):
        net(images())


def test_a_bias_of_a_fused_layer_and_a_module_in_two_groups_are_refused() -> None:
    net = trained_like()
    with pytest.raises(QuantizationError, match=r"c2\.bias is made of the BatchNorm 'b2'"):
        QATQuantizer(net, [entry(["c2"], "weight", "bias", fuse_names=[("c2", "b2")])])
    with pytest.raises(QuantizationError, match="'c1' is in two groups"):
        QATQuantizer(net, [entry(["c1"], "weight", fuse_names=[("c1", "b1"), ("c1", "b1", "relu")])])
    assert type(net.c2) is nn.Conv2d and net(images()).shape == (8, 5)


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_stays_zero(kind: str) -> None:
    net = trained_like()
    pruner = L1NormPruner(net, [{"op_names": ["c2", "fc"], "sparse_ratio": 0.5}])
    pruner.compress()
    config = KINDS[kind](trained_like()).config_list
    quantizer = type(KINDS[kind](trained_like())).from_compressor(pruner, config)
    quantizer.track_forward(images())
    masks = pruner.get_masks()
    for module, name in ((net.c2, "c2"), (net.fc, "fc")):
        gone = masks[name]["weight"] == 0
        assert gone.any() and (module.weight[gone] == 0).all() and (module.weight[~gone] != 0).any()
    assert quantizer.fused_compressors == [quantizer, pruner]


def test_scales_are_those_of_the_masked_weight() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    net[0].weight.data = torch.tensor([[8.0, 8.0], [1.0, 2.0]])
    pruner = L1NormPruner(net, [{"op_names": ["0"], "sparse_ratio": 0.5}])
    pruner.generate_masks()
    pruner.update_masks({"0": {"weight": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}})
    quantizer = QATQuantizer.from_compressor(pruner, [entry(["0"], "weight")])
    assert float(quantizer.get_calibration_config()["0"]["weight"]["tracked_max"]) == 2


# -- awkward models --------------------------------------------------------------------------------


def test_a_module_that_is_called_twice_has_one_range_for_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x) + 100)

    net = Twice()
    quantizer = PtqQuantizer(net, [entry(["fc"], "_input_")])
    quantizer.calibrate([torch.zeros(1, 2)])
    assert float(quantizer.get_calibration_config()["fc"]["_input_0"]["tracked_max"]) > 90


def test_tied_weights_are_quantised_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    net = Tied()
    QATQuantizer(net, [entry(["head"], "weight", dtype="int3")])
    assert torch.equal(net.head.weight, net.embed.weight) and net.embed.weight.unique().numel() <= 7
    assert net.head.weight_scale is net.embed.weight_scale
    with pytest.raises(CompressionError, match="one parameter"):
        QATQuantizer(Tied(), [entry(["head", "embed"], "weight")])


def test_frozen_weights_and_integer_inputs() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2)).requires_grad_(False)
    QATQuantizer(net, [entry(["0"], "_input_", "weight"), entry(["1"])])
    assert net(torch.tensor([[0, 1]])).shape == (1, 2, 2) and not net[1].weight.requires_grad


def test_recurrent_layers_and_attention_read_quantised_weights() -> None:
    for net, name in ((nn.LSTM(3, 4), "weight_ih_l0"), (nn.MultiheadAttention(4, 2), "in_proj_weight")):
        outer = nn.ModuleDict({"inner": net})
        x = torch.randn(5, 2, net.input_size if isinstance(net, nn.LSTM) else 4)
        args = (x,) if isinstance(net, nn.LSTM) else (x, x, x)
        before = net(*args)[0]
        QATQuantizer(outer, [entry(["inner"], name, dtype="int3")])
        assert not torch.allclose(net(*args)[0], before, atol=1e-3)
        assert getattr(net, name).unique().numel() <= 7


def test_half_precision_models_run() -> None:
    net = trained_like().to(torch.bfloat16)
    quantizer = QATQuantizer(net, EVERYTHING)
    net.train()(images().to(torch.bfloat16)).sum().backward()
    quantizer.step()
    assert net(images().to(torch.bfloat16)).dtype == torch.bfloat16


def test_scales_of_channels_of_an_input() -> None:
    config = [entry(["c2"], "_input_", granularity="per_channel")]
    net = trained_like()
    quantizer = QATQuantizer(net, config)
    quantizer.track_forward(images())
    assert net.c2._input_0_scale.shape == (1, 8, 1, 1)
    quantizer = LsqQuantizer(trained_like(), config, dummy_input=images(1))
    assert quantizer.bound_model.c2._input_0_scale.shape == (1, 8, 1, 1)
    with pytest.raises(QuantizationError, match="dummy_input"):
        LsqQuantizer(trained_like(), config)


# -- mistakes --------------------------------------------------------------------------------------


def test_all_mistakes_of_a_list_are_named_and_nothing_is_changed() -> None:
    net = trained_like()
    wrong = [
        {"op_names": ["c1"], "quant_dtype": "int9", "fuse_names": [("c1", "relu", "b1")]},
        {
            "op_names": ["fc"],
            "target_names": ["weight"],
            "quant_scheme": "affine",
            "fuse_names": [("c2", "x")],
        },
        {"op_names": ["c2"], "quant_dtype": "int8", "granularity": "heads", "sparse_ratio": 0.5},
        {"op_names": ["b1"], "target_names": ["running_mean"], "quant_dtype": "int8", "lambda": 1},
        {
            "op_names": ["c2"],
            "target_names": ["_input_"],
            "quant_dtype": "int8",
            "fuse_names": [("c2", "b2")],
        },
        {"op_names": ["c2"], "quant_dtype": 8, "fuse_names": [("c2",)], "quant_scheme": "linear"},
    ]
    with pytest.raises(secateur.ConfigError) as error:
        QATQuantizer(net, wrong)
    text = str(error.value)
    for part in (
        "entry 0, key 'quant_dtype' ('int9')",
        "entry 1: it has no 'quant_dtype'",
        "entry 1, key 'fuse_names' (('c2', 'x')): there is no module 'x'",
        "entry 2, key 'sparse_ratio' (0.5): this is a key for pruning",
        "entry 3, key 'lambda' (1): this is a key for distillation",
        "entry 4, key 'fuse_names' (('c2', 'b2')): the weight of 'c2' has to be a target",
        "entry 5, key 'quant_dtype' (8)",
        "entry 5, key 'fuse_names' ([('c2',)]): two or three modules are fused, got 1",
        "entry 5, key 'quant_scheme' ('linear')",
    ):
        assert part in text, part
    assert type(net.c1) is nn.Conv2d and not [name for name in net.state_dict() if "scale" in name]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"c9": {"weight": {}}}, r"c9\.weight is no target"),
        ({"c1": {"weight": {"quant_dtype": "uint8"}}}, "quant_dtype is 'uint8'"),
        ({"c1": {"weight": {"quant_scheme": "affine"}}}, "quant_scheme is 'affine'"),
        ({"c1": {"weight": {"scale": torch.ones(8, 1, 1, 1)}}}, "no 'zero_point'"),
        (
            {"c1": {"weight": {"scale": torch.ones(7), "zero_point": torch.ones(7)}}},
            r"shape \(7,\).*\(8, 1, 1, 1\)",
        ),
        ({"c1": {"_input_": {"scale": torch.tensor(-1.0), "zero_point": torch.tensor(0)}}}, "above zero"),
    ],
)
def test_calibrations_that_do_not_fit_change_nothing(config: dict, message: str) -> None:
    quantizer = QATQuantizer(trained_like(), EVERYTHING)
    before = quantizer.get_calibration_config()
    with pytest.raises(QuantizationError, match=message):
        quantizer.update_calibration_config({"fc": before["fc"], **config})
    assert torch.equal(
        quantizer.get_calibration_config()["c1"]["weight"]["scale"], before["c1"]["weight"]["scale"]
    )


def test_what_cannot_be_done_is_said() -> None:
    net = trained_like()
    evaluator = evaluator_for(net)
    first = QATQuantizer(net, EVERYTHING, evaluator, quant_start_step=5)
    with pytest.raises(QuantizationError, match=r"compress\(max_steps"):
        first.compress()
    with pytest.raises(QuantizationError, match="at least 5"):
        first.compress(max_steps=4)
    with pytest.raises(CompressionError, match=r"c1\._input_0 is quantised by another"):
        LsqQuantizer.from_compressor(first, [entry(["c1"], "_input_")])
    with pytest.raises(CompressionError, match="from_compressor"):
        QATQuantizer(net, EVERYTHING)
    with pytest.raises(QuantizationError, match="quant_start_step"):
        QATQuantizer(trained_like(), EVERYTHING, quant_start_step=-1)
    with pytest.raises(QuantizationError, match=r"b2\._output_0.*cuts outputs to \[0, 1\].*BatchNorm2d"):
        DoReFaQuantizer(trained_like(), [entry(["b2"], "_output_")])
    with pytest.raises(QuantizationError, match="did you mean 'minmax'"):
        PtqQuantizer(trained_like(), EVERYTHING, observer="minmx")
    with pytest.raises(QuantizationError, match=r"c1\._input_0 has granularity 'per_channel'"):
        PtqQuantizer(trained_like(), [entry(["c1"], "_input_", granularity="per_channel")], observer="mse")
    with pytest.raises(QuantizationError, match=r"calibrate\(batches\)"):
        PtqQuantizer(trained_like(), EVERYTHING).compress()
    with pytest.raises(QuantizationError, match=r"c1\._input_0 and 5 more was seen"):
        PtqQuantizer(trained_like(), EVERYTHING).calibrate([])
